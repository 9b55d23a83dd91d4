"""Changes of devices, addresses, routes and neighbours, on the host and inside every namespace.

One rtnetlink socket hears them all (NETLINK_LISTEN_ALL_NSID, netlink(7)): the ancillary
data of a message names the namespace it comes from, by the number the host knows it by.
A message is read just far enough to know whether it takes something away. Of devices that
changed in other ways the last message of a burst is handed on whole: most of these are the
echo of our own work, and show what should be.
"""

import struct
from collections.abc import Iterable
from typing import Final

from agent.core.identity import cookie_of
from agent.kernel import decode, eventfilter
from agent.kernel import rtnetlink as rt
from agent.kernel.netlink import NETLINK_ROUTE
from agent.kernel.wire import Message, attributes
from agent.sources.listener import Listener
from agent.sources.sink import Sink

SOURCE: Final = "rtnetlink"

_BUFFER_BYTES: Final = 32 << 20
_GROUPS: Final = {
    "link": 1, "neighbour": 3, "ipv4 address": 5, "ipv4 route": 7, "ipv6 address": 9, "ipv6 route": 11,
    "ipv4 netconf": 24, "ipv6 netconf": 25,
}  # fmt: skip
_RTA_OIF: Final = 4
_NDA_DST: Final = 1
_RTMSG_BYTES: Final = 12
_NDMSG_BYTES: Final = 12
_INT: Final = struct.Struct("=i")
# ifinfomsg, ifaddrmsg and ndmsg all have the ifindex here.
_INDEX: Final = struct.Struct("=4xi")
_ANY: Final = -1


class LinkSource(Listener):
    """Listens for what others change."""

    def __init__(self, sink: Sink, interfaces: Iterable[str], buffer_bytes: int = _BUFFER_BYTES) -> None:
        """``interfaces`` are the names of our devices inside namespaces: their being made is no news."""
        super().__init__(NETLINK_ROUTE, _GROUPS.values(), buffer_bytes, all_namespaces=True)
        eventfilter.pass_losses(self.socket, interfaces)
        self._sink = sink
        self._changed: dict[tuple[int | None, int], bytes] = {}

    def on_lost(self) -> None:
        """See Listener."""
        self._sink.dropped(SOURCE)

    def on_message(self, nsid: int | None, message: Message) -> None:
        """See Listener."""
        match message.kind:
            case rt.RTM_NEWLINK:
                (index,) = _INDEX.unpack_from(message.payload)
                self._changed[nsid, index] = bytes(message.payload)
            case rt.RTM_DELNEIGH:
                self._on_neighbour(nsid, message)
            case _ if nsid is not None:
                self._sink.look_inside(nsid)
            case rt.RTM_DELLINK:
                self._on_host_link_gone(message)
            case rt.RTM_DELADDR:
                self._sink.look_host_device(_INDEX.unpack_from(message.payload)[0])
            case rt.RTM_DELROUTE | rt.RTM_NEWROUTE:
                self._on_host_route(message)
            case eventfilter.RTM_NEWNETCONF:
                self._sink.look_host("")

    def on_read(self, count: int) -> None:
        """See Listener."""
        self._sink.heard(SOURCE, count)
        changed, self._changed = self._changed, {}
        for (nsid, _), payload in changed.items():
            self._sink.check_link(nsid, decode.link(memoryview(payload)))

    def _on_host_link_gone(self, message: Message) -> None:
        link = decode.link(message.payload)
        cookie = cookie_of(link.name)
        if cookie is not None:
            self._sink.host_end_gone(cookie, link)
        else:
            self._sink.look_host_device(link.index)

    def _on_host_route(self, message: Message) -> None:
        if message.payload[1] == 0:
            self._sink.look_host("")
        elif message.kind == rt.RTM_DELROUTE:
            found = attributes(message.payload, _RTMSG_BYTES)
            self._sink.look_host_device(_INT.unpack_from(found[_RTA_OIF])[0] if _RTA_OIF in found else _ANY)

    def _on_neighbour(self, nsid: int | None, message: Message) -> None:
        (index,) = _INDEX.unpack_from(message.payload)
        address = bytes(attributes(message.payload, _NDMSG_BYTES).get(_NDA_DST, b""))
        self._sink.neighbour_gone(nsid, index, address)
