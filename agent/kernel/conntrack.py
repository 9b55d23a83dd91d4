"""Forgetting the connections of addresses that changed hands.

Source: nfnetlink_conntrack.h (ctnetlink), net/netfilter/nf_conntrack_netlink.c.
"""

import errno
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Final

from agent.errors import KernelError
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.wire import NLMSG_DONE, Request, attribute, attributes, messages

_GET: Final = 0x0101
_DELETE: Final = 0x0102
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_ZONE = 1, 2, 12, 18
_CTA_TUPLE_IP = 1
_CTA_IP_V4_SRC, _CTA_IP_V6_SRC = 1, 3
_NFGENMSG = struct.Struct("=BBH")
_NLA_F_NESTED = 0x8000
_GONE_IS_FINE: Final = {0, errno.ENOENT}


def forget(addresses: Collection[bytes]) -> int:
    """Delete every entry that one of these addresses opened or answers; return how many.

    One dump, whatever the number of addresses. A kernel without conntrack has none. Raises KernelError.
    """
    return forget_if(frozenset(addresses).__contains__, addresses)


def forget_if(is_doomed: Callable[[bytes], bool], parts: Collection[bytes]) -> int:
    """Delete every entry that a doomed address opened or answers; return how many. Raises KernelError.

    ``parts``: every doomed address holds one of these, so that few entries need be looked at.
    """
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            doomed = list(_deletions(netlink, is_doomed, parts))
        except KernelError as error:
            if error.code in {errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP}:
                return 0
            raise
        for request in doomed:
            answer = netlink.ask(request)
            if answer.code not in _GONE_IS_FINE:
                raise KernelError(request.what, answer.code, answer.detail)
    return len(doomed)


def _deletions(netlink: Netlink, is_doomed: Callable[[bytes], bool], parts: Collection[bytes]) -> Iterator[Request]:
    """Yield what deletes entries; of a table of any size, a datagram is held at a time."""
    for data in netlink.datagrams(Request(_GET, 0, _NFGENMSG.pack(0, 0, 0), "list connections")):
        if not any(part in data for part in parts):
            continue
        for message in messages(data):
            deletion = None if message.kind == NLMSG_DONE else _deletion(message.payload, is_doomed)
            if deletion is not None:
                yield deletion


def _deletion(entry: memoryview, is_doomed: Callable[[bytes], bool]) -> Request | None:
    found = attributes(entry, _NFGENMSG.size)
    original = found[_CTA_TUPLE_ORIG]
    if not is_doomed(_source(original)) and not is_doomed(_source(found[_CTA_TUPLE_REPLY])):
        return None
    body = bytes(entry[: _NFGENMSG.size]) + attribute(_CTA_TUPLE_ORIG | _NLA_F_NESTED, bytes(original))
    for kind in (_CTA_ZONE, _CTA_ID):
        if kind in found:
            body += attribute(kind, bytes(found[kind]))
    return Request(_DELETE, 0, body, "forget a connection")


def _source(tuple_: memoryview) -> bytes:
    addresses = attributes(attributes(tuple_)[_CTA_TUPLE_IP])
    return bytes(addresses.get(_CTA_IP_V4_SRC, addresses.get(_CTA_IP_V6_SRC, b"")))
