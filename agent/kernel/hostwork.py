"""Doing the steps of a host plan: rarely, and so by pyroute2."""

import errno
import socket
from collections.abc import Sequence
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.core.hostplan import AddBridgeAddress, AddBridgeRoute, HostStep, MakeBridge, SetBridge, WriteSetting, told
from agent.errors import KernelError
from agent.kernel import routing, sysctl
from agent.kernel.netlink import Netlink
from agent.model import LINK_GROUP

_IFA_F_NODAD: Final = 0x02


def apply_host(plan: Sequence[HostStep]) -> None:
    """Do the steps of a host plan. Raises KernelError."""
    with IPRoute() as route:
        for step in plan:
            try:
                _apply(route, step)
            except NetlinkError as error:
                raise KernelError(told(step), error.code, str(error.args[1])) from error
            except OSError as error:
                # The bridge went while we worked on it.
                raise KernelError(told(step), error.errno or 0) from error


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
