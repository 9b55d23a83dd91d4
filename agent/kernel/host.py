"""What the host's side is: bridges, their addresses, forwarding, the uplink."""

import socket
from collections.abc import Sequence

from agent.core.hostplan import SETTINGS, HostSeen, bridge_settings
from agent.kernel import decode, messages, routing, sysctl
from agent.kernel.netlink import Netlink
from agent.kernel.reading import read_link
from agent.model import Link, Network, Route, Uplink


def observe_host(netlink: Netlink, networks: Sequence[Network]) -> HostSeen:
    """Read what the host's side of the networks is, without the routes to namespaces. Raises KernelError."""
    told = netlink.dump(routing.dump_routes())
    decoded = (decode.route(payload) for payload in told if not decode.is_host_route_of_ours(payload))
    routes = frozenset(route for route in decoded if route is not None)
    return HostSeen(
        bridges={network.bridge: read_link(netlink, network.bridge) for network in networks},
        addresses=frozenset(decode.address(each) for each in netlink.dump(routing.dump_addresses())),
        routes=routes,
        settings={
            name: sysctl.read(name)
            for name in (*SETTINGS, *(name for network in networks for name in bridge_settings(network.bridge)))
        },
        uplink=_uplink(netlink, routes),
    )


def host_links(netlink: Netlink) -> list[Link]:
    """Read all devices of the host in one dump."""
    return [decode.link(payload) for payload in netlink.dump(messages.dump_links())]


def device_name(index: int) -> str:
    """Return the name of a device of the host, its number when it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _uplink(netlink: Netlink, routes: frozenset[Route]) -> Uplink | None:
    defaults = [route for route in routes if not route.destination and route.device]
    if not defaults:
        return None
    best = min(defaults, key=lambda route: (route.family, route.metric, route.device))
    answer = netlink.ask(messages.get_link_by_index(best.device))
    if answer.code:
        return None
    link = decode.link(answer.replies[0])
    return Uplink(link.name, link.index, link.mtu)
