"""Requests about devices in wire form."""

from agent.kernel.rtnetlink import (
    AF_INET6,
    AF_UNSPEC,
    IFF_NOARP,
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
    NETNSA_FD,
    NETNSA_NSID,
    RTGENMSG,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_NEWNSID,
    VETH_INFO_PEER,
)
from agent.kernel.wire import NLM_F_CREATE, NLM_F_EXCL, Request, attribute, nested, number, text
from agent.model import LINK_GROUP


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


def create_pair(
    host_end: str, host_end_mac: bytes, device: str, mac: bytes, mtu: int, netns: int, arp: bool = True
) -> Request:
    """Make a veth pair whose ``device`` end appears in the namespace of file descriptor ``netns``.

    The host end neither asks nor answers by ARP without ``arp``.
    """
    peer = (
        _ifinfo()
        + text(IFLA_IFNAME, device)
        + attribute(IFLA_ADDRESS, mac)
        + number(IFLA_MTU, mtu)
        + number(IFLA_NET_NS_FD, netns)
    )
    body = (
        _ifinfo(0 if arp else IFF_NOARP)
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


def number_namespace(nsid: int, netns: int) -> Request:
    """Give the namespace of file descriptor ``netns`` a number by which this one knows it (nsid).

    It answers EEXIST where it has one, or another has this.
    """
    body = RTGENMSG + number(NETNSA_NSID, nsid) + number(NETNSA_FD, netns)
    return Request(RTM_NEWNSID, 0, body, "number the namespace")


def delete_link(name: str) -> Request:
    """Delete a device by name."""
    return Request(RTM_DELLINK, 0, _ifinfo() + text(IFLA_IFNAME, name), f"delete {name}")


def delete_device(index: int) -> Request:
    """Delete a device by its ifindex."""
    return Request(RTM_DELLINK, 0, _ifinfo(index=index), f"delete device {index}")


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


def raise_link_without_arp(name: str) -> Request:
    """Set a device up that neither asks nor answers by ARP."""
    return Request(RTM_NEWLINK, 0, _ifinfo(IFF_UP | IFF_NOARP) + text(IFLA_IFNAME, name), f"set {name} up")


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


def leave_bridge(name: str) -> Request:
    """Take a device off its bridge; off none is no error."""
    return Request(
        RTM_NEWLINK, 0, _ifinfo() + text(IFLA_IFNAME, name) + number(IFLA_MASTER, 0), f"take {name} off its bridge"
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


def _ifinfo(flags: int = 0, index: int = 0) -> bytes:
    return IFINFO.pack(AF_UNSPEC, 0, index, flags, flags)
