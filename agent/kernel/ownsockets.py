"""Which netlink ports are this process's own.

A process id would not do: the kernel tells that of the initial pid namespace. libnftables keeps its socket to
itself, so it is found among all open files.
"""

import os
import socket
from collections.abc import Generator
from contextlib import closing
from functools import lru_cache
from typing import Final

_DESCRIPTORS: Final = "/proc/self/fd"


def bind_unbound(protocol: int) -> frozenset[int]:
    """Give this process's netlink sockets of a protocol that have no port id yet one each; return these.

    Otherwise a socket gets its own when something is first sent. No other thread may open one meanwhile.
    """
    ports = set()
    for each in _sockets(protocol):
        if not _port(each):
            each.bind((0, 0))
            ports.add(_port(each))
    return frozenset(ports)


def is_own_port(protocol: int, port: int) -> bool:
    """Tell whether a netlink socket of this process has this port id."""
    # Cached only when true: a stranger's port may become ours, ours never a stranger's.
    try:
        return _own_port(protocol, port)
    except LookupError:
        return False


@lru_cache(maxsize=64)
def _own_port(protocol: int, port: int) -> bool:
    with closing(_sockets(protocol)) as sockets:
        if any(_port(each) == port for each in sockets):
            return True
    raise LookupError(port)


def _port(netlink: socket.socket) -> int:
    return int(netlink.getsockname()[0])


def _sockets(protocol: int) -> Generator[socket.socket, None, None]:
    """Yield the netlink sockets of this process, each to be used until the next."""
    for descriptor in os.listdir(_DESCRIPTORS):
        copy = _copy(descriptor)
        if copy is None:
            continue
        with copy:
            if copy.family == socket.AF_NETLINK and copy.proto == protocol:
                yield copy


def _copy(descriptor: str) -> socket.socket | None:
    try:
        if not os.readlink(f"{_DESCRIPTORS}/{descriptor}").startswith("socket:"):
            return None
        copy = os.dup(int(descriptor))
    except OSError:
        # Closed since it was listed.
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
