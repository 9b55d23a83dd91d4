"""Traffic counters of all devices by one RTM_GETSTATS dump.

Source: struct if_stats_msg, IFLA_STATS_LINK_64 in include/uapi/linux/if_link.h.
"""

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import KernelError
from agent.kernel import decode, messages
from agent.kernel.netlink import Netlink
from agent.kernel.rtnetlink import STATS64
from agent.kernel.wire import Request
from agent.model import Cookie, Traffic

_RTM_NEWSTATS: Final = 92
_RTM_GETSTATS: Final = 94
_IFLA_STATS_LINK_64: Final = 1
_REQUEST: Final = struct.Struct("=BxxxII")
_HEAD: Final = struct.Struct("=IH")
# Behind the header (16 bytes) struct if_stats_msg (12), the attribute's header (4), and the first eight counters.
_ANSWER: Final = "=20xI8x64s"
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_PLACE: Final = 28
# Length and kind of the message, length and type of the attribute.
_FRAMING: Final = (*range(6), *range(_ATTRIBUTE_PLACE, _ATTRIBUTE_PLACE + 4))


class TrafficReader:
    """Reads the counters of every device of this namespace, again and again; to be used by one thread at a time."""

    def __init__(self) -> None:
        self._raw: dict[int, bytes] = {}
        self._traffic: dict[int, Traffic] = {}

    def read(self) -> dict[int, Traffic]:
        """Return the counters by ifindex, for an idle device the very object of the last time. Raises KernelError.

        A dump that was interrupted by changes is as good as another: each device's counters are of
        one moment, and a device that it left out is told the next time.
        """
        body = _REQUEST.pack(0, 0, 1 << (_IFLA_STATS_LINK_64 - 1))
        raw: dict[int, bytes] = {}
        with Netlink() as netlink:
            for data in netlink.datagrams(Request(_RTM_GETSTATS, 0, body, "read traffic counters")):
                raw.update(_split(data))
        self._traffic = {
            index: self._traffic[index] if self._raw.get(index) == counters else _decode(counters)
            for index, counters in raw.items()
        }
        self._raw = raw
        return self._traffic


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


def _split(data: bytes) -> Iterable[tuple[int, bytes]]:
    """Yield ifindex and counters of a datagram of messages that are alike.

    NLMSG_DONE, which is shorter, may stand behind them, or alone.
    """
    length, kind = _HEAD.unpack_from(data)
    if kind != _RTM_NEWSTATS:
        return ()
    count = len(data) // length
    alike = data[: count * length]
    _, told = _ATTRIBUTE.unpack_from(data, _ATTRIBUTE_PLACE)
    if told != _IFLA_STATS_LINK_64 or any(
        alike[place::length] != data[place : place + 1] * count for place in _FRAMING
    ):
        raise KernelError("read traffic counters", errno.EBADMSG, "devices are not all told alike")
    # Newer kernels have more counters behind those we read.
    return struct.iter_unpack(f"{_ANSWER}{length - struct.calcsize(_ANSWER)}x", alike)


def _decode(counters: bytes) -> Traffic:
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = STATS64.unpack(counters)
    return Traffic(rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped)
