"""Connections that namespaces opened and accepted, as the sets of our ruleset counted them.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_*, NFTA_COUNTER_*.
"""

import errno
import struct
from collections.abc import Collection, Iterator
from typing import Final

from agent.errors import KernelError
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink, Request, attribute, attributes, nested, text
from agent.model import TABLE

_GET: Final = (10 << 8) | 13
_DELETE: Final = (10 << 8) | 14
_HEADER: Final = struct.pack("=BBH", 1, 0, 0)
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_ELEMENT_KEY, _ELEMENT_EXPRESSION, _DATA_VALUE, _EXPRESSION_DATA = 1, 7, 1, 2
_COUNTER_PACKETS: Final = 2
_IPV4_BYTES: Final = 4
_DIRECTIONS: Final = ("opened", "accepted")


def read_openings(netlink: Netlink) -> dict[bytes, tuple[int, int]]:
    """Return how many connections each address opened and accepted; nothing without our tables."""
    found: dict[bytes, list[int]] = {}
    for place, direction in enumerate(_DIRECTIONS):
        for family in ("4", "6"):
            for address, count in _read(netlink, direction + family):
                found.setdefault(address, [0, 0])[place] = count
    return {address: (opened, accepted) for address, (opened, accepted) in found.items()}


def forget_openings(netlink: Netlink, addresses: Collection[bytes]) -> None:
    """Take addresses out of the sets, so that their next holders start at nothing. Raises KernelError."""
    for address in addresses:
        family = "4" if len(address) == _IPV4_BYTES else "6"
        for direction in _DIRECTIONS:
            body = _list(direction + family) + nested(
                _LIST_ELEMENTS, nested(_LIST_ELEMENT, nested(_ELEMENT_KEY, attribute(_DATA_VALUE, address)))
            )
            try:
                netlink.transact([Request(_DELETE, 0, body, f"take an address out of {direction}{family}")])
            except KernelError as error:
                if error.code != errno.ENOENT:
                    raise


def open_netfilter() -> Netlink:
    """Open a socket for the functions of this file."""
    return Netlink(NETLINK_NETFILTER)


def _read(netlink: Netlink, set_name: str) -> Iterator[tuple[bytes, int]]:
    try:
        payloads = netlink.dump(Request(_GET, 0, _list(set_name), f"read the set {set_name}"))
    except KernelError as error:
        if error.code == errno.ENOENT:
            return
        raise
    for payload in payloads:
        elements = attributes(payload, len(_HEADER)).get(_LIST_ELEMENTS)
        for element in _each(elements) if elements is not None else ():
            found = attributes(element)
            address = bytes(attributes(found[_ELEMENT_KEY])[_DATA_VALUE])
            counter = attributes(attributes(found[_ELEMENT_EXPRESSION])[_EXPRESSION_DATA])
            yield address, int.from_bytes(counter[_COUNTER_PACKETS])


def _each(elements: memoryview) -> Iterator[memoryview]:
    offset = 0
    while offset + 4 <= len(elements):
        (length,) = struct.unpack_from("=H", elements, offset)
        yield elements[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _list(set_name: str) -> bytes:
    return _HEADER + text(_LIST_TABLE, TABLE) + text(_LIST_SET, set_name)
