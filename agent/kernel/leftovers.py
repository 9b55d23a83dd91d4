"""What namespaces leave behind that went while no agent was there: entries that no device takes along.

Only addresses of our subnets that nobody holds are concerned, and of neighbour entries those
with a MAC of ours.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from agent.core.identity import netns_mac
from agent.errors import KernelError
from agent.kernel import conntrack, decode, routing
from agent.kernel.elements import delete_all
from agent.kernel.netlink import Netlink
from agent.kernel.openings import OpeningsReader, openings_elements
from agent.kernel.rtnetlink import NDA_DST, NDMSG
from agent.kernel.wire import Request, attributes
from agent.model import Bridge, Lease, Network

IsHeld = Callable[[bytes], bool]
"""Tells whether a namespace holds an address; may be called from any thread."""

_IPV4_BYTES: Final = 4
_FIRST_LEASED: Final = 2


def sweep_bridges(netlink: Netlink, networks: Sequence[Network], bridges: Mapping[str, Bridge], is_held: IsHeld) -> int:
    """Delete neighbour and proxy entries; return how many. Raises KernelError."""
    requests = [
        request
        for network in networks
        if network.name in bridges
        for request in _stale(netlink, network, bridges[network.name].index, is_held)
    ]
    for request, answer in zip(requests, netlink.exchange(requests), strict=True):
        if answer.code not in {0, errno.ENOENT}:
            raise KernelError(request.what, answer.code, answer.detail)
    return len(requests)


def sweep_connections(netfilter: Netlink, networks: Sequence[Network], is_held: IsHeld) -> int:
    """Delete conntrack's entries, and counts of connections; return how many. Raises KernelError.

    ``netfilter`` is one of the sockets by which the agent changes its sets: another's doing would be undone.
    """

    is_leasable = _leasable(networks)

    def is_doomed(address: bytes) -> bool:
        return not is_held(address) and is_leasable(address)

    openings = OpeningsReader().read(netfilter)
    counted = [address for address in {*openings.opened, *openings.accepted} if is_doomed(address)]
    delete_all(netfilter, openings_elements(counted))
    return len(counted) + conntrack.forget_if(is_doomed, [_common_bytes(subnet) for subnet in _subnets(networks)])


def forget_untranslated(networks: Sequence[Network], plain: Sequence[Lease]) -> int:
    """Delete connections that were begun while there were no rules; return how many. Raises KernelError.

    ``plain`` are leases whose packets are not to be translated.
    """
    translated = [network for network in networks if network.nat]
    exempt = {each.packed for lease in plain for each in (lease.address, lease.address6) if each is not None}

    is_leasable = _leasable(translated)

    def is_translated(address: bytes) -> bool:
        return address not in exempt and is_leasable(address)

    return conntrack.forget_untranslated(is_translated, [_common_bytes(subnet) for subnet in _subnets(translated)])


def _stale(netlink: Netlink, network: Network, bridge: int, is_held: IsHeld) -> list[Request]:
    is_leasable = _leasable([network])

    def is_free(address: bytes) -> bool:
        return not is_held(address) and is_leasable(address)

    told = (decode.neighbour(payload) for payload in netlink.dump(routing.dump_neighbours(bridge)))
    doomed = [
        routing.delete_neighbour(bridge, each.address)
        for each in told
        if each is not None and is_free(each.address) and each.mac == _mac(network, each.address)
    ]
    proxied = (
        bytes(attributes(payload, NDMSG.size).get(NDA_DST, b""))
        for payload in netlink.dump(routing.dump_neighbours(bridge, proxies=True))
    )
    return doomed + [routing.delete_proxy(bridge, address) for address in proxied if is_free(address)]


def _mac(network: Network, address: bytes) -> bytes:
    subnet = network.subnet if len(address) == _IPV4_BYTES else network.subnet6
    index = int.from_bytes(address) - int(subnet.network_address) if subnet else 0
    return netns_mac(network.subnet.network_address + index)


def _leasable(networks: Sequence[Network]) -> Callable[[bytes], bool]:
    """Return what tells whether a network may lease an address; fast, since it is asked of thousands."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for network in networks:
        for subnet in _subnets([network]):
            first = int(subnet.network_address) + _FIRST_LEASED
            spans.setdefault(subnet.max_prefixlen // 8, []).append((first, first + network.capacity))
    return lambda address: any(first <= int.from_bytes(address) < end for first, end in spans.get(len(address), ()))


def _subnets(networks: Sequence[Network]) -> list[IPv4Network | IPv6Network]:
    return [subnet for network in networks for subnet in (network.subnet, network.subnet6) if subnet is not None]


def _common_bytes(subnet: IPv4Network | IPv6Network) -> bytes:
    """Return the bytes with which all addresses of a subnet begin."""
    return subnet.network_address.packed[: subnet.prefixlen // 8]
