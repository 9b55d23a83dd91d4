"""Entering network namespaces: open, look or act, close.

A socket belongs to the namespace of the thread that opens it. So the thread enters,
opens one, and is back before anything else happens; what is done through the socket is
done inside. Nothing is kept open: a file or a socket would keep a namespace alive.

Source: setns(2), ioctl_ns(2), socket(7).
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
from types import TracebackType
from typing import Final, NoReturn, Self

from agent.core.identity import printable
from agent.errors import HostError, KernelError, NamespaceGone, VethdError
from agent.kernel.netlink import Netlink
from agent.model import Cookie

_CLONE_NEWNET: Final = 0x40000000
_NS_GET_USERNS: Final = 0xB701
_NS_GET_NSTYPE: Final = 0xB703
_SO_NETNS_COOKIE: Final = 71
# What a path says that leads nowhere, or to what is no namespace; all else is the host's trouble.
_LEADS_NOWHERE: Final = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESRCH, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV,
        errno.ENAMETOOLONG, errno.ENOTTY,
    }
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


class NotANamespace(NamespaceGone):
    """The file is no network namespace: not yet, not any more, or something else altogether."""


class Handle:
    """A namespace held open: its cookie, its file descriptor, and a netlink socket inside.

    ``other_userns`` tells whether its user namespace is not ``userns``, an inode.
    """

    def __init__(self, descriptor: int, host: int, userns: int) -> None:
        self.descriptor = descriptor
        self._host = host
        self.inode = os.fstat(descriptor).st_ino
        self.other_userns = _owner_of(descriptor) != userns
        self.netlink = self.open_socket()
        self.cookie = cookie_of(self.netlink)

    def open_socket(self) -> Netlink:
        """Open one more netlink socket inside. Raises KernelError."""
        try:
            enter(self.descriptor)
        except OSError as error:
            raise KernelError("enter the namespace", error.errno or 0) from error
        try:
            return Netlink()
        finally:
            come_back(self._host)

    def close(self) -> None:
        """Let the namespace go."""
        self.netlink.close()
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Namespaces:
    """Opens namespaces by path, from the namespace that the agent was started in (the host)."""

    def __init__(self) -> None:
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._nsfs = os.fstat(self._host).st_dev
        self._userns = os.stat("/proc/thread-self/ns/user").st_ino
        with Netlink() as netlink:
            self.host = cookie_of(netlink)

    def is_namespace(self, path: str, of_process: bool = False) -> bool:
        """Tell whether a namespace of any kind is mounted on ``path``, or a process's; costs one stat."""
        try:
            return os.stat(path, follow_symlinks=of_process).st_dev == self._nsfs
        except OSError:
            return False

    def open(self, path: str, of_process: bool = False) -> Handle:
        """Open the network namespace mounted on ``path``, or that of a process: ``/proc/PID/ns/net``.

        Raises NotANamespace when the path is missing or anything else, and KernelError when it
        cannot be entered now: too many open files, say. A symlink, FIFO or device is never opened;
        what a process's file leads to is a namespace in any case.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if of_process else os.O_NOFOLLOW)
        try:
            found = os.stat(path, follow_symlinks=of_process)
            if found.st_dev != self._nsfs or not stat.S_ISREG(found.st_mode):
                raise NotANamespace(path)
            descriptor = os.open(path, flags)
        except OSError as error:
            raise _trouble(path, error) from error
        try:
            if _is_network_namespace(descriptor):
                return Handle(descriptor, self._host, self._userns)
        except OSError as error:
            os.close(descriptor)
            raise _trouble(path, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        raise NotANamespace(path)

    def close(self) -> None:
        """Close the host's descriptor."""
        os.close(self._host)


def cookie_of(netlink: Netlink) -> Cookie:
    """Return the cookie of the namespace that a socket belongs to.

    Raises HostError before Linux 5.14, which has no cookies.
    """
    try:
        raw = netlink.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError as error:
        raise HostError(
            "this kernel cannot tell namespaces apart (SO_NETNS_COOKIE): use Linux 5.14 or newer"
        ) from error
    return Cookie(struct.unpack("=Q", raw)[0])


def _trouble(path: str, error: OSError) -> VethdError:
    if error.errno in _LEADS_NOWHERE:
        return NotANamespace(path)
    return KernelError(f"enter {printable(path)}", error.errno or 0)


def _is_network_namespace(descriptor: int) -> bool:
    return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET


def _owner_of(descriptor: int) -> int | None:
    """Return the inode of the user namespace that owns a namespace, None when we may not know it."""
    try:
        owner = fcntl.ioctl(descriptor, _NS_GET_USERNS)
    except PermissionError:
        return None
    try:
        return os.fstat(owner).st_ino
    finally:
        os.close(owner)


def enter(descriptor: int) -> None:
    """Move the calling thread into a network namespace. Raises OSError."""
    if _libc.setns(descriptor, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def come_back(host: int) -> None:
    """Move the calling thread back to where it belongs; the process ends where that fails."""
    if _libc.setns(host, _CLONE_NEWNET):
        _die()


def _die() -> NoReturn:
    # A thread that is in a stranger's namespace must not do one more thing.
    sys.stderr.write("vethd: a thread could not leave a namespace; stopping at once\n")
    sys.stderr.flush()
    os._exit(70)
