"""A table of tracked connections that is full, of one private host: written straight to the kernel."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.demo.isolation import refuse_initial_namespace
from agent.kernel.wire import attribute, nested

_NETFILTER = 12
_NEW = 0x0100
_DELETE = 0x0102
_REQUEST, _CREATE = 0x1, 0x400
# Answered, assured, confirmed: the kernel drops others to make room (early_drop in nf_conntrack_core.c).
_STATUS = 1 << 1 | 1 << 2 | 1 << 3
_UDP = 17
_AT_ONCE = 400
# Networks for documentation (RFC 5737): nobody's here.
_SOURCE, _DESTINATION = socket.inet_aton("203.0.113.1"), socket.inet_aton("203.0.113.2")


def tracked() -> tuple[int, int]:
    """How many connections there are, and how many there can be; the limit is the machine's and stays as it is."""
    count, limit = (int(Path(f"/proc/sys/net/netfilter/nf_conntrack_{what}").read_text()) for what in ("count", "max"))
    return count, limit


@contextlib.contextmanager
def full() -> Iterator[int]:
    """Track as many connections as there can be for the length of the block; how many those are."""
    refuse_initial_namespace()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
        _, limit = tracked()
        numbers = iter(range(2 * limit))
        while tracked()[0] < limit:
            netlink.send(b"".join(_entry(next(numbers)) for _ in range(_AT_ONCE)))
        try:
            yield limit
        finally:
            # All of IPv4 at once: a deletion without a tuple.
            netlink.send(_message(_DELETE, 0, b""))


def _entry(number: int) -> bytes:
    """A UDP conversation between one of 203.0.113.1's ports and one of 203.0.113.2's."""
    ports = 1 + number % 60000, 1 + number // 60000
    tuples = _tuple(1, _SOURCE, _DESTINATION, *ports) + _tuple(2, _DESTINATION, _SOURCE, *reversed(ports))
    status = attribute(3, struct.pack(">I", _STATUS))
    timeout = attribute(7, struct.pack(">I", 600))
    return _message(_NEW, _CREATE, tuples + status + timeout)


def _tuple(kind: int, source: bytes, destination: bytes, source_port: int, destination_port: int) -> bytes:
    addresses = nested(1, attribute(1, source) + attribute(2, destination))
    ports = attribute(1, bytes([_UDP])) + b"".join(
        attribute(place, struct.pack(">H", port)) for place, port in ((2, source_port), (3, destination_port))
    )
    return nested(kind, addresses + nested(2, ports))


def _message(kind: int, flags: int, content: bytes) -> bytes:
    body = struct.pack("=BBH", socket.AF_INET, 0, 0) + content
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 0, 0) + body
