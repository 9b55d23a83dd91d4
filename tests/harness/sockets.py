"""Hands on the sockets of a running process: so that its kernel loses what it would have heard.

A descriptor of another process is got by pidfd_getfd(2); which socket it is, is told by /proc/net/netlink.
"""

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROUTE, NETFILTER, CONNECTOR = 0, 12, 11
# The same on all machines: include/uapi/asm-generic/unistd.h.
_SYS_PIDFD_GETFD = 438
_SMALLEST = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Told(NamedTuple):
    """What /proc/net/netlink tells of a socket."""

    protocol: int
    groups: int
    drops: int
    inode: int


def shrink(pid: int, protocol: int) -> int:
    """Leave room for a few messages in each socket of the protocol that listens; return how many there are."""
    shrunk = 0
    with _pidfd(pid) as pidfd:
        for descriptor in _listening(pid, protocol):
            copy = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0)
            assert copy >= 0, os.strerror(ctypes.get_errno())
            with socket.socket(fileno=copy) as shared:
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALLEST)
            shrunk += 1
    return shrunk


def drops(pid: int, protocol: int) -> int:
    """How many messages the kernel has dropped that the process would have heard."""
    inodes = _inodes(pid)
    return sum(each.drops for each in _told(pid) if each.protocol == protocol and each.inode in inodes)


def _listening(pid: int, protocol: int) -> list[int]:
    inodes = _inodes(pid)
    return [
        inodes[each.inode] for each in _told(pid) if each.inode in inodes and each.protocol == protocol and each.groups
    ]


def _told(pid: int) -> Iterator[_Told]:
    # The process connector's lives where process 1 is.
    for place in (pid, 1):
        for line in Path(f"/proc/{place}/net/netlink").read_text().splitlines()[1:]:
            _, protocol, _, groups, _, _, _, _, dropped, inode = line.split()
            yield _Told(int(protocol), int(groups, 16), int(dropped), int(inode))


def _inodes(pid: int) -> dict[int, int]:
    found = {}
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if target.startswith("socket:["):
                found[int(target[8:-1])] = int(descriptor)
    return found


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
