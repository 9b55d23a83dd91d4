"""What elements of our sets have counted: how nf_tables tells it.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_*, NFTA_COUNTER_*.
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from agent.errors import KernelError
from agent.kernel.elements import DATA_VALUE, ELEMENT_KEY, HEADER_BYTES, LIST_ELEMENTS
from agent.kernel.netlink import Netlink
from agent.kernel.wire import ATTRIBUTE, NLA_TYPE_MASK, Request, attributes

_ELEMENT_EXPRESSION, _EXPRESSION_DATA = 7, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
# Each attribute stands within the one before.
_KEY: Final = (ELEMENT_KEY, DATA_VALUE)
_BYTES: Final = (_ELEMENT_EXPRESSION, _EXPRESSION_DATA, _COUNTER_BYTES)
_PACKETS: Final = (_ELEMENT_EXPRESSION, _EXPRESSION_DATA, _COUNTER_PACKETS)
_ETHERNET_HEADER_BYTES: Final = 14


class Count(NamedTuple):
    """What one element counted; ``octets`` without the headers of the link layer."""

    packets: int
    octets: int

    def __add__(self, other: object) -> "Count":
        """Sum up what two elements counted."""
        if not isinstance(other, Count):
            return NotImplemented
        return Count(self.packets + other.packets, self.octets + other.octets)

    @property
    def framed(self) -> int:
        """Octets with the headers of Ethernet, as a device counts them."""
        return self.octets + self.packets * _ETHERNET_HEADER_BYTES


def read(netlink: Netlink, requests: Sequence[Request]) -> list[Count | None]:
    """Ask for one element each, see elements.get_element; None stands for one that is not there, or counts nothing.

    Raises KernelError, but not without our tables.
    """
    found: list[Count | None] = []
    for request, answer in zip(requests, netlink.exchange(requests), strict=True):
        if answer.code not in {0, errno.ENOENT}:
            raise KernelError(request.what, answer.code, answer.detail)
        told = next(filter(None, map(elements, answer.replies)), None)
        if told is None and not answer.code:
            # What is not told is not nothing.
            raise KernelError(request.what, errno.ENODATA, "no answer")
        found.append(None if told is None else _count(told))
    return found


def elements(payload: memoryview) -> bytes:
    """Return what a message tells as NFTA_SET_ELEM_LIST_ELEMENTS; empty where it tells none."""
    return bytes(attributes(payload, HEADER_BYTES).get(LIST_ELEMENTS, b""))


def decode(told: bytes) -> Iterable[tuple[bytes, int]]:
    """Yield the packets that each element of NFTA_SET_ELEM_LIST_ELEMENTS counted, by key.

    The elements of a set are alike but for key and counter. Where that is so, what is found in the
    first is at the same places in all others, and reading them takes a tenth of the time.
    """
    length = len(next(_each(told)))
    key, packets, bytes_ = (_find(told[:length], path) for path in (_KEY, _PACKETS, _BYTES))
    differing = {*range(*key), *range(*packets), *range(*bytes_)}
    columns = (told[place::length] for place in range(length) if place not in differing)
    if len(told) % length or not all(column == column[:1] * len(column) for column in columns):
        return _decode_each(told)
    layout = f">{key[0]}x{key[1] - key[0]}s{packets[0] - key[1]}xQ{length - packets[1]}x"
    return struct.iter_unpack(layout, told)


def _decode_each(told: bytes) -> Iterator[tuple[bytes, int]]:
    for element in _each(told):
        key, packets = _find(element, _KEY), _find(element, _PACKETS)
        yield element[slice(*key)], int.from_bytes(element[slice(*packets)])


def _each(told: bytes) -> Iterator[bytes]:
    """Yield elements with their headers and padding."""
    offset = 0
    while offset < len(told):
        length, _ = ATTRIBUTE.unpack_from(told, offset)
        padded = (length + 3) & ~3
        yield told[offset : offset + padded]
        offset += padded


def _find(element: bytes, path: Iterable[int]) -> tuple[int, int]:
    """Return where the value of a nested attribute begins and ends."""
    begin, end = ATTRIBUTE.size, ATTRIBUTE.unpack_from(element)[0]
    for wanted in path:
        length, kind = ATTRIBUTE.unpack_from(element, begin)
        while kind & NLA_TYPE_MASK != wanted:
            begin += (length + 3) & ~3
            length, kind = ATTRIBUTE.unpack_from(element, begin)
        begin, end = begin + ATTRIBUTE.size, begin + length
    return begin, end


def _count(element: bytes) -> Count | None:
    try:
        return Count(_number(element, _PACKETS), _number(element, _BYTES))
    except struct.error:
        # Whoever made this set gave its elements no counters.
        return None


def _number(element: bytes, path: Iterable[int]) -> int:
    begin, end = _find(element, path)
    return int.from_bytes(element[begin:end])
