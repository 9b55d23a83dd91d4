"""The system calls a private host is made of; all of them act on the calling thread alone.

Python 3.11 has neither `os.unshare` nor `os.setns`, and no version has `mount`, hence ctypes.
See unshare(2), setns(2), mount(2), ip-netns(8).
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import VethdError

CLONE_FS = 0x0000_0200
CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
_MNT_DETACH = 2

NETNS_DIR = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


class PrivateHostError(VethdError):
    """A private host cannot be had here; the message is one line and says why."""


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str | bytes, fstype: str = "none", flags: int = 0, data: str = "") -> None:
    raw = os.fsencode(target)
    result = _libc.mount(source.encode(), raw, fstype.encode(), flags, data.encode())
    _check(result, f"mount {fstype} on {os.fsdecode(raw)}")


def unmount(target: str | bytes) -> None:
    """Lazily, as `ip netns del` does it."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {os.fsdecode(target)}")


def namespace_fd(kind: str) -> int:
    """Of the calling thread: under /proc/self it would be the main thread's."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def initial_namespace() -> os.stat_result:
    """The machine's own network namespace: device and inode tell it from others.

    Process 1 shows it. A hardened process 1 may not let itself be looked at; the kernel's own
    threads, children of kthreadd (process 2, whose parent is 0), never leave it.
    """
    with contextlib.suppress(PermissionError):
        return os.stat("/proc/1/ns/net")
    with contextlib.suppress(OSError):
        # "2 (kthreadd) S 0 ...": proc_pid_stat(5)
        if Path("/proc/2/stat").read_text().split()[3] == "0":
            return os.stat("/proc/2/ns/net")
    raise PrivateHostError("cannot tell the machine's own network namespace: /proc/1/ns/net")


def in_initial_namespace() -> bool:
    """Whether the calling thread is in the machine's own network namespace."""
    return os.path.samestat(os.stat("/proc/thread-self/ns/net"), initial_namespace())


def refuse_initial_namespace() -> None:
    """Raise `PrivateHostError` where a change to the network would hit the real machine."""
    if in_initial_namespace():
        raise PrivateHostError("this is the machine's own network namespace: nothing is changed")


def named_path(netns: str | bytes | Path) -> bytes:
    """A name stands in /run/netns, a Path for itself. Names may be any bytes, so paths are bytes."""
    return os.fsencode(netns) if isinstance(netns, Path) else os.path.join(os.fsencode(NETNS_DIR), os.fsencode(netns))


@contextlib.contextmanager
def inside(netns: str | bytes | Path) -> Iterator[None]:
    """Put the calling thread into a network namespace for the length of the block.

    `netns` is a name in /run/netns, or a Path. A socket made in the block stays in that
    namespace for good, wherever it is used. Entering and leaving take some 20 microseconds.
    """
    home = namespace_fd("net")
    try:
        target = os.open(named_path(netns), os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(target, CLONE_NEWNET)
        finally:
            os.close(target)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def prepare_netns_dir() -> None:
    """Make /run/netns a shared mount of its own, as the first `ip netns add` does."""
    refuse_initial_namespace()
    NETNS_DIR.mkdir(mode=0o755, exist_ok=True)
    try:
        mount("", str(NETNS_DIR), flags=MS_SHARED | MS_REC)
    except OSError:
        # EINVAL: no mount yet. os.path.ismount cannot tell, as a bind mount stays on its device.
        mount(str(NETNS_DIR), str(NETNS_DIR), flags=MS_BIND | MS_REC)
        mount("", str(NETNS_DIR), flags=MS_SHARED | MS_REC)


def add_named(netns: str | bytes | Path) -> None:
    """What `ip netns add` does, by the same calls in the same order, without a process.

    The directory must be there: for a name in /run/netns, `prepare_netns_dir` makes it.
    """
    refuse_initial_namespace()
    path = named_path(netns)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    mount_new_namespace(path)


def mount_new_namespace(path: bytes) -> None:
    """Make a network namespace and mount it on an existing file: the second half of `add_named`."""
    refuse_initial_namespace()
    home = namespace_fd("net")
    try:
        unshare(CLONE_NEWNET)
        try:
            mount("/proc/thread-self/ns/net", path, flags=MS_BIND)
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def delete_named(netns: str | bytes | Path) -> None:
    """What `ip netns del` does: a lazy unmount, then unlink."""
    refuse_initial_namespace()
    unmount(named_path(netns))
    os.unlink(named_path(netns))
