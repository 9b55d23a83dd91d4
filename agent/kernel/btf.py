"""Where things stand in the running kernel's structures, from its own description of its types.

Source: Documentation/bpf/btf.rst.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
_WORD: Final = struct.Struct("=I")
_STRUCT: Final = 4
_KIND_SHIFT, _KIND_MASK = 24, 0x1F
_MEMBERS_MASK: Final = 0xFFFF
_OFFSET_MASK: Final = 0xFFFFFF


class UnknownTypeError(LookupError):
    """The kernel does not describe its types, or not this one."""


class Types:
    """The kernel's types: some megabytes, to be dropped after use."""

    def __init__(self) -> None:
        """Read them. Raises UnknownTypeError."""
        try:
            raw = _VMLINUX.read_bytes()
        except OSError as error:
            raise UnknownTypeError(_VMLINUX) from error
        magic, _, _, head, types, types_length, strings, strings_length = _HEADER.unpack_from(raw)
        if magic != _MAGIC:
            raise UnknownTypeError(_VMLINUX)
        self._types = raw[head + types : head + types + types_length]
        self._strings = raw[head + strings : head + strings + strings_length]

    def offset(self, structure: str, *members: str) -> int:
        """Return how many bytes into a structure a member stands. Raises UnknownTypeError.

        More ``members`` lead on into the last one's own structure, which is named before it:
        ``offset("net", "ns", "ns_common", "inum")``.
        """
        member, *further = members
        wanted = self._string(member)
        for place, count in self._structures(structure):
            for at in range(place, place + count * _TYPE.size, _TYPE.size):
                name, _, bits = _TYPE.unpack_from(self._types, at)
                if name == wanted:
                    begin = int(bits & _OFFSET_MASK) // 8
                    return begin + self.offset(*further) if further else begin
        raise UnknownTypeError(f"{structure}.{member}")

    def _structures(self, name: str) -> Iterator[tuple[int, int]]:
        """Find structures of a name: where their members begin, and how many they are."""
        # Types are of different lengths; to walk through all would take longer than all else at start.
        number = _WORD.pack(self._string(name))
        place = self._types.find(number)
        while place >= 0:
            if place % _WORD.size == 0 and place + _TYPE.size <= len(self._types):
                _, info, _ = _TYPE.unpack_from(self._types, place)
                if info >> _KIND_SHIFT & _KIND_MASK == _STRUCT:
                    members = place + _TYPE.size
                    count = min(info & _MEMBERS_MASK, (len(self._types) - members) // _TYPE.size)
                    yield members, count
            place = self._types.find(number, place + 1)

    def _string(self, text: str) -> int:
        place = self._strings.find(b"\0" + text.encode() + b"\0")
        if place < 0:
            raise UnknownTypeError(text)
        return place + 1
