"""What a bridge believes of frames that are meant for itself.

Such a frame (IEEE 802.1D, 01-80-C2-00-00-0X: spanning tree, LLDP) passes by no rule of nftables, and yet the bridge
learns from it where a MAC is: a namespace that sends one with another's MAC is sent what is meant for the other.

Source: net/bridge/br_input.c (br_handle_frame), BR_BOOLOPT_NO_LL_LEARN in linux/if_bridge.h, since Linux 5.0.
"""

import struct
from typing import Final

from agent.errors import KernelError
from agent.kernel import messages
from agent.kernel.netlink import Netlink
from agent.kernel.rtnetlink import IFINFO, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, RTM_NEWLINK
from agent.kernel.wire import Request, attribute, attributes, nested, text

_IFLA_BR_MULTI_BOOLOPT: Final = 46
_NO_LL_LEARN: Final = 1
# struct br_boolopt_multi: the values, and which of them are meant.
_OPTIONS: Final = struct.Struct("=II")


def is_gullible(netlink: Netlink, bridge: str) -> bool:
    """Tell whether a bridge learns from frames that are meant for itself; one that is not there does not."""
    answer = netlink.ask(messages.get_link(bridge))
    if answer.code:
        return False
    found = attributes(answer.replies[0], IFINFO.size)
    info = attributes(found[IFLA_LINKINFO]) if IFLA_LINKINFO in found else {}
    options = attributes(info[IFLA_INFO_DATA]).get(_IFLA_BR_MULTI_BOOLOPT) if IFLA_INFO_DATA in info else None
    return options is not None and not _OPTIONS.unpack_from(options)[0] & _NO_LL_LEARN


def disbelieve(netlink: Netlink, bridge: str) -> None:
    """Keep a bridge from learning from frames that are meant for itself. Raises KernelError."""
    options = attribute(_IFLA_BR_MULTI_BOOLOPT, _OPTIONS.pack(_NO_LL_LEARN, _NO_LL_LEARN))
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), nested(IFLA_INFO_DATA, options))
    body = IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, bridge) + info
    request = Request(RTM_NEWLINK, 0, body, f"keep {bridge} from learning by control frames")
    answer = netlink.ask(request)
    if answer.code:
        raise KernelError(request.what, answer.code, answer.detail)
