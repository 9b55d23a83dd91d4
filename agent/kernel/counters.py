"""Traffic counters of all devices by one RTM_GETSTATS dump.

Source: struct if_stats_msg, IFLA_STATS_LINK_64 in include/uapi/linux/if_link.h.
"""

import struct
from typing import Final

from agent.kernel.netlink import Netlink, Request
from agent.model import Traffic

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


def _decode(payload: memoryview) -> tuple[int, Traffic]:
    index, rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = (
        _ANSWER.unpack_from(payload)
    )
    return index, Traffic(rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped)
