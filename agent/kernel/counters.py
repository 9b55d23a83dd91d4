"""Traffic counters of all devices by one RTM_GETSTATS dump.

Source: struct if_stats_msg, IFLA_STATS_LINK_64 in include/uapi/linux/if_link.h.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.kernel import decode, messages
from agent.kernel.netlink import Netlink, Request
from agent.model import Cookie, Traffic

_RTM_GETSTATS: Final = 94
_IFLA_STATS_LINK_64: Final = 1
_REQUEST: Final = struct.Struct("=BxxxII")
# if_stats_msg (12 bytes), attribute header (4), the first eight counters.
_ANSWER: Final = struct.Struct("=4xI4x4x8Q")


def read_traffic() -> dict[int, Traffic]:
    """Return the counters of every device of this namespace, by ifindex. Raises KernelError."""
    request = Request(_RTM_GETSTATS, 0, _REQUEST.pack(0, 0, 1 << (_IFLA_STATS_LINK_64 - 1)), "read traffic counters")
    with Netlink() as netlink:
        return dict(_decode(payload) for payload in netlink.dump(request))


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


def _decode(payload: memoryview) -> tuple[int, Traffic]:
    index, rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = (
        _ANSWER.unpack_from(payload)
    )
    return index, Traffic(rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped)
