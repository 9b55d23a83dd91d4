"""Which processes an agent answers for that lives in a namespace of its own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

from agent.demo.isolation import inside, namespace_fd
from agent.demo.private_host import PrivateHost
from agent.kernel import procfs
from agent.kernel.realm import Realm
from tests.harness.netns import add_netns
from tests.harness.waiting import eventually


@contextlib.contextmanager
def started(*command: str) -> Iterator[int]:
    """A process that is in another network namespace than whoever started it."""
    with subprocess.Popen([*command, "cat"], stdin=subprocess.PIPE) as process:
        ours = procfs.netns_of(os.getpid())
        eventually(lambda: procfs.netns_of(process.pid) not in (None, ours), 5, "it is elsewhere")
        yield process.pid


def includes(realm: Realm, pid: int) -> bool:
    inode = procfs.netns_of(pid)
    assert inode is not None
    return realm.includes(pid, inode)


def test_what_was_started_from_the_host_is_its_business(private_host: PrivateHost) -> None:
    realm = Realm()
    with started("unshare", "-n") as plain, started("unshare", "-n", "-m") as with_mounts:
        assert includes(realm, plain)
        assert includes(realm, with_mounts)


def test_so_is_what_has_the_host_s_mounts_whoever_started_it(private_host: PrivateHost) -> None:
    add_netns("elsewhere")
    realm = Realm()
    with inside("elsewhere"), started("unshare", "-n") as pid:
        assert includes(realm, pid)


def test_what_others_have_started_is_not(private_host: PrivateHost) -> None:
    add_netns("within")
    with inside("within"):
        realm = Realm()
    with started("unshare", "-n", "-m") as pid:
        assert not includes(realm, pid)


def test_neither_the_host_nor_the_machine_is_to_be_networked(private_host: PrivateHost) -> None:
    realm = Realm()
    descriptor = namespace_fd("net")
    assert os.fstat(descriptor).st_ino in realm.outside
    os.close(descriptor)
    assert procfs.netns_of(2) in realm.outside
