"""Changes of devices, addresses and routes, on the host and inside every attached namespace.

One rtnetlink socket hears them all (NETLINK_LISTEN_ALL_NSID, netlink(7)): the ancillary
data of a message names the namespace it comes from, by the number the host knows it by.
The message is read just far enough to know whether it takes something away. What vethd
does itself only ever adds, so it does not hear itself.
"""

import asyncio
import errno
import socket
import struct
from typing import Final

from agent.core.identity import cookie_of
from agent.kernel import eventfilter
from agent.kernel import messages as rt
from agent.kernel.netlink import NETLINK_ROUTE, Message, attributes, messages
from agent.model import ROUTE_PROTOCOL
from agent.sources.sink import Sink

SOURCE: Final = "rtnetlink"

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_LISTEN_ALL_NSID: Final = 8
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 32 << 20
_GROUPS: Final = {
    "link": 1, "ipv4 address": 5, "ipv4 route": 7, "ipv6 address": 9, "ipv6 route": 11,
    "ipv4 netconf": 24, "ipv6 netconf": 25,
}  # fmt: skip
_NETCONFA_IFINDEX: Final = 1
_NETCONFA_IFINDEX_ALL: Final = -1

_IFF_UP: Final = 1
_ALL_CHANGED: Final = 0xFFFFFFFF
_IFLA_IFNAME: Final = 3
_RTA_OIF: Final = 4
_IFINFO: Final = struct.Struct("=BxHiII")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_INT: Final = struct.Struct("=i")
_AT_ONCE: Final = 256


class LinkSource:
    """Listens for what others change."""

    def __init__(self, sink: Sink, buffer_bytes: int = _BUFFER_BYTES) -> None:
        self._sink = sink
        self._buffer = bytearray(1 << 16)
        self._ancillary = socket.CMSG_SPACE(4)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
        eventfilter.attach(self._socket, uplink=0)
        self._socket.bind((0, 0))
        for group in _GROUPS.values():
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def follow_uplink(self, uplink: int) -> None:
        """Hear every change of this device (ifindex) of the host, too."""
        eventfilter.attach(self._socket, uplink)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen from ``loop``."""
        loop.add_reader(self._socket.fileno(), self._drain)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop listening."""
        loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _drain(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                size, ancillary, _, _ = self._socket.recvmsg_into([self._buffer], self._ancillary)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._sink.dropped(SOURCE)
                continue
            nsid = _INT.unpack(ancillary[0][2])[0] if ancillary else None
            for message in messages(memoryview(self._buffer)[:size]):
                if nsid is None:
                    self._on_host(message)
                elif _takes_away(message):
                    self._sink.look_inside(nsid)

    def _on_host(self, message: Message) -> None:
        match message.kind:
            case rt.RTM_NEWLINK | rt.RTM_DELLINK:
                self._on_host_link(message)
            case rt.RTM_DELADDR:
                _, _, _, _, index = struct.unpack_from("=BBBBI", message.payload)
                self._look_host_if("", index)
            case rt.RTM_DELROUTE | rt.RTM_NEWROUTE:
                self._on_host_route(message)
            case _ if message.kind == eventfilter.RTM_NEWNETCONF:
                found = attributes(message.payload, 4)
                if _INT.unpack_from(found.get(_NETCONFA_IFINDEX, b"\0\0\0\0"))[0] == _NETCONFA_IFINDEX_ALL:
                    self._sink.look_host("")

    def _on_host_link(self, message: Message) -> None:
        _, _, index, _, _ = _IFINFO.unpack_from(message.payload)
        name = (
            bytes(attributes(message.payload, _IFINFO.size).get(_IFLA_IFNAME, b""))
            .rstrip(b"\0")
            .decode(errors="replace")
        )
        cookie = cookie_of(name)
        if cookie is not None:
            if _takes_away(message):
                self._sink.look_attachment(cookie)
        else:
            self._look_host_if(name, index)

    def _on_host_route(self, message: Message) -> None:
        destination = message.payload[1]
        found = attributes(message.payload, _RTMSG.size)
        index = _INT.unpack_from(found[_RTA_OIF])[0] if _RTA_OIF in found else 0
        if destination == 0:
            self._sink.look_host("")
        elif message.kind == rt.RTM_DELROUTE:
            self._look_host_if("", index)

    def _look_host_if(self, name: str, index: int) -> None:
        if self._sink.is_host_device(name, index):
            self._sink.look_host("")


def _takes_away(message: Message) -> bool:
    """Tell whether a message says that something is gone, down, or replaced."""
    match message.kind:
        case rt.RTM_DELLINK | rt.RTM_DELADDR | rt.RTM_DELROUTE:
            return True
        case rt.RTM_NEWLINK:
            _, _, _, flags, changed = _IFINFO.unpack_from(message.payload)
            return changed != _ALL_CHANGED and bool(changed & _IFF_UP) and not flags & _IFF_UP
        case rt.RTM_NEWROUTE:
            # A default route of somebody else's may stand in the place of ours.
            _, prefix, _, _, _, protocol, _, _, _ = _RTMSG.unpack_from(message.payload)
            return bool(prefix == 0 and protocol != ROUTE_PROTOCOL)
        case _:
            return False
