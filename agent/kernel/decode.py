"""What rtnetlink answers and tells, as values of the model.

A message that is shorter than the kernel makes it raises struct.error, and nothing else does.
"""

from typing import Final

from agent.kernel.layouts import Reader
from agent.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    BR_STATE_FORWARDING,
    DISABLE_IPV6,
    IF_OPER_UP,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDR,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_STATE,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INET6_CONF,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_OPERSTATE,
    IFLA_STATS64,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NUD_PERMANENT,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    RTMSG,
    RTMSG_TYPE,
    RTN_LOCAL,
    RTN_UNICAST,
    STATS64,
    U8,
    U32,
)
from agent.kernel.wire import attributes
from agent.model import ROUTE_PROTOCOL, Address, Link, Neighbour, Route, Traffic

_DEVICE: Final = Reader(
    (
        IFLA_IFNAME, IFLA_ADDRESS, IFLA_MTU, IFLA_OPERSTATE, IFLA_GROUP, IFLA_IFALIAS, IFLA_MASTER, IFLA_LINK,
        IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_STATS64,
    )
)  # fmt: skip
_INFO: Final = Reader((IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA))
_PORT: Final = Reader((IFLA_BRPORT_ISOLATED, IFLA_BRPORT_STATE))
_FAMILY_SETTINGS: Final = Reader((AF_INET6,))
_IPV6_SETTINGS: Final = Reader((IFLA_INET6_CONF,))

_FAMILIES: Final = {AF_INET, AF_INET6}


def link(payload: memoryview) -> Link:
    """Decode a device."""
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    found = _DEVICE.read(payload, IFINFO.size)
    info = _INFO.read(found[IFLA_LINKINFO]) if IFLA_LINKINFO in found else {}
    port = _PORT.read(info[IFLA_INFO_SLAVE_DATA]) if IFLA_INFO_SLAVE_DATA in info else {}
    return Link(
        index=index,
        name=_string(found.get(IFLA_IFNAME)),
        kind=_string(info.get(IFLA_INFO_KIND)),
        mac=bytes(found.get(IFLA_ADDRESS, b"")),
        mtu=_u32(found.get(IFLA_MTU)),
        up=bool(flags & IFF_UP),
        carrier=_u8(found.get(IFLA_OPERSTATE)) == IF_OPER_UP,
        group=_u32(found.get(IFLA_GROUP)),
        alias=_string(found.get(IFLA_IFALIAS)),
        master=_u32(found.get(IFLA_MASTER)),
        peer=_u32(found.get(IFLA_LINK)),
        peer_nsid=_u32(found[IFLA_LINK_NETNSID]) if IFLA_LINK_NETNSID in found else None,
        isolated=_u8(port.get(IFLA_BRPORT_ISOLATED)) == 1,
        forwarding=_u8(port.get(IFLA_BRPORT_STATE)) == BR_STATE_FORWARDING,
        ipv6=_has_ipv6(found.get(IFLA_AF_SPEC)),
        traffic=_traffic(found.get(IFLA_STATS64)),
    )


def address(payload: memoryview) -> Address:
    """Decode an address."""
    _, prefix, _, _, device = IFADDR.unpack_from(payload)
    found = attributes(payload, IFADDR.size)
    return Address(device, bytes(found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))), prefix)


def route(payload: memoryview) -> Route | None:
    """Decode a unicast route of the main table, of IPv4 or IPv6, None for any other."""
    family, prefix, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(payload)
    if kind != RTN_UNICAST or table != RT_TABLE_MAIN or family not in _FAMILIES:
        return None
    found = attributes(payload, RTMSG.size)
    return Route(
        family,
        bytes(found.get(RTA_DST, b"")) if prefix else b"",
        prefix,
        bytes(found.get(RTA_GATEWAY, b"")),
        _u32(found.get(RTA_OIF)),
        _u32(found.get(RTA_PRIORITY)),
        protocol == ROUTE_PROTOCOL,
    )


def is_host_route_of_ours(payload: memoryview) -> bool:
    """Tell by its header alone whether a route leads to one address and is ours: of these there may be thousands."""
    family, prefix, _, _, _, protocol, _, _, _ = RTMSG.unpack_from(payload)
    return bool(protocol == ROUTE_PROTOCOL and prefix == (32 if family == AF_INET else 128))


def neighbour(payload: memoryview) -> Neighbour | None:
    """Decode a permanent neighbour entry, None for any other."""
    _, device, state, _, _ = NDMSG.unpack_from(payload)
    if not state & NUD_PERMANENT:
        return None
    found = attributes(payload, NDMSG.size)
    return Neighbour(device, bytes(found.get(NDA_DST, b"")), bytes(found.get(NDA_LLADDR, b"")))


def is_local_route(payload: memoryview) -> bool:
    """Tell whether a route leads to the namespace itself."""
    return bool(RTMSG.unpack_from(payload)[RTMSG_TYPE] == RTN_LOCAL)


def _string(raw: memoryview | None) -> str:
    return "" if raw is None else bytes(raw).rstrip(b"\0").decode(errors="surrogateescape")


def _u8(raw: memoryview | None) -> int:
    return 0 if raw is None else int(U8.unpack_from(raw)[0])


def _u32(raw: memoryview | None) -> int:
    return 0 if raw is None else int(U32.unpack_from(raw)[0])


def _has_ipv6(raw: memoryview | None) -> bool:
    """Read disable_ipv6 from the device's settings; where they are not told, IPv6 is on."""
    families = _FAMILY_SETTINGS.read(raw) if raw is not None else {}
    settings = _IPV6_SETTINGS.read(families[AF_INET6]).get(IFLA_INET6_CONF) if AF_INET6 in families else None
    if settings is None or len(settings) < DISABLE_IPV6 + 4:
        return True
    return not _u32(settings[DISABLE_IPV6:])


def _traffic(raw: memoryview | None) -> Traffic:
    if raw is None:
        return Traffic()
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = STATS64.unpack_from(raw)
    return Traffic(rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped)
