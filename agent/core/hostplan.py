"""What to do so that the host's side of all networks is what it should be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from agent.core.identity import bridge_alias, bridge_mac
from agent.core.plan import is_taken
from agent.errors import HostError
from agent.model import LINK_GROUP, Address, Bridge, Link, Network, Route, Uplink

FORWARDING: Final = "net/ipv4/ip_forward"
FORWARDING6: Final = "net/ipv6/conf/all/forwarding"
ACCOUNTING: Final = "net/netfilter/nf_conntrack_acct"
_PROXIES: Final = {
    "net/ipv4/conf/{}/proxy_arp": "1",
    "net/ipv4/neigh/{}/proxy_delay": "0",
    "net/ipv6/conf/{}/proxy_ndp": "1",
    "net/ipv6/neigh/{}/proxy_delay": "0",
}
SETTINGS: Final = (FORWARDING, FORWARDING6, ACCOUNTING)
_RESTORE: Final = " restore "
_DEFAULT_MTU: Final = 1500


@dataclass(frozen=True, slots=True)
class HostSeen:
    """What the kernel says of the host: devices by name, and settings by name (None: not there)."""

    bridges: Mapping[str, Link | None]
    addresses: frozenset[Address]
    routes: frozenset[Route]
    settings: Mapping[str, str | None]
    uplink: Uplink | None


@dataclass(frozen=True, slots=True)
class MakeBridge:
    """Make a bridge with its fixed MAC; spanning tree off, no forward delay."""

    name: str
    mac: bytes
    mtu: int
    drift = "bridge"


@dataclass(frozen=True, slots=True)
class SetBridge:
    """Put a bridge's MAC, MTU, alias right and set it up."""

    name: str
    mac: bytes
    mtu: int
    alias: str
    drift = "bridge"


@dataclass(frozen=True, slots=True)
class AddBridgeAddress:
    """Add a gateway address, usable at once."""

    bridge: str
    address: IPv4Interface | IPv6Interface
    drift = "address"


@dataclass(frozen=True, slots=True)
class AddBridgeRoute:
    """Add the route to a network's subnet."""

    bridge: str
    address: IPv4Interface | IPv6Interface
    drift = "route"


@dataclass(frozen=True, slots=True)
class WriteSetting:
    """Write a kernel setting."""

    name: str
    value: str
    drift = "sysctl"


HostStep = MakeBridge | SetBridge | AddBridgeAddress | AddBridgeRoute | WriteSetting


def told(step: HostStep) -> str:
    """Return what a step does, in words for a user."""
    match step:
        case MakeBridge(name):
            return f"make the bridge {name}"
        case SetBridge(name):
            return f"set up the bridge {name}"
        case AddBridgeAddress(bridge, address):
            return f"give {bridge} the address {address}"
        case AddBridgeRoute(bridge, address):
            return f"give {bridge} the route to {address.network}"
        case WriteSetting(name, value):
            return f"write {value} to {name}"


def bridge_settings(bridge: str) -> dict[str, str]:
    """Return the kernel settings of a bridge, which go with it: the host answers for those that it routes to."""
    return {name.format(bridge): value for name, value in _PROXIES.items()}


def host_plan(
    networks: Sequence[Network], seen: HostSeen, originals: Mapping[str, str], accounting: bool = False
) -> tuple[HostStep, ...]:
    """Return the steps from what is seen to what the networks need.

    ``originals`` are the settings as they were before vethd; they are written into the
    bridges' aliases, so that ``vethd down`` finds them with no file. Raises HostError for a
    device of a bridge's name that vethd did not make.
    """
    return (
        *(step for network in networks for step in _bridge(network, seen, originals)),
        *(step for network in networks for step in _bridge_settings(network, seen)),
        *_settings(needed_settings(networks, accounting), seen),
    )


def network_mtu(network: Network, uplink: Uplink | None) -> int:
    """Return the MTU of a network: its own, or the uplink's, or 1500 without an uplink."""
    return network.mtu or (uplink.mtu if uplink else _DEFAULT_MTU)


def bridge_of(network: Network, seen: HostSeen) -> Bridge | None:
    """Return what namespaces need to know of a network's bridge, None when it is not there."""
    link = seen.bridges.get(network.bridge)
    if link is None:
        return None
    gateways = tuple(each.packed for each in (network.gateway, network.gateway6) if each is not None)
    mtu = network_mtu(network, seen.uplink)
    return Bridge(link.name, link.index, bridge_mac(network.subnet), mtu, gateways)


def is_our_bridge(link: Link) -> bool:
    """Tell whether vethd made a bridge."""
    return link.kind == "bridge" and (link.alias.startswith(bridge_alias("")) or link.group == LINK_GROUP)


def originals_in(alias: str) -> dict[str, str]:
    """Read the original settings back from a bridge's alias."""
    _, found, listed = alias.partition(_RESTORE)
    pairs = (item.partition("=") for item in listed.split()) if found else ()
    return {name: value for name, _, value in pairs if name in SETTINGS}


def find_originals(networks: Sequence[Network], seen: HostSeen, accounting: bool = False) -> dict[str, str]:
    """Return the settings as they were before vethd: from its bridges, else as they are now."""
    kept: dict[str, str] = {}
    for link in seen.bridges.values():
        if link is not None and is_our_bridge(link):
            kept |= originals_in(link.alias)
    for name, value in needed_settings(networks, accounting).items():
        current = seen.settings.get(name)
        if current is not None and current != value:
            kept.setdefault(name, current)
    return kept


def needed_settings(networks: Sequence[Network], accounting: bool = False) -> dict[str, str]:
    """Return the kernel settings that the networks need, and conntrack's accounting if wanted."""
    needed = {FORWARDING: "1"}
    if accounting:
        needed[ACCOUNTING] = "1"
    if any(network.subnet6 for network in networks):
        needed[FORWARDING6] = "1"
    return needed


def conflicts(network: Network, seen: HostSeen) -> tuple[str, int] | None:
    """Return which subnet the host routes elsewhere and by which device, None when it does not."""
    bridge = seen.bridges.get(network.bridge)
    for subnet in (network.subnet, network.subnet6):
        if subnet is None:
            continue
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        for route in seen.routes:
            # Routes of our own lead to namespaces that are routed.
            if route.ours or not route.destination or len(route.destination) != len(subnet.network_address.packed):
                continue
            start = int.from_bytes(route.destination)
            end = start + (1 << (8 * len(route.destination) - route.prefix)) - 1
            if start <= last and end >= first and (bridge is None or route.device != bridge.index):
                return str(subnet), route.device
    return None


def _bridge(network: Network, seen: HostSeen, originals: Mapping[str, str]) -> Iterator[HostStep]:
    link = seen.bridges.get(network.bridge)
    mac = bridge_mac(network.subnet)
    mtu = network_mtu(network, seen.uplink)
    alias = _alias(network, originals)
    if link is None:
        yield MakeBridge(network.bridge, mac, mtu)
    elif not is_our_bridge(link) and not (link.kind == "bridge" and link.mac == mac):
        raise HostError(
            f"the host has a device {network.bridge} that vethd did not make; remove it"
            f" (ip link del {network.bridge}) or set network.{network.name}.bridge"
        )
    if link is None or link.mac != mac or link.mtu != mtu or link.alias != alias or not link.up:
        yield SetBridge(network.bridge, mac, mtu, alias)
    for address in (network.gateway, network.gateway6):
        if address is None:
            continue
        found = None if link is None else Address(link.index, address.packed, address.network.prefixlen)
        taken = found is not None and is_taken(found, seen.addresses)
        if found is None or (found not in seen.addresses and not taken):
            yield AddBridgeAddress(network.bridge, address)
        # Setting a bridge up brings the routes of its addresses back.
        elif link is not None and (link.up or taken) and not _is_routed(found, address, seen.routes):
            yield AddBridgeRoute(network.bridge, address)


def _is_routed(found: Address, address: IPv4Interface | IPv6Interface, routes: frozenset[Route]) -> bool:
    destination = address.network.network_address.packed
    return any(
        route.device == found.device and route.destination == destination and route.prefix == found.prefix
        for route in routes
    )


def _bridge_settings(network: Network, seen: HostSeen) -> Iterator[HostStep]:
    made = seen.bridges.get(network.bridge) is None
    for name, value in bridge_settings(network.bridge).items():
        if made or seen.settings.get(name) not in {value, None}:
            yield WriteSetting(name, value)


def _settings(needed: Mapping[str, str], seen: HostSeen) -> Iterator[HostStep]:
    for name, value in needed.items():
        if seen.settings.get(name) not in {value, None}:
            yield WriteSetting(name, value)


def _alias(network: Network, originals: Mapping[str, str]) -> str:
    alias = bridge_alias(network.name)
    if originals:
        alias += _RESTORE + " ".join(f"{name}={value}" for name, value in sorted(originals.items()))
    return alias
