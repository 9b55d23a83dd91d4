"""Connections that namespaces opened and accepted, as the sets of our ruleset counted them.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_*, NFTA_COUNTER_*.
"""

import errno
import struct
from collections.abc import Collection, Iterator
from typing import Final

from agent.errors import KernelError
from agent.kernel.elements import (
    DATA_VALUE,
    ELEMENT_KEY,
    HEADER_BYTES,
    LIST_ELEMENTS,
    delete_all,
    delete_element,
    list_elements,
)
from agent.kernel.netlink import Netlink, attributes

_ELEMENT_EXPRESSION, _EXPRESSION_DATA = 7, 2
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
        delete_all(netlink, [delete_element("inet", direction + family, address) for direction in _DIRECTIONS])


def _read(netlink: Netlink, set_name: str) -> Iterator[tuple[bytes, int]]:
    try:
        payloads = netlink.dump(list_elements("inet", set_name))
    except KernelError as error:
        if error.code == errno.ENOENT:
            return
        raise
    for payload in payloads:
        elements = attributes(payload, HEADER_BYTES).get(LIST_ELEMENTS)
        for element in _each(elements) if elements is not None else ():
            found = attributes(element)
            address = bytes(attributes(found[ELEMENT_KEY])[DATA_VALUE])
            counter = attributes(attributes(found[_ELEMENT_EXPRESSION])[_EXPRESSION_DATA])
            yield address, int.from_bytes(counter[_COUNTER_PACKETS])


def _each(elements: memoryview) -> Iterator[memoryview]:
    offset = 0
    while offset + 4 <= len(elements):
        (length,) = struct.unpack_from("=H", elements, offset)
        yield elements[offset + 4 : offset + length]
        offset += (length + 3) & ~3
