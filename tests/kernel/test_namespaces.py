"""Opening namespaces by path: only real network namespaces, without a trace, and back where one was."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo.isolation import MS_BIND, MS_PRIVATE, mount, mount_new_namespace
from agent.demo.private_host import PrivateHost
from agent.errors import HostError, KernelError, NamespaceGone
from agent.kernel.namespaces import Namespaces, NotANamespace, cookie_of
from agent.kernel.netlink import Netlink
from tests.harness import netns, observe
from tests.harness.waiting import eventually
from tests.kernel.ground import sh

NETNS = Path("/run/netns")


@pytest.fixture
def namespaces(private_host: PrivateHost) -> Iterator[Namespaces]:
    netns.add_many(["web"])
    opened = Namespaces()
    yield opened
    opened.close()


def here() -> os.stat_result:
    return os.stat("/proc/thread-self/ns/net")


def bind(kind: str, pid: int | str = "thread-self") -> str:
    """A namespace mounted on a file, in a place of its own: a mount namespace must not propagate."""
    place = Path("/run/place")
    place.mkdir()
    mount("vethd-test", str(place), "tmpfs")
    mount("", str(place), flags=MS_PRIVATE)
    path = place / kind
    path.touch()
    mount(f"/proc/{pid}/ns/{kind}", str(path), flags=MS_BIND)
    return str(path)


def test_a_network_namespace(namespaces: Namespaces) -> None:
    path = str(NETNS / "web")
    assert namespaces.is_namespace(path)
    with namespaces.open(path) as handle:
        assert handle.cookie != namespaces.host
        with handle.open_socket() as inside:
            assert cookie_of(inside) == handle.cookie


def test_the_cookie_is_the_namespace_not_the_name(namespaces: Namespaces) -> None:
    (NETNS / "alias").touch()
    mount(str(NETNS / "web"), str(NETNS / "alias"), flags=MS_BIND)
    cookies = []
    for name in ("web", "web", "alias"):
        with namespaces.open(str(NETNS / name)) as handle:
            cookies.append(handle.cookie)
    assert len(set(cookies)) == 1
    netns.delete_many(["web"])
    netns.add_many(["web"])
    with namespaces.open(str(NETNS / "web")) as handle:
        assert handle.cookie not in cookies


def test_the_host_knows_itself(namespaces: Namespaces) -> None:
    with Netlink() as netlink:
        assert cookie_of(netlink) == namespaces.host
    with namespaces.open(bind("net")) as handle:
        assert handle.cookie == namespaces.host


def _nothing() -> str:
    return str(NETNS / "nothing")


def _placeholder() -> str:
    (NETNS / "placeholder").touch(0)
    return str(NETNS / "placeholder")


def _directory() -> str:
    (NETNS / "directory").mkdir()
    return str(NETNS / "directory")


def _symlink() -> str:
    (NETNS / "symlink").symlink_to(NETNS / "web")
    return str(NETNS / "symlink")


def _loop() -> str:
    (NETNS / "loop").symlink_to(NETNS / "loop")
    return str(NETNS / "loop")


def _fifo() -> str:
    os.mkfifo(NETNS / "fifo")
    return str(NETNS / "fifo")


def _socket() -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(NETNS / "socket"))
    return str(NETNS / "socket")


def _device() -> str:
    os.mknod(NETNS / "device", 0o600 | 0o020000, os.makedev(1, 5))
    return str(NETNS / "device")


def _below_a_file() -> str:
    return str(NETNS / "web" / "below")


def _too_long() -> str:
    return str(NETNS / ("n" * 300))


OTHERS = [_nothing, _placeholder, _directory, _symlink, _loop, _fifo, _socket, _device, _below_a_file, _too_long]


@pytest.mark.parametrize("make", OTHERS)
def test_anything_else_is_none_and_nothing_hangs(namespaces: Namespaces, make: object) -> None:
    assert callable(make)
    path = make()
    files = len(os.listdir("/proc/self/fd"))
    assert not namespaces.is_namespace(path)
    with pytest.raises(NotANamespace) as caught:
        namespaces.open(path)
    assert isinstance(caught.value, NamespaceGone)
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("kind", ["uts", "ipc"])
def test_a_namespace_of_another_kind_is_not_entered(namespaces: Namespaces, kind: str) -> None:
    # Not a mount namespace: whether one may be mounted depends on numbers that follow no order.
    with subprocess.Popen(["unshare", "--mount", "--uts", "sh", "-c", "echo; read _"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        path = bind(kind, child.pid)
        home = here()
        with pytest.raises(NotANamespace):
            namespaces.open(path)
        assert os.path.samestat(here(), home)
        child.kill()


def test_a_placeholder_that_becomes_a_namespace(namespaces: Namespaces) -> None:
    path = _placeholder()
    assert not namespaces.is_namespace(path)
    mount_new_namespace(os.fsencode(path))
    assert namespaces.is_namespace(path)
    namespaces.open(path).close()


def test_names_may_be_any_bytes(namespaces: Namespaces) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"-x", b"n" * 255):
        netns.add_netns(name)
        with namespaces.open(os.fsdecode(os.path.join(b"/run/netns", name))) as handle:
            assert handle.cookie


def test_nothing_is_held_open(namespaces: Namespaces) -> None:
    """A namespace dies with its name: then its end of a pair, and so the other end, is gone."""
    files = len(os.listdir("/proc/self/fd"))
    sh("ip link add near type veth peer name eth0 netns web")
    for _ in range(3):
        with namespaces.open(str(NETNS / "web")) as handle, handle.open_socket():
            pass
    assert len(os.listdir("/proc/self/fd")) == files
    netns.delete_many(["web"])
    eventually(lambda: "near" not in observe.links(), 5, "the namespace is gone")


def test_while_a_handle_is_open_the_namespace_lives(namespaces: Namespaces) -> None:
    sh("ip link add near type veth peer name eth0 netns web")
    with namespaces.open(str(NETNS / "web")):
        netns.delete_many(["web"])
        assert "near" in observe.links()
    eventually(lambda: "near" not in observe.links(), 5, "the namespace is gone")


def test_the_thread_is_back_in_its_namespace_whatever_happens(
    namespaces: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = here()
    with namespaces.open(str(NETNS / "web")) as handle:
        assert os.path.samestat(here(), home)
        with handle.open_socket():
            assert os.path.samestat(here(), home)

        def broken() -> Netlink:
            assert not os.path.samestat(here(), home), "it is opened inside"
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("agent.kernel.namespaces.Netlink", broken)
        with pytest.raises(OSError, match="Too many open files"):
            handle.open_socket()
        assert os.path.samestat(here(), home)
        files = len(os.listdir("/proc/self/fd"))
        with pytest.raises(KernelError, match=r"enter .*/web: the kernel said EMFILE"):
            namespaces.open(str(NETNS / "web"))
        assert len(os.listdir("/proc/self/fd")) == files
    assert os.path.samestat(here(), home)


def test_threads_do_not_get_into_each_other_s_way(namespaces: Namespaces) -> None:
    netns.add_many(["a", "b", "c"])
    wrong: list[str] = []

    def look(name: str) -> None:
        home = here()
        cookies = set()
        for _ in range(100):
            with namespaces.open(str(NETNS / name)) as handle:
                cookies.add(handle.cookie)
                if not os.path.samestat(here(), home):
                    wrong.append(name)
        if len(cookies) != 1:
            wrong.append(name)

    threads = [threading.Thread(target=look, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_who_cannot_come_back_ends_at_once(private_host: PrivateHost) -> None:
    """A thread in a stranger's namespace must not do one more thing, so the process ends."""
    netns.add_many(["web"])
    program = (
        "import os\n"
        "from agent.kernel.namespaces import Namespaces\n"
        "namespaces = Namespaces()\n"
        "os.dup2(os.open('/dev/null', os.O_RDONLY), namespaces._host)\n"
        "namespaces.open('/run/netns/web')\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr == "vethd: a thread could not leave a namespace; stopping at once\n"


def test_a_kernel_without_cookies_is_told_of(namespaces: Namespaces, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(92, "Protocol not available")

    with Netlink() as netlink:
        monkeypatch.setattr(netlink, "getsockopt", refuse)
        with pytest.raises(HostError, match=r"SO_NETNS_COOKIE\): use Linux 5\.14 or newer"):
            cookie_of(netlink)
