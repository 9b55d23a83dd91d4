"""Connections that namespaces opened and accepted, as the sets of our ruleset counted them.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_*, NFTA_COUNTER_*.
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from agent.errors import KernelError
from agent.kernel.elements import (
    DATA_VALUE,
    ELEMENT_KEY,
    HEADER_BYTES,
    LIST_ELEMENTS,
    add_element,
    delete_element,
    get_element,
    list_elements,
)
from agent.kernel.netlink import Netlink
from agent.kernel.wire import NLA_TYPE_MASK, Request, attributes

_ELEMENT_EXPRESSION, _EXPRESSION_DATA = 7, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
# Each attribute stands within the one before.
_KEY: Final = (ELEMENT_KEY, DATA_VALUE)
_BYTES: Final = (_ELEMENT_EXPRESSION, _EXPRESSION_DATA, _COUNTER_BYTES)
_PACKETS: Final = (_ELEMENT_EXPRESSION, _EXPRESSION_DATA, _COUNTER_PACKETS)
_ATTRIBUTE: Final = struct.Struct("=HH")
_IPV4_BYTES: Final = 4
_DIRECTIONS: Final = ("opened", "accepted")
_FAMILIES: Final = ("4", "6")


class Openings(NamedTuple):
    """How many connections each address opened, and accepted; one that did not is left out."""

    opened: Mapping[bytes, int]
    accepted: Mapping[bytes, int]


class OpeningsReader:
    """Reads all counts again and again; to be used by one thread at a time.

    The kernel tells a set in pieces of some hundred elements: those that have not changed are not decoded again.
    """

    def __init__(self) -> None:
        self._pieces: dict[str, dict[bytes, dict[bytes, int]]] = {direction: {} for direction in _DIRECTIONS}
        self._counts: dict[str, Mapping[bytes, int]] = {direction: {} for direction in _DIRECTIONS}

    def read(self, netlink: Netlink) -> Openings:
        """Return all counts, none without our tables. Raises KernelError.

        A direction in which nothing was counted since the last time is the very object of that time.
        """
        return Openings(*(self._read(netlink, direction) for direction in _DIRECTIONS))

    def _read(self, netlink: Netlink, direction: str) -> Mapping[bytes, int]:
        known = self._pieces[direction]
        pieces = [piece for family in _FAMILIES for piece in _dump(netlink, direction + family)]
        if pieces != [*known]:
            known = {piece: known.get(piece) or dict(decode(piece)) for piece in pieces}
            counts: dict[bytes, int] = {}
            for part in known.values():
                counts.update(part)
            self._pieces[direction], self._counts[direction] = known, counts
        return self._counts[direction]


def read_openings(netlink: Netlink, addresses: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Return how many connections each of some addresses opened and accepted; unless nothing is known of it.

    Raises KernelError, but not without our tables.
    """
    keys = [(address, place) for address in addresses for place in range(len(_DIRECTIONS))]
    requests = [get_element("inet", _set_of(address, _DIRECTIONS[place]), address) for address, place in keys]
    counts: dict[bytes, list[int]] = {}
    for (address, place), request, answer in zip(keys, requests, netlink.exchange(requests), strict=True):
        if answer.code not in {0, errno.ENOENT}:
            raise KernelError(request.what, answer.code, answer.detail)
        for elements in filter(None, map(_elements, answer.replies)):
            counts.setdefault(address, [0, 0])[place] = next(packets for _, packets in decode(elements))
    return {address: (opened, accepted) for address, (opened, accepted) in counts.items()}


def count_from_nothing(address: bytes) -> Request:
    """Return what has the connections that an address opens counted from before its first packet.

    That it has opened and accepted none is known only then: rules that are loaded anew forget who has.
    """
    return add_element("inet", _set_of(address, "opened"), address)


def openings_elements(addresses: Sequence[bytes]) -> list[Request]:
    """Return what takes addresses out of the sets, so that their next holders start at nothing; see delete_all."""
    return [
        delete_element("inet", _set_of(address, direction), address)
        for address in addresses
        for direction in _DIRECTIONS
    ]


def decode(elements: bytes) -> Iterable[tuple[bytes, int]]:
    """Yield the packets that each element of NFTA_SET_ELEM_LIST_ELEMENTS counted, by key.

    The elements of a set are alike but for key and counter. Where that is so, what is found in the
    first is at the same places in all others, and reading them takes a tenth of the time.
    """
    length = len(next(_each(elements)))
    key, packets, bytes_ = (_find(elements[:length], path) for path in (_KEY, _PACKETS, _BYTES))
    differing = {*range(*key), *range(*packets), *range(*bytes_)}
    columns = (elements[place::length] for place in range(length) if place not in differing)
    if len(elements) % length or not all(column == column[:1] * len(column) for column in columns):
        return _decode_each(elements)
    layout = f">{key[0]}x{key[1] - key[0]}s{packets[0] - key[1]}xQ{length - packets[1]}x"
    return struct.iter_unpack(layout, elements)


def _dump(netlink: Netlink, set_name: str) -> Iterator[bytes]:
    """Yield the elements of a set, piece by piece."""
    try:
        payloads = netlink.dump(list_elements("inet", set_name))
    except KernelError as error:
        if error.code == errno.ENOENT:
            return
        raise
    yield from filter(None, map(_elements, payloads))


def _elements(payload: memoryview) -> bytes:
    return bytes(attributes(payload, HEADER_BYTES).get(LIST_ELEMENTS, b""))


def _set_of(address: bytes, direction: str) -> str:
    return direction + ("4" if len(address) == _IPV4_BYTES else "6")


def _decode_each(elements: bytes) -> Iterator[tuple[bytes, int]]:
    for element in _each(elements):
        key, packets = _find(element, _KEY), _find(element, _PACKETS)
        yield element[slice(*key)], int.from_bytes(element[slice(*packets)])


def _each(elements: bytes) -> Iterator[bytes]:
    """Yield elements with their headers and padding."""
    offset = 0
    while offset < len(elements):
        length, _ = _ATTRIBUTE.unpack_from(elements, offset)
        padded = (length + 3) & ~3
        yield elements[offset : offset + padded]
        offset += padded


def _find(element: bytes, path: Iterable[int]) -> tuple[int, int]:
    """Return where the value of a nested attribute begins and ends."""
    begin, end = _ATTRIBUTE.size, _ATTRIBUTE.unpack_from(element)[0]
    for wanted in path:
        length, kind = _ATTRIBUTE.unpack_from(element, begin)
        while kind & NLA_TYPE_MASK != wanted:
            begin += (length + 3) & ~3
            length, kind = _ATTRIBUTE.unpack_from(element, begin)
        begin, end = begin + _ATTRIBUTE.size, begin + length
    return begin, end
