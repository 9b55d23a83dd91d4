"""A socket filter that keeps the echo of our own work in the kernel.

One plumb causes some twenty rtnetlink messages, all of which say that something was added.
The filter lets pass only what takes something away: without it, reading the echo would
cost more than the plumb.

Source: Documentation/networking/filter.rst, struct sock_filter in linux/filter.h.
"""

import ctypes
import socket
import struct
from typing import Final

from agent.kernel import messages as rt
from agent.model import ROUTE_PROTOCOL

RTM_NEWNETCONF: Final = 80

_SO_ATTACH_FILTER: Final = 26
_LD_H, _LD_W, _LD_B = 0x28, 0x20, 0x30
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06
_PASS: Final = 0xFFFFFFFF
_INSTRUCTION: Final = struct.Struct("=HBBI")

# Offsets from the start of the message: struct nlmsghdr is 16 bytes.
_TYPE: Final = 4
_LINK_INDEX, _LINK_FLAGS, _LINK_CHANGE = 20, 24, 28
_ROUTE_PREFIX, _ROUTE_PROTOCOL = 17, 21
_IFF_UP: Final = 1
_ALL: Final = 0xFFFFFFFF

_Line = tuple[str, int, int, str, str]


def attach(listener: socket.socket, uplink: int) -> None:
    """Let only these pass: removals; devices set down; any change of device ``uplink``; foreign
    default routes; forwarding switched."""
    program = _assemble(uplink)
    buffer = ctypes.create_string_buffer(program)
    head = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(buffer))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


def _assemble(uplink: int) -> bytes:
    lines: list[_Line] = [
        ("start", _LD_H, _TYPE, "", ""),
        ("", _JEQ, _half(rt.RTM_NEWLINK), "link", ""),
        ("", _JEQ, _half(rt.RTM_NEWROUTE), "route", ""),
        ("", _JEQ, _half(rt.RTM_DELLINK), "pass", ""),
        ("", _JEQ, _half(rt.RTM_DELADDR), "pass", ""),
        ("", _JEQ, _half(rt.RTM_DELROUTE), "pass", ""),
        ("", _JEQ, _half(RTM_NEWNETCONF), "pass", "drop"),
        ("link", _LD_W, _LINK_INDEX, "", ""),
        ("", _JEQ, _word(uplink), "pass", ""),
        ("", _LD_W, _LINK_CHANGE, "", ""),
        ("", _JEQ, _word(_ALL), "drop", ""),
        ("", _JSET, _word(_IFF_UP), "", "drop"),
        ("", _LD_W, _LINK_FLAGS, "", ""),
        ("", _JSET, _word(_IFF_UP), "drop", "pass"),
        ("route", _LD_B, _ROUTE_PREFIX, "", ""),
        ("", _JEQ, 0, "", "drop"),
        ("", _LD_B, _ROUTE_PROTOCOL, "", ""),
        ("", _JEQ, ROUTE_PROTOCOL, "drop", "pass"),
        ("drop", _RET, 0, "", ""),
        ("pass", _RET, _PASS, "", ""),
    ]
    places = {label: place for place, (label, *_) in enumerate(lines) if label}

    def distance(place: int, label: str) -> int:
        return places[label] - place - 1 if label else 0

    return b"".join(
        _INSTRUCTION.pack(code, distance(place, yes), distance(place, no), value)
        for place, (_, code, value, yes, no) in enumerate(lines)
    )


def _half(value: int) -> int:
    """The filter reads in network order what the message holds in host order."""
    return socket.htons(value)


def _word(value: int) -> int:
    return socket.htonl(value)
