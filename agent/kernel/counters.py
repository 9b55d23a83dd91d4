"""Traffic counters of all devices by one RTM_GETSTATS dump.

Source: struct if_stats_msg, IFLA_STATS_LINK_64 in include/uapi/linux/if_link.h.
"""

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

from agent.errors import KernelError
from agent.kernel import decode, messages
from agent.kernel.netlink import Netlink
from agent.kernel.wire import Request
from agent.model import Cookie, Traffic

_RTM_NEWSTATS: Final = 92
_RTM_GETSTATS: Final = 94
_IFLA_STATS_LINK_64: Final = 1
_REQUEST: Final = struct.Struct("=BxxxII")
_HEAD: Final = struct.Struct("=IH")
# nlmsghdr: length and kind; if_stats_msg: ifindex; the attribute's type; the first eight counters.
_ANSWER: Final = "=IH10x 4xI4x 2xH 8Q"
# Half as long as calling the class, of which there are thousands.
_as_traffic: Final = partial(tuple.__new__, Traffic)


def read_traffic() -> dict[int, Traffic]:
    """Return the counters of every device of this namespace, by ifindex. Raises KernelError.

    A dump that was interrupted by changes is as good as another: each device's counters are of
    one moment, and a device that it left out is told the next time.
    """
    request = Request(_RTM_GETSTATS, 0, _REQUEST.pack(0, 0, 1 << (_IFLA_STATS_LINK_64 - 1)), "read traffic counters")
    found: dict[int, Traffic] = {}
    with Netlink() as netlink:
        for data in netlink.datagrams(request):
            found.update(_decode(data))
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a namespace's device is: by nsid and ifindex; ``host_end`` is the ifindex of its other end."""

    nsid: int
    device: int
    host_end: int


def read_inside(places: Mapping[Cookie, Place]) -> dict[Cookie, Traffic]:
    """Return the counters of devices inside namespaces, read from the host; those that are gone are left out."""
    cookies = list(places)
    requests = [messages.get_link_inside(places[cookie].nsid, places[cookie].device) for cookie in cookies]
    with Netlink() as netlink:
        answers = netlink.exchange(requests)
    found = {}
    for cookie, answer in zip(cookies, answers, strict=True):
        link = None if answer.code else decode.link(answer.replies[0])
        # The number of a namespace that is gone may be another's by now.
        if link is not None and link.peer == places[cookie].host_end:
            found[cookie] = link.traffic
    return found


def _decode(data: bytes) -> Iterable[tuple[int, Traffic]]:
    """Decode a datagram of messages that are alike; a shorter NLMSG_DONE may stand behind them, or alone."""
    length, kind = _HEAD.unpack_from(data)
    if kind != _RTM_NEWSTATS:
        return ()
    alike = memoryview(data)[: len(data) // length * length]
    (
        lengths, kinds, indexes, types,
        rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped,
    ) = zip(*_answer(length).iter_unpack(alike), strict=True)  # fmt: skip
    if {*lengths} != {length} or {*kinds} != {kind} or {*types} != {_IFLA_STATS_LINK_64}:
        raise KernelError("read traffic counters", errno.EBADMSG, "devices are not all told alike")
    counters = zip(
        rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped, strict=True
    )
    return zip(indexes, map(_as_traffic, counters), strict=True)


@lru_cache(maxsize=4)
def _answer(length: int) -> struct.Struct:
    """Return the fields of messages so long: newer kernels have more counters behind those we read."""
    return struct.Struct(f"{_ANSWER}{length - struct.calcsize(_ANSWER)}x")
