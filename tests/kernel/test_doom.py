"""Devices are deleted together, and known to be gone before the kernel says that it is done."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent.core.identity import ALIAS_PREFIX, host_end_name
from agent.demo.private_host import PrivateHost
from agent.kernel.doom import Deletion, Doom
from agent.model import Cookie
from tests.harness import netns, observe
from tests.kernel.ground import sh


@pytest.fixture
def doom(private_host: PrivateHost) -> Iterator[Doom]:
    netns.add_netns("far")
    with contextlib.closing(Doom()) as made:
        yield made


def pairs(count: int, up: bool = True) -> list[str]:
    names = [host_end_name(Cookie(number)) for number in range(1, count + 1)]
    lines = [
        f"link add {name} {'up' if up else ''} type veth peer name eth{place} netns far\\n"
        f"link set {name} alias {ALIAS_PREFIX}{place}\\n"
        for place, name in enumerate(names)
    ]
    sh(f"printf '{''.join(lines)}' | ip -batch -")
    return names


def away(deletion: Deletion) -> bool:
    """Whether nothing was refused."""
    with contextlib.closing(deletion):
        deletion.until_silent()
        return deletion.until_gone() == {}


def test_devices_go_together_and_no_others(doom: Doom) -> None:
    one, stays, two = pairs(3)
    sh("ip link add theirs type bridge")
    assert away(doom.begin([one, two, "theirs"]))
    assert set(observe.links("far")) == {"lo", "eth1"}
    assert {stays, "theirs"} <= set(observe.links())


def test_they_are_told_as_they_were(doom: Doom) -> None:
    one, two = pairs(2)
    index = observe.links()[one]["ifindex"]
    deletion = doom.begin([one, two, "nobody"])
    assert away(deletion)
    assert deletion.links().keys() == {one, two}
    assert deletion.links()[one].index == index


def test_the_kernel_s_answer_is_not_waited_for(doom: Doom) -> None:
    (one,) = pairs(1)
    deletion = doom.begin([one])
    assert away(deletion)
    assert one not in observe.links()
    assert not deletion.answered, "the kernel waits for its readers"


def test_a_silent_device_says_nothing_any_more(doom: Doom) -> None:
    (one,) = pairs(1)
    sh(f"ip addr add 10.0.0.1/24 dev {one}; ip -n far addr add 10.0.0.2/24 dev eth0; ip -n far link set eth0 up")
    with (
        netns.socket_in(None, "10.0.0.1", socket.SOCK_DGRAM) as listener,
        netns.socket_in("far", "10.0.0.1", socket.SOCK_DGRAM) as sender,
    ):
        listener.bind(("10.0.0.1", 4711))
        listener.settimeout(3)
        sender.sendto(b"before", ("10.0.0.1", 4711))
        assert listener.recv(9) == b"before"
        with contextlib.closing(doom.begin([one])) as deletion:
            deletion.until_silent()
            with contextlib.suppress(OSError):
                sender.sendto(b"after", ("10.0.0.1", 4711))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(9)


@pytest.mark.parametrize("up", [True, False])
def test_devices_that_are_gone_or_down_already_are_no_error(doom: Doom, up: bool) -> None:
    gone, there = pairs(2, up=up)
    sh(f"ip link del {gone}")
    assert away(doom.begin([gone, there]))
    assert there not in observe.links()
    assert away(doom.begin([gone, there]))
    assert away(doom.begin([]))


def test_more_ends_than_can_be_told_at_once(doom: Doom) -> None:
    """The kernel's answer stands in for what is lost."""
    assert away(doom.begin(pairs(300)))
    assert observe.host_ends() == {}


def test_more_deletions_at_once_than_threads(doom: Doom) -> None:
    names = pairs(12)
    deletions = [doom.begin([name]) for name in names]
    assert all(away(deletion) for deletion in deletions)
    assert observe.host_ends() == {}
