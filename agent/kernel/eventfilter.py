"""Socket filters that keep the echo of our own work in the kernel.

One plumb causes some twenty rtnetlink messages, most of which say that something was added,
and some of nf_tables. The filters let pass only what may take something away or change it:
without them, reading the echo would cost more than the plumb.

Source: Documentation/networking/filter.rst, struct sock_filter in linux/filter.h.
"""

import ctypes
import socket
import struct
from collections.abc import Iterable
from typing import Final

from agent.core.identity import HOST_END_PREFIX
from agent.kernel import cn_proc
from agent.kernel import rtnetlink as rt
from agent.model import ROUTE_PROTOCOL

RTM_NEWNETCONF: Final = 80

_SO_ATTACH_FILTER: Final = 26
_LD_H, _LD_W, _LD_B = 0x28, 0x20, 0x30
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06
_TAX, _JEQ_X = 0x07, 0x1D
_PASS: Final = 0xFFFFFFFF
_INSTRUCTION: Final = struct.Struct("=HBBI")

# Offsets from the start of the message: struct nlmsghdr is 16 bytes.
_TYPE: Final = 4
_PORT: Final = 12
_FAMILY: Final = 16
_LINK_FLAGS, _LINK_CHANGE = 24, 28
# The kernel puts the name first (net/core/rtnetlink.c, rtnl_fill_ifinfo).
_LINK_NAME: Final = 36
_ROUTE_PREFIX, _ROUTE_PROTOCOL = 17, 21
# The kernel puts the ifindex first (net/ipv4/devinet.c, inet_netconf_fill_devconf), and NETCONFA_IFINDEX_ALL is -1.
_SETTING_INDEX: Final = 24
_ALL_DEVICES: Final = 0xFFFFFFFF
_IFF_UP: Final = 1
_NEW_DEVICE: Final = 0xFFFFFFFF

_Line = tuple[str, int, int, str, str]


def pass_losses(listener: socket.socket, interfaces: Iterable[str]) -> None:
    """Let only these of rtnetlink pass: removals; devices that are made, but for those of our names;
    changes of devices other than being set up; default routes that are not ours; forwarding switched for all devices.

    ``interfaces`` are the names of our devices inside namespaces.
    """
    _attach(listener, _losses(interfaces))


def pass_ends(listener: socket.socket) -> None:
    """Let only these of rtnetlink pass: a device was set down, or is gone; not that it left a bridge."""
    lines: list[_Line] = [
        ("", _LD_B, _FAMILY, "", ""),
        ("", _JEQ, rt.AF_UNSPEC, "", "drop"),
        ("", _LD_H, _TYPE, "", ""),
        ("", _JEQ, socket.htons(rt.RTM_DELLINK), "pass", ""),
        ("", _JEQ, socket.htons(rt.RTM_NEWLINK), "", "drop"),
        ("", _LD_W, _LINK_CHANGE, "", ""),
        ("", _JEQ, _NEW_DEVICE, "drop", ""),
        ("", _JSET, socket.htonl(_IFF_UP), "", "drop"),
        ("", _LD_W, _LINK_FLAGS, "", ""),
        ("", _JSET, socket.htonl(_IFF_UP), "drop", "pass"),
        ("drop", _RET, 0, "", ""),
        ("pass", _RET, _PASS, "", ""),
    ]
    _attach(listener, lines)


def pass_foreign(listener: socket.socket, own_ports: Iterable[int]) -> None:
    """Let only messages pass that were not caused by a socket with one of these port ids."""
    lines: list[_Line] = [("", _LD_W, _PORT, "", "")]
    lines += (("", _JEQ, socket.htonl(port), "drop", "") for port in own_ports)
    _attach(listener, [*lines, ("", _RET, _PASS, "", ""), ("drop", _RET, 0, "", "")])


def pass_processes(listener: socket.socket) -> None:
    """Let only these of the process connector pass: new processes, and what a process did with its
    program, name, session or user. What threads do stays in the kernel, and so do all exits."""
    _attach(listener, _processes())


def _attach(listener: socket.socket, lines: list[_Line]) -> None:
    program = _assemble(lines)
    buffer = ctypes.create_string_buffer(program)
    head = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(buffer))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


def _losses(interfaces: Iterable[str]) -> list[_Line]:
    removals = (rt.RTM_DELLINK, rt.RTM_DELADDR, rt.RTM_DELROUTE, rt.RTM_DELNEIGH)
    # Four bytes tell our names from others well enough.
    starts = sorted({struct.unpack(">I", name.encode().ljust(4, b"\0")[:4])[0] for name in interfaces})
    return [
        ("", _LD_H, _TYPE, "", ""),
        ("", _JEQ, socket.htons(rt.RTM_NEWLINK), "link", ""),
        ("", _JEQ, socket.htons(rt.RTM_NEWROUTE), "route", ""),
        *(("", _JEQ, socket.htons(kind), "pass", "") for kind in removals),
        ("", _JEQ, socket.htons(RTM_NEWNETCONF), "setting", "drop"),
        # The filter reads in network order what the message holds in host order.
        # What changes of a port for its bridge is told of the device, too.
        ("link", _LD_B, _FAMILY, "", ""),
        ("", _JEQ, rt.AF_UNSPEC, "", "drop"),
        ("", _LD_W, _LINK_CHANGE, "", ""),
        ("", _JEQ, _NEW_DEVICE, "made", ""),
        ("", _JSET, socket.htonl(_IFF_UP), "", "pass"),
        ("", _LD_W, _LINK_FLAGS, "", ""),
        ("", _JSET, socket.htonl(_IFF_UP), "drop", "pass"),
        ("made", _LD_H, _LINK_NAME, "", ""),
        ("", _JEQ, struct.unpack(">H", HOST_END_PREFIX.encode())[0], "drop", ""),
        ("", _LD_W, _LINK_NAME, "", ""),
        *(("", _JEQ, start, "drop", "") for start in starts),
        ("", _RET, _PASS, "", ""),
        ("route", _LD_B, _ROUTE_PREFIX, "", ""),
        ("", _JEQ, 0, "", "drop"),
        ("", _LD_B, _ROUTE_PROTOCOL, "", ""),
        ("", _JEQ, ROUTE_PROTOCOL, "drop", "pass"),
        # Each device that is made has settings of its own.
        ("setting", _LD_W, _SETTING_INDEX, "", ""),
        ("", _JEQ, _ALL_DEVICES, "pass", "drop"),
        ("drop", _RET, 0, "", ""),
        ("pass", _RET, _PASS, "", ""),
    ]


def _processes() -> list[_Line]:
    *deeds, last = (cn_proc.NONE, cn_proc.EXEC, cn_proc.COMM, cn_proc.SID, cn_proc.UID, cn_proc.GID)
    return [
        ("", _LD_W, cn_proc.WHAT, "", ""),
        ("", _JEQ, socket.htonl(cn_proc.FORK), "fork", ""),
        *(("", _JEQ, socket.htonl(deed), "deed", "") for deed in deeds),
        ("", _JEQ, socket.htonl(last), "deed", "drop"),
        # A thread's number differs from that of its process.
        ("fork", _LD_W, cn_proc.CHILD_PID, "", ""),
        ("", _TAX, 0, "", ""),
        ("", _LD_W, cn_proc.CHILD_TGID, "", ""),
        ("", _JEQ_X, 0, "pass", "drop"),
        ("deed", _LD_W, cn_proc.PID, "", ""),
        ("", _TAX, 0, "", ""),
        ("", _LD_W, cn_proc.TGID, "", ""),
        ("", _JEQ_X, 0, "pass", "drop"),
        ("drop", _RET, 0, "", ""),
        ("pass", _RET, _PASS, "", ""),
    ]


def _assemble(lines: list[_Line]) -> bytes:
    places = {label: place for place, (label, *_) in enumerate(lines) if label}

    def distance(place: int, label: str) -> int:
        return places[label] - place - 1 if label else 0

    return b"".join(
        _INSTRUCTION.pack(code, distance(place, yes), distance(place, no), value)
        for place, (_, code, value, yes, no) in enumerate(lines)
    )
