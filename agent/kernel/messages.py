"""Requests of the hot path in wire form, and what comes back as values of the model.

Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth}.h.
"""

import struct
from typing import Final

from agent.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    attributes,
    nested,
    number,
    text,
)
from agent.model import LINK_GROUP, ROUTE_PROTOCOL, Address, Link, Neighbour, Route, Traffic

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30

AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_INET6: Final = 10

IFF_UP: Final = 1

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_STATS64 = 16, 18, 20, 23
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_LINK_NETNSID = 26, 27, 28, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BRPORT_STATE, _IFLA_BRPORT_ISOLATED = 1, 33
_IFLA_INET6_CONF, _IFLA_INET6_ADDR_GEN_MODE = 2, 8
# DEVCONF_DISABLE_IPV6 of include/uapi/linux/ipv6.h: the 26th of an array of 32-bit numbers.
_DISABLE_IPV6 = 26 * 4
_IN6_ADDR_GEN_MODE_NONE = b"\x01"
_VETH_INFO_PEER = 1
_BR_STATE_FORWARDING = 3
_IF_OPER_UP = 6

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTMSG_TYPE = 7
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")
_STATS64 = struct.Struct("=8Q")


def get_link(name: str) -> Request:
    """Ask for one device by name; since Linux 6.8 this settles its carrier first (linkwatch)."""
    return Request(RTM_GETLINK, 0, _ifinfo() + text(_IFLA_IFNAME, name), f"read device {name}")


def get_link_by_index(index: int) -> Request:
    """Ask for one device by number."""
    return Request(RTM_GETLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0), f"read device {index}")


def dump_links() -> Request:
    """Ask for all devices."""
    return Request(RTM_GETLINK, 0, _ifinfo(), "list devices")


def create_pair(host_end: str, host_end_mac: bytes, device: str, mac: bytes, mtu: int, netns: int) -> Request:
    """Make a veth pair whose ``device`` end appears in the namespace of file descriptor ``netns``."""
    peer = (
        _ifinfo()
        + text(_IFLA_IFNAME, device)
        + attribute(_IFLA_ADDRESS, mac)
        + number(_IFLA_MTU, mtu)
        + number(_IFLA_NET_NS_FD, netns)
    )
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, host_end)
        + attribute(_IFLA_ADDRESS, host_end_mac)
        + number(_IFLA_MTU, mtu)
        + number(_IFLA_GROUP, LINK_GROUP)
        + nested(
            _IFLA_LINKINFO,
            text(_IFLA_INFO_KIND, "veth"),
            nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, peer)),
        )
    )
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make the pair {host_end}, {device}")


def delete_link(name: str) -> Request:
    """Delete a device by name."""
    return Request(RTM_DELLINK, 0, _ifinfo() + text(_IFLA_IFNAME, name), f"delete {name}")


def delete_group(group: int) -> Request:
    """Delete all devices of a group, at the price of one."""
    return Request(RTM_DELLINK, 0, _ifinfo() + number(_IFLA_GROUP, group), f"delete link group {group}")


def set_group(name: str, group: int) -> Request:
    """Put a device into a group."""
    body = _ifinfo() + text(_IFLA_IFNAME, name) + number(_IFLA_GROUP, group)
    return Request(RTM_NEWLINK, 0, body, f"set group {group} on {name}")


def mark_link(name: str, alias: str) -> Request:
    """Write alias and our group on a device."""
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, name)
        + number(_IFLA_GROUP, LINK_GROUP)
        + attribute(_IFLA_IFALIAS, alias.encode())
    )
    return Request(RTM_NEWLINK, 0, body, f"set the alias of {name}")


def raise_link(name: str) -> Request:
    """Set a device up."""
    return Request(RTM_NEWLINK, 0, _ifinfo(IFF_UP) + text(_IFLA_IFNAME, name), f"set {name} up")


def set_mac(name: str, mac: bytes) -> Request:
    """Set a device's MAC."""
    body = _ifinfo() + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, mac)
    return Request(RTM_NEWLINK, 0, body, f"set the MAC of {name}")


def set_mtu(name: str, mtu: int) -> Request:
    """Set a device's MTU."""
    return Request(
        RTM_NEWLINK, 0, _ifinfo() + text(_IFLA_IFNAME, name) + number(_IFLA_MTU, mtu), f"set the MTU of {name} to {mtu}"
    )


def no_link_local(name: str) -> Request:
    """Keep the kernel from giving a device an IPv6 link-local address."""
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, name)
        + nested(_IFLA_AF_SPEC, nested(AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)))
    )
    return Request(RTM_NEWLINK, 0, body, f"turn link-local addresses off on {name}")


def join_bridge(name: str, bridge: int) -> Request:
    """Make a device a port of a bridge."""
    return Request(
        RTM_NEWLINK, 0, _ifinfo() + text(_IFLA_IFNAME, name) + number(_IFLA_MASTER, bridge), f"put {name} on the bridge"
    )


def set_isolated(name: str, isolated: bool) -> Request:
    """Set whether a bridge port reaches other isolated ports."""
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, name)
        + nested(
            _IFLA_LINKINFO,
            text(_IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(_IFLA_INFO_SLAVE_DATA, attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))),
        )
    )
    return Request(RTM_NEWLINK, 0, body, f"set isolation of {name}")


def dump_addresses() -> Request:
    """Ask for all addresses of both families."""
    return Request(RTM_GETADDR, 0, _IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0), "list addresses")


def add_address(device: int, address: bytes, prefix: int) -> Request:
    """Add an address without duplicate address detection."""
    body = (
        _IFADDR.pack(_family(address), prefix, 0, 0, device)
        + attribute(_IFA_LOCAL, address)
        + attribute(_IFA_ADDRESS, address)
        + number(_IFA_FLAGS, _IFA_F_NODAD)
    )
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, "add the address")


def dump_routes(family: int) -> Request:
    """Ask for the main table's routes of a family."""
    body = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0) + number(_RTA_TABLE, _RT_TABLE_MAIN)
    return Request(RTM_GETROUTE, 0, body, "list routes")


def add_default_route(device: int, family: int, gateway: bytes) -> Request:
    """Add a default route that bears our protocol number."""
    body = (
        _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, ROUTE_PROTOCOL, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
        + attribute(_RTA_GATEWAY, gateway)
        + number(_RTA_OIF, device)
    )
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, "add the default route")


def add_on_link_route(device: int, source: bytes, prefix: int) -> Request:
    """Add the route to a device's own subnet, the one of its address ``source``."""
    family = _family(source)
    bits = 8 * len(source)
    network = (int.from_bytes(source) >> (bits - prefix) << (bits - prefix)).to_bytes(len(source))
    body = (
        _RTMSG.pack(family, prefix, 0, 0, _RT_TABLE_MAIN, ROUTE_PROTOCOL, _RT_SCOPE_LINK, _RTN_UNICAST, 0)
        + attribute(_RTA_DST, network)
        + number(_RTA_OIF, device)
    )
    if family == AF_INET:
        body += attribute(_RTA_PREFSRC, source)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, "add the on-link route")


def find_route(destination: bytes) -> Request:
    """Ask which route a destination takes."""
    body = _RTMSG.pack(_family(destination), 8 * len(destination), 0, 0, 0, 0, 0, 0, 0) + attribute(
        _RTA_DST, destination
    )
    return Request(RTM_GETROUTE, 0, body, "find a route")


def is_local_route(payload: memoryview) -> bool:
    """Tell whether a route leads to the namespace itself."""
    return payload[_RTMSG_TYPE] == _RTN_LOCAL


def dump_neighbours() -> Request:
    """Ask for all neighbour entries."""
    return Request(RTM_GETNEIGH, 0, _NDMSG.pack(AF_UNSPEC, 0, 0, 0, 0), "list neighbours")


def get_neighbour(device: int, address: bytes) -> Request:
    """Ask for one neighbour entry."""
    body = _NDMSG.pack(_family(address), device, 0, 0, 0) + attribute(_NDA_DST, address)
    return Request(RTM_GETNEIGH, 0, body, "read a neighbour")


def add_neighbour(device: int, address: bytes, mac: bytes) -> Request:
    """Add a permanent neighbour entry."""
    body = (
        _NDMSG.pack(_family(address), device, _NUD_PERMANENT, 0, 0)
        + attribute(_NDA_DST, address)
        + attribute(_NDA_LLADDR, mac)
    )
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, "add the neighbour")


def delete_neighbour(device: int, address: bytes) -> Request:
    """Delete a neighbour entry."""
    body = _NDMSG.pack(_family(address), device, 0, 0, 0) + attribute(_NDA_DST, address)
    return Request(RTM_DELNEIGH, 0, body, "delete the neighbour")


def link(payload: memoryview) -> Link:
    """Decode a device."""
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    found = attributes(payload, _IFINFO.size)
    info = attributes(found[_IFLA_LINKINFO]) if _IFLA_LINKINFO in found else {}
    port = attributes(info[_IFLA_INFO_SLAVE_DATA]) if _IFLA_INFO_SLAVE_DATA in info else {}
    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME)),
        kind=_string(info.get(_IFLA_INFO_KIND)),
        mac=bytes(found.get(_IFLA_ADDRESS, b"")),
        mtu=_u32(found.get(_IFLA_MTU)),
        up=bool(flags & IFF_UP),
        carrier=_IFLA_OPERSTATE in found and found[_IFLA_OPERSTATE][0] == _IF_OPER_UP,
        group=_u32(found.get(_IFLA_GROUP)),
        alias=_string(found.get(_IFLA_IFALIAS)),
        master=_u32(found.get(_IFLA_MASTER)),
        peer=_u32(found.get(_IFLA_LINK)),
        peer_nsid=_u32(found[_IFLA_LINK_NETNSID]) if _IFLA_LINK_NETNSID in found else None,
        isolated=_IFLA_BRPORT_ISOLATED in port and port[_IFLA_BRPORT_ISOLATED][0] == 1,
        forwarding=_IFLA_BRPORT_STATE in port and port[_IFLA_BRPORT_STATE][0] == _BR_STATE_FORWARDING,
        ipv6=_has_ipv6(found.get(_IFLA_AF_SPEC)),
        traffic=_traffic(found.get(_IFLA_STATS64)),
    )


def address(payload: memoryview) -> Address:
    """Decode an address."""
    _, prefix, _, _, device = _IFADDR.unpack_from(payload)
    found = attributes(payload, _IFADDR.size)
    return Address(device, bytes(found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))), prefix)


def route(payload: memoryview) -> Route | None:
    """Decode a unicast route of the main table, None for any other."""
    family, prefix, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(payload)
    if kind != _RTN_UNICAST or table != _RT_TABLE_MAIN:
        return None
    found = attributes(payload, _RTMSG.size)
    return Route(
        family,
        bytes(found.get(_RTA_DST, b"")) if prefix else b"",
        prefix,
        bytes(found.get(_RTA_GATEWAY, b"")),
        _u32(found.get(_RTA_OIF)),
        _u32(found.get(_RTA_PRIORITY)),
    )


def neighbour(payload: memoryview) -> Neighbour | None:
    """Decode a permanent neighbour entry, None for any other."""
    _, device, state, _, _ = _NDMSG.unpack_from(payload)
    if not state & _NUD_PERMANENT:
        return None
    found = attributes(payload, _NDMSG.size)
    return Neighbour(device, bytes(found.get(_NDA_DST, b"")), bytes(found.get(_NDA_LLADDR, b"")))


def _ifinfo(flags: int = 0) -> bytes:
    return _IFINFO.pack(AF_UNSPEC, 0, 0, flags, flags)


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def _string(raw: memoryview | None) -> str:
    return "" if raw is None else bytes(raw).rstrip(b"\0").decode(errors="surrogateescape")


def _u32(raw: memoryview | None) -> int:
    return 0 if raw is None else int(_U32.unpack_from(raw)[0])


def _has_ipv6(raw: memoryview | None) -> bool:
    """Read disable_ipv6 from the device's settings; where they are not told, IPv6 is on."""
    families = attributes(raw) if raw is not None else {}
    settings = attributes(families[AF_INET6]).get(_IFLA_INET6_CONF) if AF_INET6 in families else None
    if settings is None or len(settings) < _DISABLE_IPV6 + 4:
        return True
    return not _u32(settings[_DISABLE_IPV6:])


def _traffic(raw: memoryview | None) -> Traffic:
    if raw is None:
        return Traffic()
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = _STATS64.unpack_from(raw)
    return Traffic(rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped)
