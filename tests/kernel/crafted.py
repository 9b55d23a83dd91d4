"""Frames that try to get round a filter: other headers before the one that counts, pieces, tags, options.

RFC 8200 (extension headers, fragments), RFC 4861 (neighbour discovery), RFC 791 (IPv4 options, fragments).
"""

import struct
from ipaddress import IPv6Address

from tests.kernel import frames

ETHERNET, IPV6_HEADER, IPV4_HEADER = 14, 40, 20
HOP_BY_HOP, FRAGMENT, DESTINATION_OPTIONS, ICMPV6 = 0, 44, 60, 58
SOURCE_MAC, TARGET_MAC = 1, 2
ANSWER, UNASKED = 0x60000000, 0x20000000  # solicited and override; override alone
_IDENTIFICATION = 7
_PADDING = b"\1\4\0\0\0\0"  # PadN that fills a header of eight bytes


def option(kind: int, mac: bytes) -> bytes:
    """A link-layer address option of neighbour discovery."""
    return bytes([kind, 1]) + mac


def advertisement(
    to: bytes, source: bytes, sender: str, receiver: str, target: str, options: bytes = b"", flags: int = ANSWER
) -> bytes:
    body = struct.pack("!I", flags) + IPv6Address(target).packed + options
    return frames.icmp6(to, source, sender, receiver, frames.NEIGHBOUR_ADVERTISEMENT, body)


def solicitation(to: bytes, source: bytes, sender: str, receiver: str, target: str, options: bytes = b"") -> bytes:
    body = bytes(4) + IPv6Address(target).packed + options
    return frames.icmp6(to, source, sender, receiver, frames.NEIGHBOUR_SOLICITATION, body)


def behind(kind: int, frame: bytes) -> bytes:
    """An IPv6 frame with one more header of this kind before what it carries."""
    following = frame[ETHERNET + 6]
    return _ipv6(frame, kind, bytes([following, 0]) + _PADDING + frame[ETHERNET + IPV6_HEADER :])


def pieces6(frame: bytes, first: int) -> list[bytes]:
    """An IPv6 frame in two fragments; the first carries ``first`` bytes, a multiple of eight."""
    following, whole = frame[ETHERNET + 6], frame[ETHERNET + IPV6_HEADER :]
    assert first % 8 == 0
    heads = (struct.pack("!BBHI", following, 0, place, _IDENTIFICATION) for place in (1, first))
    return [
        _ipv6(frame, FRAGMENT, head + part) for head, part in zip(heads, (whole[:first], whole[first:]), strict=True)
    ]


def pieces4(frame: bytes, first: int) -> list[bytes]:
    """An IPv4 frame without options in two fragments."""
    whole = frame[ETHERNET + IPV4_HEADER :]
    assert first % 8 == 0
    parts = ((0x2000, whole[:first]), (first // 8, whole[first:]))
    return [_ipv4(frame, struct.pack("!HH", _IDENTIFICATION, place), b"", part) for place, part in parts]


def with_options4(frame: bytes, options: bytes) -> bytes:
    """An IPv4 frame with options, a multiple of four bytes."""
    return _ipv4(frame, bytes(4), options, frame[ETHERNET + IPV4_HEADER :])


def source_route(*hops: bytes) -> bytes:
    """Loose source routing, RFC 791, 3.1: the packet goes by these addresses after its destination."""
    route = b"".join(hops)
    return bytes([131, 3 + len(route), 4]) + route + b"\0"


def _ipv6(frame: bytes, following: int, payload: bytes) -> bytes:
    head = frame[ETHERNET : ETHERNET + IPV6_HEADER]
    changed = head[:4] + struct.pack("!HB", len(payload), following) + head[7:]
    return frame[:ETHERNET] + changed + payload


def _ipv4(frame: bytes, place: bytes, options: bytes, payload: bytes) -> bytes:
    head = frame[ETHERNET : ETHERNET + IPV4_HEADER]
    words = (IPV4_HEADER + len(options)) // 4
    length = struct.pack("!H", IPV4_HEADER + len(options) + len(payload))
    changed = bytes([0x40 | words, head[1]]) + length + place + head[8:10] + b"\0\0" + head[12:] + options
    total: int = sum(struct.unpack(f"!{len(changed) // 2}H", changed))
    total = (total & 0xFFFF) + (total >> 16)
    changed = changed[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + changed[12:]
    return frame[:ETHERNET] + changed + payload
