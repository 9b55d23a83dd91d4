"""Reading some attributes of messages that have many, most of them laid out alike: a device has forty.

Source: netlink(7).
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from agent.kernel.wire import ATTRIBUTE, NLA_TYPE_MASK

_MOST: Final = 256


class _Layout(NamedTuple):
    """Headers of all attributes, how to read them in one go, and where those stand that are wanted."""

    read: Callable[[memoryview], tuple[int, ...]]
    headers: tuple[int, ...]
    places: tuple[tuple[int, slice], ...]


class Reader:
    """Does what ``wire.attributes`` does, for attributes of the ``wanted`` types, in a quarter of its time.

    Where a message has the very headers that another of its length had, its attributes stand at the same places.
    """

    def __init__(self, wanted: Iterable[int]) -> None:
        self._wanted = frozenset(wanted)
        self._layouts: dict[tuple[int, int], _Layout] = {}

    def read(self, payload: memoryview, offset: int = 0) -> dict[int, memoryview]:
        """Decode attributes from ``offset`` on; of a repeated type the last one stays. Does not raise."""
        key = len(payload), offset
        layout = self._layouts.get(key)
        if layout is None or layout.read(payload) != layout.headers:
            if len(self._layouts) >= _MOST:
                self._layouts.clear()
            layout = self._layouts[key] = self._find(payload, offset)
        return {kind: payload[place] for kind, place in layout.places}

    def _find(self, payload: memoryview, offset: int) -> _Layout:
        end = len(payload)
        headers: list[int] = []
        places = []
        form = f"={min(offset, end)}x"
        while offset + ATTRIBUTE.size <= end:
            length, kind = ATTRIBUTE.unpack_from(payload, offset)
            headers += (length, kind)
            if length < ATTRIBUTE.size or offset + length > end:
                # That it ends here is a part of the layout.
                form += "HH"
                break
            if kind & NLA_TYPE_MASK in self._wanted:
                places.append((kind & NLA_TYPE_MASK, slice(offset + ATTRIBUTE.size, offset + length)))
            following = min(offset + ((length + 3) & ~3), end)
            form += f"HH{following - offset - ATTRIBUTE.size}x"
            offset = following
        return _Layout(struct.Struct(form).unpack_from, tuple(headers), tuple(places))
