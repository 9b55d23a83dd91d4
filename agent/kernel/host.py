"""The host's side: bridges, their addresses, forwarding, the uplink. Done rarely, so by pyroute2."""

import errno
import socket
from collections.abc import Sequence
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.core.hostplan import (
    SETTINGS,
    AddBridgeAddress,
    AddBridgeRoute,
    HostSeen,
    HostStep,
    MakeBridge,
    SetBridge,
    WriteSetting,
    bridge_settings,
)
from agent.errors import KernelError
from agent.kernel import decode, messages, routing, sysctl
from agent.kernel.netlink import Netlink
from agent.kernel.reading import read_link
from agent.kernel.rtnetlink import AF_INET, AF_INET6
from agent.model import LINK_GROUP, Link, Network, Route, Uplink

_IFA_F_NODAD: Final = 0x02


def observe_host(netlink: Netlink, networks: Sequence[Network]) -> HostSeen:
    """Read what the host's side of the networks is. Raises KernelError."""
    families = (AF_INET, AF_INET6)
    decoded = (decode.route(each) for family in families for each in netlink.dump(routing.dump_routes(family)))
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


def apply_host(plan: Sequence[HostStep]) -> None:
    """Do the steps of a host plan. Raises KernelError."""
    with IPRoute() as route:
        for step in plan:
            try:
                _apply(route, step)
            except NetlinkError as error:
                raise KernelError(_told(step), error.code, str(error.args[1])) from error
            except OSError as error:
                # The bridge went while we worked on it.
                raise KernelError(_told(step), error.errno or 0) from error


def _apply(route: IPRoute, step: HostStep) -> None:
    match step:
        case MakeBridge(name, mac, mtu):
            route.link(
                "add", ifname=name, kind="bridge", address=mac.hex(":"), mtu=mtu,
                group=LINK_GROUP, br_forward_delay=0, br_stp_state=0, br_mcast_snooping=0,
            )  # fmt: skip
        case SetBridge(name, mac, mtu, alias):
            index = socket.if_nametoindex(name)
            route.link("set", index=index, address=mac.hex(":"), mtu=mtu, ifalias=alias)
            # The bridge is the router of its network: it listens to no router.
            sysctl.write(f"net/ipv6/conf/{name}/accept_ra", "0")
            route.link("set", index=index, state="up")
        case AddBridgeAddress(bridge, address):
            route.addr(
                "replace",
                index=socket.if_nametoindex(bridge),
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                flags=_IFA_F_NODAD,
            )
        case AddBridgeRoute(bridge, address):
            index = socket.if_nametoindex(bridge)
            request = routing.add_on_link_route(index, address.packed, address.network.prefixlen)
            with Netlink() as netlink:
                answer = netlink.ask(request)
            if answer.code not in {0, errno.EEXIST}:
                raise KernelError(request.what, answer.code, answer.detail)
        case WriteSetting(name, value):
            sysctl.write(name, value)


def _told(step: HostStep) -> str:
    match step:
        case MakeBridge(name):
            return f"make the bridge {name}"
        case SetBridge(name):
            return f"set up the bridge {name}"
        case AddBridgeAddress(bridge, address) | AddBridgeRoute(bridge, address):
            return f"give {bridge} the address or route of {address}"
        case WriteSetting(name, value):
            return f"write {value} to {name}"


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
