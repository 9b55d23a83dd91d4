"""Requests about addresses, routes and neighbours in wire form."""

from agent.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IFA_ADDRESS,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFADDR,
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NDMSG,
    NTF_PROXY,
    NUD_PERMANENT,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_TABLE,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_F_FIB_MATCH,
    RTM_GETADDR,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTMSG,
    RTN_MULTICAST,
    RTN_UNICAST,
    RTNH_F_ONLINK,
)
from agent.kernel.wire import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request, attribute, number
from agent.model import ROUTE_PROTOCOL


def dump_addresses() -> Request:
    """Ask for all addresses of both families."""
    return Request(RTM_GETADDR, 0, IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0), "list addresses")


def add_address(device: int, address: bytes, prefix: int, routed: bool) -> Request:
    """Add an address without duplicate address detection; and without an on-link route where ``routed``."""
    body = (
        IFADDR.pack(_family(address), prefix, 0, 0, device)
        + attribute(IFA_LOCAL, address)
        + attribute(IFA_ADDRESS, address)
        + number(IFA_FLAGS, IFA_F_NODAD | (IFA_F_NOPREFIXROUTE if routed else 0))
    )
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, "add the address")


def dump_routes(family: int = AF_UNSPEC) -> Request:
    """Ask for the main table's routes of a family, or of all that the kernel has."""
    body = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0) + number(RTA_TABLE, RT_TABLE_MAIN)
    return Request(RTM_GETROUTE, 0, body, "list routes")


def add_default_route(device: int, family: int, gateway: bytes, routed: bool) -> Request:
    """Add a default route that bears our protocol number; no route leads to the gateway where ``routed``."""
    flags = RTNH_F_ONLINK if routed else 0
    body = (
        RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, flags)
        + attribute(RTA_GATEWAY, gateway)
        + number(RTA_OIF, device)
    )
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, "add the default route")


def add_on_link_route(device: int, source: bytes, prefix: int) -> Request:
    """Add the route to a device's own subnet, the one of its address ``source``."""
    family = _family(source)
    body = (
        RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, 0)
        + attribute(RTA_DST, _subnet(source, prefix))
        + number(RTA_OIF, device)
    )
    if family == AF_INET:
        body += attribute(RTA_PREFSRC, source)
    # Beside a route of somebody else's to the same subnet, not in its place.
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, body, "add the on-link route")


def add_subnet_route(device: int, source: bytes, prefix: int, gateway: bytes) -> Request:
    """Add the route by ``gateway``, to which no route leads, to the subnet of the address ``source``."""
    family = _family(source)
    body = (
        RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK)
        + attribute(RTA_DST, _subnet(source, prefix))
        + attribute(RTA_GATEWAY, gateway)
        + number(RTA_OIF, device)
    )
    if family == AF_INET:
        body += attribute(RTA_PREFSRC, source)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, body, "add the route to the subnet")


def add_host_route(device: int, address: bytes, source: bytes) -> Request:
    """Route one address to a device; the host itself sends there from ``source``."""
    family = _family(address)
    body = (
        RTMSG.pack(family, 8 * len(address), 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, 0)
        + attribute(RTA_DST, address)
        + attribute(RTA_PREFSRC, source)
        + number(RTA_OIF, device)
    )
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, "route the address to its host end")


def delete_multicast_route(device: int) -> Request:
    """Delete the IPv6 route of all multicast that the kernel makes for each device (addrconf_add_mroute)."""
    body = (
        RTMSG.pack(AF_INET6, 8, 0, 0, RT_TABLE_LOCAL, 0, 0, RTN_MULTICAST, 0)
        + attribute(RTA_DST, b"\xff".ljust(16, b"\0"))
        + number(RTA_OIF, device)
    )
    return Request(RTM_DELROUTE, 0, body, "delete the route of multicast")


def add_extra_route(device: int, destination: bytes, prefix: int, gateway: bytes, routed: bool) -> Request:
    """Add a route by a gateway, to which no route leads where ``routed``."""
    return Request(
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_EXCL,
        _extra_route(device, destination, prefix, gateway, RTNH_F_ONLINK if routed else 0),
        "add a route that was wished for",
    )


def delete_extra_route(device: int, destination: bytes, prefix: int, gateway: bytes) -> Request:
    """Delete such a route."""
    return Request(RTM_DELROUTE, 0, _extra_route(device, destination, prefix, gateway, 0), "delete a route")


def find_route_itself(destination: bytes) -> Request:
    """Ask which entry of the routing table a destination takes."""
    body = RTMSG.pack(_family(destination), 8 * len(destination), 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    return Request(RTM_GETROUTE, 0, body + attribute(RTA_DST, destination), "find a route")


def find_route(destination: bytes) -> Request:
    """Ask which route a destination takes."""
    body = RTMSG.pack(_family(destination), 8 * len(destination), 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, destination)
    return Request(RTM_GETROUTE, 0, body, "find a route")


def get_neighbour(device: int, address: bytes) -> Request:
    """Ask for one neighbour entry."""
    body = NDMSG.pack(_family(address), device, 0, 0, 0) + attribute(NDA_DST, address)
    return Request(RTM_GETNEIGH, 0, body, "read a neighbour")


def dump_neighbours(device: int, proxies: bool = False) -> Request:
    """Ask for all neighbour entries of a device, or for all that the host answers for there."""
    body = NDMSG.pack(AF_UNSPEC, 0, 0, NTF_PROXY if proxies else 0, 0) + number(NDA_IFINDEX, device)
    return Request(RTM_GETNEIGH, 0, body, "list neighbours")


def add_neighbour(device: int, address: bytes, mac: bytes) -> Request:
    """Add a permanent neighbour entry."""
    body = (
        NDMSG.pack(_family(address), device, NUD_PERMANENT, 0, 0)
        + attribute(NDA_DST, address)
        + attribute(NDA_LLADDR, mac)
    )
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, "add the neighbour")


def get_proxy(device: int, address: bytes) -> Request:
    """Ask whether the host answers for an address on a device."""
    return Request(RTM_GETNEIGH, 0, _proxy(device, address), "read a proxy entry")


def add_proxy(device: int, address: bytes) -> Request:
    """Have the host answer for an address on a device."""
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _proxy(device, address), "add the proxy entry")


def delete_proxy(device: int, address: bytes) -> Request:
    """End it."""
    return Request(RTM_DELNEIGH, 0, _proxy(device, address), "delete the proxy entry")


def delete_neighbour(device: int, address: bytes) -> Request:
    """Delete a neighbour entry."""
    body = NDMSG.pack(_family(address), device, 0, 0, 0) + attribute(NDA_DST, address)
    return Request(RTM_DELNEIGH, 0, body, "delete the neighbour")


def _extra_route(device: int, destination: bytes, prefix: int, gateway: bytes, flags: int) -> bytes:
    header = RTMSG.pack(
        _family(destination), prefix, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, flags
    )
    return header + attribute(RTA_DST, destination) + attribute(RTA_GATEWAY, gateway) + number(RTA_OIF, device)


def _proxy(device: int, address: bytes) -> bytes:
    return NDMSG.pack(_family(address), device, 0, NTF_PROXY, 0) + attribute(NDA_DST, address)


def _subnet(address: bytes, prefix: int) -> bytes:
    host_bits = 8 * len(address) - prefix
    return (int.from_bytes(address) >> host_bits << host_bits).to_bytes(len(address))


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6
