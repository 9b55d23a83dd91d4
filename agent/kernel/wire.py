"""How netlink messages and their attributes are laid out.

Source: netlink(7), include/uapi/linux/netlink.h.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLM_F_ACK_TLVS: Final = 0x200
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

HEADER: Final = struct.Struct("=IHHII")
ATTRIBUTE: Final = struct.Struct("=HH")


class Request(NamedTuple):
    """One request: ``kind`` (nlmsg_type), ``flags``, ``body`` (family header and attributes)."""

    kind: int
    flags: int
    body: bytes
    what: str


class Message(NamedTuple):
    """One received message: header fields and the payload behind the header."""

    kind: int
    flags: int
    sequence: int
    port: int
    payload: memoryview


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    length = 4 + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


# Kinds, tables and sets come again in every request; names of devices do not stay long.
@lru_cache(maxsize=1024)
def text(kind: int, value: str | bytes) -> bytes:
    """Encode a zero-terminated string attribute."""
    # Devices inside a namespace may be named by bytes that are no UTF-8.
    raw = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    return attribute(kind, raw + b"\0")


def number(kind: int, value: int) -> bytes:
    """Encode an unsigned 32-bit attribute in host order."""
    return struct.pack("=HHI", 8, kind, value)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute that holds other attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(payload: memoryview, offset: int = 0) -> dict[int, memoryview]:
    """Decode attributes from ``offset`` on; of a repeated type the last one stays.

    Whatever the bytes, this does not raise: decoding ends at the first attribute that is cut short.
    """
    found: dict[int, memoryview] = {}
    end = len(payload)
    while offset + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(payload, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & NLA_TYPE_MASK] = payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages(datagram: bytes | memoryview) -> Iterator[Message]:
    """Split a datagram into its messages, up to the first that is cut short. Does not raise."""
    view = memoryview(datagram)
    offset = 0
    end = len(view)
    while offset + 16 <= end:
        length, kind, flags, sequence, port = HEADER.unpack_from(view, offset)
        if length < 16 or offset + length > end:
            return
        yield Message(kind, flags, sequence, port, view[offset + 16 : offset + length])
        offset += (length + 3) & ~3
