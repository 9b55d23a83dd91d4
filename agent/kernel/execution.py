"""Doing the steps of a plan."""

import errno
from collections.abc import Callable, Sequence
from typing import Final

from agent.core import steps
from agent.core.plan import IPV6_BYTES
from agent.core.steps import Step
from agent.errors import KernelError
from agent.kernel import messages, routing
from agent.kernel.awaiting import await_carrier, await_local_address
from agent.kernel.members import Members
from agent.kernel.namespaces import Handle
from agent.kernel.netlink import Netlink
from agent.kernel.numbers import Numbers
from agent.kernel.reading import check, read_link
from agent.kernel.sysctl import Ipv6Devices
from agent.kernel.wire import Request
from agent.model import Link

# What follows these depends on their having succeeded, or they are no requests.
_ALONE: Final = (
    steps.DeletePair,
    steps.QuietHostEnd,
    steps.RaiseRoutedHostEnd,
    steps.Admit,
    steps.Exempt,
    steps.AwaitDevice,
    steps.AwaitHostEnd,
    steps.AwaitBridge,
    steps.AwaitAddress,
)
# EAFNOSUPPORT: a kernel that was booted without IPv6 has no link-local addresses to turn off.
# ESRCH: a route to be removed is gone.
_FINE: Final = {0, errno.EEXIST, errno.EAFNOSUPPORT, errno.ESRCH}
_GONE_IS_FINE: Final = {0, errno.ENODEV}


class Run:
    """One run over a plan: neighbouring steps of one side travel in one message."""

    def __init__(
        self,
        netlink: Netlink,
        members: Members,
        numbers: Numbers,
        ipv6_devices: Ipv6Devices,
        handle: Handle,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self._netlink = netlink
        self._members = members
        self._numbers = numbers
        self._ipv6_devices = ipv6_devices
        self._handle = handle
        self._on_step = on_step
        self._indexes: dict[str, int] = {}
        self._host_end: Link | None = None
        self.surprise: KernelError | None = None

    def do(self, plan: Sequence[Step]) -> Link | None:
        batch: list[Step] = []
        for step in plan:
            if batch and (step.side != batch[0].side or self._stands_alone(step)):
                self._send(batch)
                batch = []
            batch.append(step)
            if self._stands_alone(step):
                self._send(batch)
                batch = []
        if batch:
            self._send(batch)
        return self._host_end

    def _stands_alone(self, step: Step) -> bool:
        """Tell whether what follows a step depends on its having succeeded."""
        if self._on_step is not None:
            return True
        return isinstance(step, _ALONE)

    def _send(self, batch: Sequence[Step]) -> None:
        match batch[0]:
            case steps.CreatePair():
                self._numbers.give(self._netlink, self._handle.descriptor)
                self._request(batch)
            case steps.QuietHostEnd(host_end):
                self._ipv6_devices.write(host_end, "disable_ipv6", "1")
            case steps.RaiseRoutedHostEnd(host_end):
                self._ipv6_devices.write(host_end, "disable_ipv6", "0")
                self._exchange([messages.no_link_local(host_end), messages.raise_link_without_arp(host_end)], _FINE)
            case steps.Admit(host_end, lease, new):
                self._members.admit((host_end, lease), new=new)
            case steps.Exempt(lease, exempt):
                self._members.exempt(lease, exempt)
            case steps.AwaitDevice(device):
                self._indexes[device] = self._await(self._handle.netlink, device, self._handle.open_socket).index
            case steps.AwaitHostEnd(host_end):
                self._host_end = self._await(self._netlink, host_end, Netlink)
            case steps.AwaitBridge(bridge):
                self._await(self._netlink, bridge, Netlink)
            case steps.AwaitAddress(address):
                await_local_address(self._handle.netlink, address, self._handle.open_socket)
            case _:
                self._request(batch)
        if self._on_step is not None:
            for step in batch:
                self._on_step(step)

    def _request(self, batch: Sequence[Step]) -> None:
        requests = [request for step in batch for request in self._requests(step)]
        fine = _GONE_IS_FINE if isinstance(batch[0], steps.DeletePair) else _FINE
        self._exchange(requests, fine, inside=batch[0].side == "inside")

    def _exchange(self, requests: Sequence[Request], fine: set[int], inside: bool = False) -> None:
        netlink = self._handle.netlink if inside else self._netlink
        for request, answer in zip(requests, netlink.exchange(requests), strict=True):
            check(request, answer, fine)
            if answer.code == errno.EEXIST:
                self.surprise = KernelError(request.what, answer.code, answer.detail)

    def _await(self, netlink: Netlink, device: str, open_socket: Callable[[], Netlink]) -> Link:
        def ask() -> Link:
            link = read_link(netlink, device)
            if link is None:
                raise KernelError(f"wait for the carrier of {device}", errno.ENODEV)
            return link

        return await_carrier(ask, open_socket)

    def _requests(self, step: Step) -> list[Request]:
        match step:
            case steps.CreatePair(host_end, host_end_mac, device, mac, mtu, arp):
                return [messages.create_pair(host_end, host_end_mac, device, mac, mtu, self._handle.descriptor, arp)]
            case steps.DeletePair(host_end):
                return [messages.delete_link(host_end)]
            case steps.MarkHostEnd(host_end, alias):
                return [messages.mark_link(host_end, alias)]
            case steps.RaiseHostEnd(host_end):
                return [messages.raise_link(host_end)]
            case steps.SetDeviceMac(device, mac):
                return [messages.set_mac(device, mac)]
            case steps.SetHostEndMtu(device, mtu) | steps.SetDeviceMtu(device, mtu):
                return [messages.set_mtu(device, mtu)]
            case steps.JoinBridge(host_end, bridge):
                return [messages.join_bridge(host_end, bridge)]
            case steps.SetIsolated(host_end, isolated):
                return [messages.set_isolated(host_end, isolated)]
            case steps.AddHostNeighbour(bridge, address, mac):
                return [routing.add_neighbour(bridge, address, mac)]
            case steps.LeaveBridge(host_end):
                return [messages.leave_bridge(host_end)]
            case steps.AddRoutedNeighbour(host_end, address, mac):
                return [routing.add_neighbour(self._host_index(host_end), address, mac)]
            case steps.AddHostRoute(host_end, address, source):
                index = self._host_index(host_end)
                route = routing.add_host_route(index, address, source)
                return [routing.delete_multicast_route(index), route] if len(address) == IPV6_BYTES else [route]
            case steps.AddProxy(bridge, address):
                return [routing.add_proxy(bridge, address)]
            case steps.RaiseLoopback():
                return [messages.raise_link("lo")]
            case steps.RaiseDevice(device):
                return [messages.no_link_local(device), messages.raise_link(device)]
            case steps.AddAddress(device, address, prefix, routed):
                return [routing.add_address(self._index(device), address, prefix, routed)]
            case steps.AddOnLinkRoute(device, address, prefix):
                return [routing.add_on_link_route(self._index(device), address, prefix)]
            case steps.AddGatewayNeighbour(device, address, mac):
                return [routing.add_neighbour(self._index(device), address, mac)]
            case steps.AddSubnetRoute(device, address, prefix, gateway):
                return [routing.add_subnet_route(self._index(device), address, prefix, gateway)]
            case steps.AddExtraRoute(device, destination, prefix, gateway, routed):
                return [routing.add_extra_route(self._index(device), destination, prefix, gateway, routed)]
            case steps.RemoveExtraRoute(device, destination, prefix, gateway):
                return [routing.delete_extra_route(self._index(device), destination, prefix, gateway)]
            case steps.AddDefaultRoute(device, family, gateway, routed):
                return [routing.add_default_route(self._index(device), family, gateway, routed)]
            case _:
                raise NotImplementedError(step)

    def _host_index(self, host_end: str) -> int:
        if self._host_end is None:
            self._host_end = read_link(self._netlink, host_end)
        if self._host_end is None:
            raise KernelError(f"find {host_end}", errno.ENODEV)
        return self._host_end.index

    def _index(self, device: str) -> int:
        if device not in self._indexes:
            link = read_link(self._handle.netlink, device)
            if link is None:
                raise KernelError(f"find {device} inside", errno.ENODEV)
            self._indexes[device] = link.index
        return self._indexes[device]
