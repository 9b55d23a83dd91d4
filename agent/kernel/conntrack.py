"""Forgetting the connections of addresses that changed hands.

Source: nfnetlink_conntrack.h (ctnetlink), net/netfilter/nf_conntrack_netlink.c.
"""

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.core.plan import IPV6_BYTES
from agent.errors import KernelError
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.wire import NLMSG_DONE, Request, attribute, attributes, messages, nested, number

_GET: Final = 0x0101
_DELETE: Final = 0x0102
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_ID, _CTA_ZONE = 1, 2, 3, 12, 18
_CTA_FILTER: Final = 25
_CTA_TUPLE_IP = 1
_CTA_IP_V4_SRC: Final = 1
_IPV4_BYTES: Final = 4
# CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS, by the tuple; CTA_FILTER_F_CTA_IP_SRC (nf_internals.h).
_FILTER_FLAGS: Final = {_CTA_TUPLE_ORIG: 1, _CTA_TUPLE_REPLY: 2}
_FILTER_SOURCE: Final = 1 << 0
_SEEN_REPLY: Final = 1 << 1
# A dump takes a lock for each bucket of the table, a flush for those alone that hold something: some 25 times faster.
_FLUSHED_AT_ONCE: Final = 12
_NFGENMSG = struct.Struct("=BBH")
_LENGTH: Final = struct.Struct("=H")
_GONE_IS_FINE: Final = {0, errno.ENOENT}
_UNKNOWN_REQUEST: Final = {errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP}
# The kernel tells the original tuple first, then the reply's; in each the addresses first, and the source before the
# destination (ctnetlink_dump_tuples).
_ORIGINAL: Final = 4
_ADDRESSES: Final = 12
_ATTRIBUTE_BYTES: Final = 4


@dataclass(slots=True)
class _Kernel:
    """What has been found out of the kernel: whether it flushes by addresses, as since Linux 6.11."""

    filters: bool = True


_kernel: Final = _Kernel()


class _Entry:
    """One connection as the kernel tells it; of thousands, few are looked at closer than their addresses."""

    def __init__(self, message: memoryview) -> None:
        self._message = message
        width = _IPV4_BYTES if message[0] == socket.AF_INET else IPV6_BYTES
        source = _ORIGINAL + _ADDRESSES
        length = _LENGTH.unpack_from(message, _ORIGINAL)[0]
        answerer = _ORIGINAL + ((length + 3) & ~3) + _ADDRESSES
        answered = answerer + width + _ATTRIBUTE_BYTES
        self.source = bytes(message[source : source + width])
        self.answerer = bytes(message[answerer : answerer + width])
        """Who answers: the reply's source."""
        self.answered = bytes(message[answered : answered + width])
        """To whom he answers."""

    def status(self) -> int:
        return int.from_bytes(attributes(self._message, _NFGENMSG.size).get(_CTA_STATUS, b""))


_Concerns = Callable[[_Entry], bool]


class Party(NamedTuple):
    """An address, and whether there may be entries that it opened, and that it answers."""

    address: bytes
    opened: bool = True
    answers: bool = True


def flush(netlink: Netlink, parties: Sequence[Party]) -> None:
    """Delete every entry that one of these addresses opened or answers; quick for a few of IPv4. Raises KernelError.

    A kernel without conntrack has none.
    """
    # Of IPv6, kernels so far flush whatever has another address: ctnetlink_filter_match_tuple has it the wrong way.
    few = [party for party in parties if len(party.address) == _IPV4_BYTES]
    if len(few) > _FLUSHED_AT_ONCE or not all(_flush(netlink, party) for party in few):
        few = []
    if rest := [party.address for party in parties if party not in few and (party.opened or party.answers)]:
        forget(rest)


def _flush(netlink: Netlink, party: Party) -> bool:
    """Delete the entries of an IPv4 address; return whether the kernel can."""
    address, opened, answers = party
    directions = [*([_CTA_TUPLE_ORIG] if opened else ()), *([_CTA_TUPLE_REPLY] if answers else ())]
    for direction in directions if _kernel.filters else ():
        source = nested(direction, nested(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_SRC, address)))
        which = nested(_CTA_FILTER, number(_FILTER_FLAGS[direction], _FILTER_SOURCE))
        body = _NFGENMSG.pack(socket.AF_INET, 0, 0) + source + which
        answer = netlink.ask(Request(_DELETE, 0, body, "forget the connections of an address"))
        if answer.code in _UNKNOWN_REQUEST:
            # An older one takes the tuple for that of one entry, and misses the ports in it.
            _kernel.filters = False
        elif answer.code not in _GONE_IS_FINE:
            raise KernelError("forget the connections of an address", answer.code, answer.detail)
    return _kernel.filters


def forget(addresses: Collection[bytes]) -> int:
    """Delete every entry that one of these addresses opened or answers; return how many.

    One dump, whatever the number of addresses. A kernel without conntrack has none. Raises KernelError.
    """
    return forget_if(frozenset(addresses).__contains__, addresses)


def forget_if(is_doomed: Callable[[bytes], bool], parts: Collection[bytes]) -> int:
    """Delete every entry that a doomed address opened or answers; return how many. Raises KernelError.

    ``parts``: every doomed address holds one of these, so that few entries need be looked at.
    """

    return _forget(lambda entry: is_doomed(entry.source) or is_doomed(entry.answerer), parts)


def forget_untranslated(is_translated: Callable[[bytes], bool], parts: Collection[bytes]) -> int:
    """Delete entries that were made while no rule translated their source, and that nothing has answered yet.

    Whoever goes on sending from the same port would never be translated: an entry's translation
    is chosen once (net/netfilter/nf_nat_core.c). ``is_translated`` tells whose packets should
    be; ``parts`` as in `forget_if`. Return how many. Raises KernelError.
    """

    def concerns(entry: _Entry) -> bool:
        return entry.answered == entry.source and is_translated(entry.source) and not entry.status() & _SEEN_REPLY

    return _forget(concerns, parts)


def _forget(concerns: _Concerns, parts: Collection[bytes]) -> int:
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            doomed = list(_deletions(netlink, concerns, parts))
        except KernelError as error:
            if error.code in _UNKNOWN_REQUEST:
                return 0
            raise
        for request in doomed:
            answer = netlink.ask(request)
            if answer.code not in _GONE_IS_FINE:
                raise KernelError(request.what, answer.code, answer.detail)
    return len(doomed)


def _deletions(netlink: Netlink, concerns: _Concerns, parts: Collection[bytes]) -> Iterator[Request]:
    """Yield what deletes entries; of a table of any size, a datagram is held at a time."""
    for data in netlink.datagrams(Request(_GET, 0, _NFGENMSG.pack(0, 0, 0), "list connections")):
        if not any(part in data for part in parts):
            continue
        for message in messages(data):
            deletion = None if message.kind == NLMSG_DONE else _deletion(message.payload, concerns)
            if deletion is not None:
                yield deletion


def _deletion(message: memoryview, concerns: _Concerns) -> Request | None:
    entry = _Entry(message)
    if not concerns(entry):
        return None
    found = attributes(message, _NFGENMSG.size)
    body = bytes(message[: _NFGENMSG.size]) + nested(_CTA_TUPLE_ORIG, bytes(found[_CTA_TUPLE_ORIG]))
    for kind in (_CTA_ZONE, _CTA_ID):
        if kind in found:
            body += attribute(kind, bytes(found[kind]))
    return Request(_DELETE, 0, body, "forget a connection")
