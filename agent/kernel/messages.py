"""Requests of the hot path in wire form."""

from agent.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    nested,
    number,
    text,
)
from agent.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IFA_ADDRESS,
    IFA_F_NODAD,
    IFA_FLAGS,
    IFA_LOCAL,
    IFADDR,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_BRPORT_ISOLATED,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INET6_ADDR_GEN_MODE,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_TARGET_NETNSID,
    IN6_ADDR_GEN_MODE_NONE,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NUD_PERMANENT,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_TABLE,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
    VETH_INFO_PEER,
)
from agent.model import LINK_GROUP, ROUTE_PROTOCOL


def get_link(name: str) -> Request:
    """Ask for one device by name; since Linux 6.8 this settles its carrier first (linkwatch)."""
    return Request(RTM_GETLINK, 0, _ifinfo() + text(IFLA_IFNAME, name), f"read device {name}")


def get_link_by_index(index: int) -> Request:
    """Ask for one device by number."""
    return Request(RTM_GETLINK, 0, IFINFO.pack(AF_UNSPEC, 0, index, 0, 0), f"read device {index}")


def get_link_inside(nsid: int, index: int) -> Request:
    """Ask for a device of another namespace, by the number the host knows that by."""
    body = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + number(IFLA_TARGET_NETNSID, nsid)
    return Request(RTM_GETLINK, 0, body, f"read device {index} of namespace {nsid}")


def dump_links() -> Request:
    """Ask for all devices."""
    return Request(RTM_GETLINK, 0, _ifinfo(), "list devices")


def create_pair(host_end: str, host_end_mac: bytes, device: str, mac: bytes, mtu: int, netns: int) -> Request:
    """Make a veth pair whose ``device`` end appears in the namespace of file descriptor ``netns``."""
    peer = (
        _ifinfo()
        + text(IFLA_IFNAME, device)
        + attribute(IFLA_ADDRESS, mac)
        + number(IFLA_MTU, mtu)
        + number(IFLA_NET_NS_FD, netns)
    )
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, host_end)
        + attribute(IFLA_ADDRESS, host_end_mac)
        + number(IFLA_MTU, mtu)
        + number(IFLA_GROUP, LINK_GROUP)
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, peer)),
        )
    )
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make the pair {host_end}, {device}")


def delete_link(name: str) -> Request:
    """Delete a device by name."""
    return Request(RTM_DELLINK, 0, _ifinfo() + text(IFLA_IFNAME, name), f"delete {name}")


def delete_group(group: int) -> Request:
    """Delete all devices of a group, at the price of one."""
    return Request(RTM_DELLINK, 0, _ifinfo() + number(IFLA_GROUP, group), f"delete link group {group}")


def set_group(name: str, group: int, alias: str) -> Request:
    """Put a device into a group and write its alias."""
    body = _ifinfo() + text(IFLA_IFNAME, name) + number(IFLA_GROUP, group) + attribute(IFLA_IFALIAS, alias.encode())
    return Request(RTM_NEWLINK, 0, body, f"set group {group} and the alias of {name}")


def mark_link(name: str, alias: str) -> Request:
    """Write alias and our group on a device."""
    return set_group(name, LINK_GROUP, alias)


def raise_link(name: str) -> Request:
    """Set a device up."""
    return Request(RTM_NEWLINK, 0, _ifinfo(IFF_UP) + text(IFLA_IFNAME, name), f"set {name} up")


def set_mac(name: str, mac: bytes) -> Request:
    """Set a device's MAC."""
    body = _ifinfo() + text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, mac)
    return Request(RTM_NEWLINK, 0, body, f"set the MAC of {name}")


def set_mtu(name: str, mtu: int) -> Request:
    """Set a device's MTU."""
    return Request(
        RTM_NEWLINK, 0, _ifinfo() + text(IFLA_IFNAME, name) + number(IFLA_MTU, mtu), f"set the MTU of {name} to {mtu}"
    )


def no_link_local(name: str) -> Request:
    """Keep the kernel from giving a device an IPv6 link-local address."""
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + nested(IFLA_AF_SPEC, nested(AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)))
    )
    return Request(RTM_NEWLINK, 0, body, f"turn link-local addresses off on {name}")


def join_bridge(name: str, bridge: int) -> Request:
    """Make a device a port of a bridge."""
    return Request(
        RTM_NEWLINK, 0, _ifinfo() + text(IFLA_IFNAME, name) + number(IFLA_MASTER, bridge), f"put {name} on the bridge"
    )


def set_isolated(name: str, isolated: bool) -> Request:
    """Set whether a bridge port reaches other isolated ports."""
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_ISOLATED, bytes([isolated]))),
        )
    )
    return Request(RTM_NEWLINK, 0, body, f"set isolation of {name}")


def dump_addresses() -> Request:
    """Ask for all addresses of both families."""
    return Request(RTM_GETADDR, 0, IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0), "list addresses")


def add_address(device: int, address: bytes, prefix: int) -> Request:
    """Add an address without duplicate address detection."""
    body = (
        IFADDR.pack(_family(address), prefix, 0, 0, device)
        + attribute(IFA_LOCAL, address)
        + attribute(IFA_ADDRESS, address)
        + number(IFA_FLAGS, IFA_F_NODAD)
    )
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, "add the address")


def dump_routes(family: int) -> Request:
    """Ask for the main table's routes of a family."""
    body = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0) + number(RTA_TABLE, RT_TABLE_MAIN)
    return Request(RTM_GETROUTE, 0, body, "list routes")


def add_default_route(device: int, family: int, gateway: bytes) -> Request:
    """Add a default route that bears our protocol number."""
    body = (
        RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
        + attribute(RTA_GATEWAY, gateway)
        + number(RTA_OIF, device)
    )
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, "add the default route")


def add_on_link_route(device: int, source: bytes, prefix: int) -> Request:
    """Add the route to a device's own subnet, the one of its address ``source``."""
    family = _family(source)
    bits = 8 * len(source)
    network = (int.from_bytes(source) >> (bits - prefix) << (bits - prefix)).to_bytes(len(source))
    body = (
        RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, 0)
        + attribute(RTA_DST, network)
        + number(RTA_OIF, device)
    )
    if family == AF_INET:
        body += attribute(RTA_PREFSRC, source)
    # Beside a route of somebody else's to the same subnet, not in its place.
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, body, "add the on-link route")


def find_route(destination: bytes) -> Request:
    """Ask which route a destination takes."""
    body = RTMSG.pack(_family(destination), 8 * len(destination), 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, destination)
    return Request(RTM_GETROUTE, 0, body, "find a route")


def dump_neighbours() -> Request:
    """Ask for all neighbour entries."""
    return Request(RTM_GETNEIGH, 0, NDMSG.pack(AF_UNSPEC, 0, 0, 0, 0), "list neighbours")


def get_neighbour(device: int, address: bytes) -> Request:
    """Ask for one neighbour entry."""
    body = NDMSG.pack(_family(address), device, 0, 0, 0) + attribute(NDA_DST, address)
    return Request(RTM_GETNEIGH, 0, body, "read a neighbour")


def add_neighbour(device: int, address: bytes, mac: bytes) -> Request:
    """Add a permanent neighbour entry."""
    body = (
        NDMSG.pack(_family(address), device, NUD_PERMANENT, 0, 0)
        + attribute(NDA_DST, address)
        + attribute(NDA_LLADDR, mac)
    )
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, "add the neighbour")


def delete_neighbour(device: int, address: bytes) -> Request:
    """Delete a neighbour entry."""
    body = NDMSG.pack(_family(address), device, 0, 0, 0) + attribute(NDA_DST, address)
    return Request(RTM_DELNEIGH, 0, body, "delete the neighbour")


def _ifinfo(flags: int = 0) -> bytes:
    return IFINFO.pack(AF_UNSPEC, 0, 0, flags, flags)


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6
