"""How many connections of the host's table belong to whom, by protocol and state.

200,000 entries are counted in little more time than the kernel takes to tell them: messages
of one length and protocol have their fields at the same places, which are found once, by
walking the first such message.

Source: nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c, nf_conntrack_common.h.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.core.connections import Flows
from agent.kernel import sysctl
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.wire import Request, attributes
from agent.model import Cookie

_GET: Final = 0x0101
_GET_STATS: Final = 0x0104
_NFGENMSG: Final = struct.pack("=BBH", 0, 0, 0)
_AF_INET: Final = 2
_CTA_STATUS, _CTA_PROTOINFO = 3, 4
_TCP: Final = 6
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "icmpv6", 132: "sctp", 136: "udplite"}
_TCP_STATES: Final = (
    "none", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close",
    "syn_sent2",
)  # fmt: skip
_SEEN_REPLY: Final = 2
_ASSURED: Final = 4
_STATISTICS: Final = {
    2: "found", 4: "invalid", 8: "insert", 9: "insert_failed", 10: "drop", 11: "early_drop", 12: "error",
    13: "search_restart", 14: "clash_resolve", 15: "chain_toolong",
}  # fmt: skip

# nlmsghdr: length; nfgenmsg: family; length of the first attribute, the original tuple.
_HEAD_FORMAT: Final = "=I12xB3xH"
_HEAD: Final = struct.Struct(_HEAD_FORMAT)
_ATTRIBUTE: Final = struct.Struct("=HH")
_NLMSG_BYTES: Final = 16
_BODY: Final = 20


@dataclass(frozen=True, slots=True)
class Table:
    """The host's conntrack table: entries, their limit, and conntrack's counters of each processor."""

    entries: int
    limit: int
    statistics: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of a kind of message are.

    ``fields`` unpacks a whole message: the three of _HEAD, source, protocol, the reply's source,
    and then status and TCP state, or, where there is no TCP state, 0 and status. ``place`` is
    where the protocol is.
    """

    fields: struct.Struct
    place: int
    protocol: int


def count_flows(holders: Mapping[bytes, Cookie]) -> Flows:
    """Count the entries that an address of ``holders`` opened or answers. Raises KernelError."""
    raw: defaultdict[tuple[Cookie, int, int, int], int] = defaultdict(int)
    layouts: dict[tuple[int, int, int], _Layout] = {}
    with Netlink(NETLINK_NETFILTER) as netlink:
        for data in netlink.datagrams(Request(_GET, 0, _NFGENMSG, "list connections")):
            _count_datagram(memoryview(data), holders, layouts, raw)
    flows: Flows = Counter()
    for (cookie, protocol, first, second), count in raw.items():
        flows[cookie, _PROTOCOLS.get(protocol, "other"), _state(protocol, first, second)] += count
    return flows


def _count_datagram(
    data: memoryview,
    holders: Mapping[bytes, Cookie],
    layouts: dict[tuple[int, int, int], _Layout],
    raw: defaultdict[tuple[Cookie, int, int, int], int],
) -> None:
    offset, end = 0, len(data)
    holder = holders.get
    while offset + _HEAD.size <= end:
        head = _HEAD.unpack_from(data, offset)
        length, family, original = head
        layout = layouts.get(head)
        if layout is None or data[offset + layout.place] != layout.protocol:
            layout = layouts[head] = _learn(bytes(data[offset : offset + length]))
        wanted = layout.protocol
        alike = (end - offset) // length * length
        # Most neighbours are alike; at the first that is not, the outer loop goes on.
        for each, kin, tuple_, source, protocol, answerer, first, second in layout.fields.iter_unpack(
            data[offset : offset + alike]
        ):
            if each != length or kin != family or tuple_ != original or protocol != wanted:
                break
            offset += length
            cookie = holder(source) or holder(answerer)
            if cookie is not None:
                raw[cookie, protocol, first, second] += 1


def read_table() -> Table:
    """Read what the table holds, may hold, and each processor's counters; all 0 without conntrack."""
    tracked = tracked_connections()
    if tracked is None:
        return Table(0, 0, ())
    with Netlink(NETLINK_NETFILTER) as netlink:
        payloads = netlink.dump(Request(_GET_STATS, 0, _NFGENMSG, "read conntrack's statistics"))
    return Table(*tracked, tuple(_statistics(payload) for payload in payloads))


def tracked_connections() -> tuple[int, int] | None:
    """Return how many connections the host tracks and how many it can; None for a kernel that tracks none."""
    told = [sysctl.read(f"net/netfilter/nf_conntrack_{what}") for what in ("count", "max")]
    count, limit = (None if each is None else int(each) for each in told)
    return None if count is None or limit is None else (count, limit)


def _statistics(payload: memoryview) -> dict[str, int]:
    return {
        _STATISTICS[kind]: int.from_bytes(value)
        for kind, value in attributes(payload, len(_NFGENMSG)).items()
        if kind in _STATISTICS
    }


def _learn(message: bytes) -> _Layout:
    """Find the places of a message's fields by walking it."""
    address = 4 if message[_NLMSG_BYTES] == _AF_INET else 16
    source = _BODY + 12
    protocol = source + 2 * address + 4 + 8
    places: dict[int, int] = {}
    offset = _BODY
    while offset + 4 <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < 4:
            break
        places[kind & 0x3FFF] = offset
        offset += (length + 3) & ~3
    reply = _BODY + ((_ATTRIBUTE.unpack_from(message, _BODY)[0] + 3) & ~3)
    status = places[_CTA_STATUS] + 4 + 3
    # Where there is no TCP state, the byte before the status, always 0, stands for it.
    has_state = message[protocol] == _TCP and _CTA_PROTOINFO in places
    gaps = (protocol - source - address, reply + 12 - protocol - 1)
    fields = f"{_HEAD_FORMAT}{source - _HEAD.size}x{address}s{gaps[0]}xB{gaps[1]}x{address}s"
    before = status - reply - 12 - address
    if has_state:
        fields += f"{before}xB{places[_CTA_PROTOINFO] + 12 - status - 1}xB"
    else:
        fields += f"{before - 1}xBB"
    fields += f"{len(message) - struct.calcsize(fields)}x"
    return _Layout(struct.Struct(fields), protocol, message[protocol])


def _state(protocol: int, first: int, second: int) -> str:
    if protocol == _TCP:
        return _TCP_STATES[second] if second < len(_TCP_STATES) else "other"
    if not second & _SEEN_REPLY:
        return "unreplied"
    return "assured" if second & _ASSURED else "replied"
