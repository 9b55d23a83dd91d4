"""What to do so that one namespace becomes what it should be.

``plan`` is the one place that decides: making, repairing, adopting after a restart and
taking down are all the difference between an ``Attachment`` (or None) and what was
observed. Applying the steps in order and planning again yields no steps.

The order is that of the first packet: the pair is up and its carrier known to the kernel
before the host end joins the bridge, neighbours are told in advance, and the default
routes come last, so whoever sees one can use it.
"""

from collections.abc import Iterator

from agent.core import steps
from agent.core.identity import alias_of, host_end_mac, host_end_name, is_ours, netns_mac, printable
from agent.core.steps import Step
from agent.errors import ForeignDevice
from agent.model import LINK_GROUP, Address, Attachment, Inside, Link, Neighbour, Observed, Route

AF_INET = 2
AF_INET6 = 10
IPV6_BYTES = 16
_LOOPBACK = "lo"


def plan(desired: Attachment | None, seen: Observed) -> tuple[Step, ...]:
    """Return the steps from what is seen to what is desired; none when they agree.

    Raises ForeignDevice when a device that is not ours has the name of ours.
    """
    if desired is None:
        return tuple(_take_down(seen))
    _refuse_foreign_devices(desired, seen)
    return tuple(_attach(desired, seen))


def our_link(seen: Observed) -> Link | None:
    """Return our end inside the namespace: the two ends name each other, wherever they are called."""
    host = seen.host_end
    if host is None or seen.inside is None or not is_ours(host):
        return None
    for link in seen.inside.links:
        if link.kind == "veth" and link.index == host.peer and link.peer == host.index:
            return link
    return None


def remarks(desired: Attachment, seen: Observed) -> tuple[str, ...]:
    """Return what is unusual inside but not ours to change."""
    link = our_link(seen)
    if link is None or seen.inside is None:
        return ()
    return tuple(
        f"somebody else's default route by device {route.device} is left alone"
        for route in sorted(seen.inside.routes, key=lambda route: (route.family, route.metric, route.device))
        if not route.destination and not (route.device == link.index and route.gateway in desired.bridge.gateways)
    )


def is_taken(wanted: Address, present: frozenset[Address]) -> bool:
    """Tell whether somebody gave a device our IPv6 address with another prefix.

    The kernel holds an address once only, whatever its prefix (net/ipv6/addrconf.c), so ours cannot
    be added; the on-link route makes up for it.
    """
    return len(wanted.address) == IPV6_BYTES and any(
        (each.device, each.address) == (wanted.device, wanted.address) and each.prefix != wanted.prefix
        for each in present
    )


def _refuse_foreign_devices(desired: Attachment, seen: Observed) -> None:
    host = seen.host_end
    if host is not None and not is_ours(host):
        raise ForeignDevice(
            f"{printable(desired.name)}: the host has a device {host.name} that vethd did not make;"
            f" rename or remove it: ip link del {host.name}"
        )
    if _fitting_pair(desired, seen) is None and seen.inside is not None:
        ours = our_link(seen)
        for link in seen.inside.links:
            if link.name == desired.network.interface and link is not ours:
                raise ForeignDevice(
                    f"{printable(desired.name)}: has a device {link.name} that vethd did not make;"
                    f" rename it or set network.{desired.network.name}.interface"
                )


def _fitting_pair(desired: Attachment, seen: Observed) -> tuple[Link, Link] | None:
    """Return host end and device when both are where they belong and were made for this lease."""
    host, link = seen.host_end, our_link(seen)
    if host is None or link is None or host.mac != host_end_mac(desired.lease):
        return None
    return host, link


def _attach(desired: Attachment, seen: Observed) -> Iterator[Step]:
    pair = _fitting_pair(desired, seen)
    host, link = pair or (None, None)
    name = host_end_name(desired.cookie)
    if pair is None:
        if seen.host_end is not None:
            yield steps.DeletePair(name)
        yield _create(desired, name)
    yield from _host_end(desired, name, host)
    yield from _inside(desired, link, seen.inside)
    yield from (_routed if desired.lease.routed else _port)(desired, name, host, seen)
    if desired.exempt != seen.exempt:
        yield steps.Exempt(desired.lease, desired.exempt)
    yield from _extra_routes(desired, link, seen.inside)
    yield from _default_routes(desired, link, seen.inside)


def _create(desired: Attachment, name: str) -> Step:
    return steps.CreatePair(
        host_end=name,
        host_end_mac=host_end_mac(desired.lease),
        device=desired.network.interface,
        mac=netns_mac(desired.lease.address),
        mtu=desired.bridge.mtu,
        arp=not desired.lease.routed,
    )


def _host_end(desired: Attachment, name: str, host: Link | None) -> Iterator[Step]:
    alias = alias_of(desired.name)
    raised = host is None or _must_rise(desired, host)
    if host is None or host.alias != alias or host.group != LINK_GROUP:
        yield steps.MarkHostEnd(name, alias)
    if raised and not desired.lease.routed:
        yield steps.QuietHostEnd(name)
    if raised:
        yield steps.RaiseRoutedHostEnd(name) if desired.lease.routed else steps.RaiseHostEnd(name)
    if host is not None and host.mtu != desired.bridge.mtu:
        yield steps.SetHostEndMtu(name, desired.bridge.mtu)


def _inside(desired: Attachment, link: Link | None, inside: Inside | None) -> Iterator[Step]:
    device = desired.network.interface if link is None else link.name
    loopback = next((each for each in inside.links if each.name == _LOOPBACK), None) if inside else None
    if loopback is not None and not loopback.up:
        yield steps.RaiseLoopback()
    if link is not None and link.mtu != desired.bridge.mtu:
        # First of all: below IPv6's least MTU the kernel takes no IPv6 setting of the device.
        yield steps.SetDeviceMtu(device, desired.bridge.mtu)
    mac = netns_mac(desired.lease.address)
    # A device that changes its MAC loses its neighbours.
    forgetful = link is not None and link.mac != mac
    if forgetful:
        yield steps.SetDeviceMac(device, mac)
    raised = link is None or not link.up
    if raised:
        yield steps.RaiseDevice(device)
    if raised or (link is not None and not link.carrier):
        yield steps.AwaitDevice(device)
    for address, prefix in _addresses(desired, link, inside):
        found = None if link is None else Address(link.index, address, prefix)
        if _is_missing(found, link, inside):
            yield steps.AddAddress(device, address, prefix, desired.lease.routed)
        elif desired.lease.routed or link is None or inside is None:
            continue
        elif raised or not _has_route(inside, link.index, address, prefix, b""):
            yield steps.AddOnLinkRoute(device, address, prefix)
    gateway_mac = host_end_mac(desired.lease) if desired.lease.routed else desired.bridge.mac
    for gateway in _gateways(desired, link, inside):
        if (
            link is None
            or inside is None
            or raised
            or forgetful
            or Neighbour(link.index, gateway, gateway_mac) not in inside.neighbours
        ):
            yield steps.AddGatewayNeighbour(device, gateway, gateway_mac)


def _port(desired: Attachment, name: str, host: Link | None, seen: Observed) -> Iterator[Step]:
    join = host is None or host.master != desired.bridge.index or not host.up
    if join or (host is not None and not host.carrier):
        yield steps.AwaitHostEnd(name)
    if join and desired.network.anti_spoof:
        yield steps.Admit(name, desired.lease, seen.new)
    for address, _ in desired.addresses:
        if address not in seen.host_neighbours:
            yield steps.AddHostNeighbour(desired.bridge.index, address, netns_mac(desired.lease.address))
    if join:
        yield steps.JoinBridge(name, desired.bridge.index)
    isolated = host is not None and host.master == desired.bridge.index and host.isolated
    if isolated != desired.network.isolate:
        yield steps.SetIsolated(name, desired.network.isolate)
    if join:
        yield steps.AwaitBridge(desired.bridge.name)


def _routed(desired: Attachment, name: str, host: Link | None, seen: Observed) -> Iterator[Step]:
    raised = host is None or _must_rise(desired, host)
    if host is not None and host.master:
        yield steps.LeaveBridge(name)
    is_routed_to = seen.host_routes.issuperset(address for address, _ in desired.addresses)
    if host is None or raised or not host.carrier or not is_routed_to:
        yield steps.AwaitHostEnd(name)
        if desired.network.anti_spoof:
            yield steps.Admit(name, desired.lease, seen.new)
    for address, _ in desired.addresses:
        # A device that is set down loses both.
        if raised or address not in seen.host_neighbours:
            yield steps.AddRoutedNeighbour(name, address, netns_mac(desired.lease.address))
        if raised or address not in seen.host_routes:
            yield steps.AddHostRoute(name, address, _same_family(desired.bridge.gateways, address))
        if len(address) == IPV6_BYTES and address not in seen.proxied:
            yield steps.AddProxy(desired.bridge.index, address)


def _extra_routes(desired: Attachment, link: Link | None, inside: Inside | None) -> Iterator[Step]:
    device = desired.network.interface if link is None else link.name
    ipv6 = _has_ipv6(link, inside)
    wanted = [each for each in desired.extra if ipv6 or len(each[0]) != IPV6_BYTES]
    present = [] if link is None or inside is None else [each for each in inside.routes if each.device == link.index]
    subnets = {(_network_of(address, prefix), prefix) for address, prefix in desired.addresses}
    there = set()
    for route in present:
        found = (route.destination, route.prefix, route.gateway)
        if link is not None and link.up:
            there.add(found)
        if route.ours and route.destination and found[:2] not in subnets and found not in wanted:
            yield steps.RemoveExtraRoute(device, *found)
    for destination, prefix, gateway in wanted:
        if (destination, prefix, gateway) not in there:
            yield steps.AddExtraRoute(device, destination, prefix, gateway, desired.lease.routed)


def _default_routes(desired: Attachment, link: Link | None, inside: Inside | None) -> Iterator[Step]:
    lost = link is None or inside is None or not link.up
    device = desired.network.interface if link is None else link.name
    wanted = [gateway for gateway in _gateways(desired, link, inside) if _lacks_default(gateway, link, inside)]
    for address, prefix in _addresses(desired, link, inside):
        found = None if link is None else Address(link.index, address, prefix)
        # Without a default route nobody has waited for the address to the end.
        awaited = not _is_missing(found, link, inside) and _same_family(desired.bridge.gateways, address) not in wanted
        if len(address) == IPV6_BYTES and not awaited:
            yield steps.AwaitAddress(address)
    if desired.lease.routed:
        for address, prefix in _addresses(desired, link, inside):
            gateway = _same_family(desired.bridge.gateways, address)
            if lost or link is None or inside is None or not _has_route(inside, link.index, address, prefix, gateway):
                yield steps.AddSubnetRoute(device, address, prefix, gateway)
    # IPv4 comes last: it is what most people wait for.
    for gateway in reversed(wanted):
        family = AF_INET6 if len(gateway) == IPV6_BYTES else AF_INET
        yield steps.AddDefaultRoute(device, family, gateway, desired.lease.routed)


def _lacks_default(gateway: bytes, link: Link | None, inside: Inside | None) -> bool:
    """Tell whether the default route by a gateway is missing, and nobody else's is in its place."""
    if link is None or inside is None or not link.up:
        return True
    family = AF_INET6 if len(gateway) == IPV6_BYTES else AF_INET
    present = [route for route in inside.routes if route.family == family and not route.destination]
    ours = [route for route in present if _is_our_default(route, link, gateway)]
    return not ours and not any(route.metric == _metric(family) for route in present)


def _must_rise(desired: Attachment, host: Link) -> bool:
    """Tell whether a host end must be set up: again, too, when somebody took IPv6 from one that needs it."""
    return not host.up or (desired.lease.routed and not host.ipv6)


def _same_family(gateways: tuple[bytes, ...], address: bytes) -> bytes:
    return next(gateway for gateway in gateways if len(gateway) == len(address))


def _addresses(desired: Attachment, link: Link | None, inside: Inside | None) -> tuple[tuple[bytes, int], ...]:
    """Return the addresses that the device can have: no IPv6 ones where IPv6 is turned off inside."""
    ipv6 = _has_ipv6(link, inside)
    return tuple(each for each in desired.addresses if ipv6 or len(each[0]) != IPV6_BYTES)


def _gateways(desired: Attachment, link: Link | None, inside: Inside | None) -> tuple[bytes, ...]:
    ipv6 = _has_ipv6(link, inside)
    return tuple(gateway for gateway in desired.bridge.gateways if ipv6 or len(gateway) != IPV6_BYTES)


def _has_ipv6(link: Link | None, inside: Inside | None) -> bool:
    """Tell whether the device has IPv6; one that is not made yet will be as the loopback is."""
    if link is None and inside is not None:
        link = next((each for each in inside.links if each.name == _LOOPBACK), None)
    return link is None or link.ipv6


def _is_missing(found: Address | None, link: Link | None, inside: Inside | None) -> bool:
    if found is None or link is None or inside is None:
        return True
    # Taking a device down drops its IPv6 addresses; adding what is there does no harm.
    return (not link.up or found not in inside.addresses) and not is_taken(found, inside.addresses)


def _is_our_default(route: Route, link: Link, gateway: bytes) -> bool:
    return route.device == link.index and route.gateway == gateway


def _metric(family: int) -> int:
    # The kernel gives an IPv6 route without a metric 1024 (include/uapi/linux/ipv6_route.h).
    return 1024 if family == AF_INET6 else 0


def _has_route(inside: Inside, device: int, address: bytes, prefix: int, gateway: bytes) -> bool:
    """Tell whether there is a route to the subnet of an address."""
    subnet = _network_of(address, prefix)
    return any(
        (route.device, route.prefix, route.gateway, route.destination) == (device, prefix, gateway, subnet)
        for route in inside.routes
    )


def _network_of(address: bytes, prefix: int) -> bytes:
    host_bits = 8 * len(address) - prefix
    return (int.from_bytes(address) >> host_bits << host_bits).to_bytes(len(address))


def _take_down(seen: Observed) -> Iterator[Step]:
    if seen.host_end is not None and is_ours(seen.host_end):
        yield steps.DeletePair(seen.host_end.name)
