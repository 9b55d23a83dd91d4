"""Making and removing a name, step by step, with somebody else between the steps."""

import os
from pathlib import Path

import pytest

from agent.demo.private_host import PrivateHost
from agent.kernel.named import Named
from agent.kernel.namespaces import Namespaces
from tests.harness import netns, observe

NETNS = Path("/run/netns")
DIRECTORY = os.fsencode(NETNS)


def here() -> os.stat_result:
    return os.stat("/proc/thread-self/ns/net")


def is_namespace(name: str) -> bool:
    opened = Namespaces()
    try:
        return opened.is_namespace(str(NETNS / name))
    finally:
        opened.close()


def test_it_is_a_name_first_and_a_namespace_then(private_host: PrivateHost) -> None:
    before = here()
    web = Named(DIRECTORY, b"web")
    assert os.path.isfile(web.path)
    assert not is_namespace("web")
    web.make()
    assert is_namespace("web")
    assert set(observe.links("web")) == {"lo"}
    assert os.path.samestat(before, here())
    web.remove()
    web.remove()
    assert os.listdir(NETNS) == []


def test_a_name_that_was_never_made_a_namespace_goes_too(private_host: PrivateHost) -> None:
    Named(DIRECTORY, b"web").remove()
    assert os.listdir(NETNS) == []


def test_a_name_that_is_taken_is_refused(private_host: PrivateHost) -> None:
    netns.add_netns("web")
    with pytest.raises(FileExistsError):
        Named(DIRECTORY, b"web")
    assert is_namespace("web")


@pytest.mark.parametrize("mounted", [False, True])
def test_a_name_that_is_another_by_now_stays(private_host: PrivateHost, mounted: bool) -> None:
    """The kernel gives the number of a namespace that is gone to the next one."""
    web = Named(DIRECTORY, b"web")
    web.make()
    netns.del_netns("web")
    if mounted:
        netns.add_netns("web")
    else:
        (NETNS / "web").touch()
    web.remove()
    assert is_namespace("web") == mounted
    assert os.listdir(NETNS) == ["web"]
