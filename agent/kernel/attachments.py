"""One namespace's attachment: reading what is, and doing the steps of a plan.

Everything here blocks and belongs to one thread, the plumber's: the RTNL lock admits one
writer at a time anyway.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from agent.core import steps
from agent.core.identity import host_end_name, netns_mac
from agent.core.plan import IPV6_BYTES
from agent.core.steps import Step
from agent.errors import KernelError
from agent.kernel import decode, messages, routing, sysctl
from agent.kernel.awaiting import await_carrier, await_local_address
from agent.kernel.members import Members
from agent.kernel.namespaces import Handle, Namespaces
from agent.kernel.netlink import NETLINK_NETFILTER, Answer, Netlink
from agent.kernel.rtnetlink import AF_INET, AF_INET6
from agent.kernel.wire import Request
from agent.model import Bridge, Inside, Lease, Link, Neighbour, Observed, Origin, Route

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
_MOST_NEIGHBOURS: Final = 16
_GONE_IS_FINE: Final = {0, errno.ENODEV}


class Attachments:
    """Observes and changes attachments, through one netlink socket of the host."""

    def __init__(self, namespaces: Namespaces, on_step: Callable[[Step], None] | None = None) -> None:
        self._namespaces = namespaces
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._members = Members(self._netfilter)
        self._netlink = Netlink()
        self._on_step = on_step
        self.netfilter_port = self._netfilter.port

    def close(self) -> None:
        """Close the host's socket."""
        self._netlink.close()
        self._netfilter.close()

    def settle(
        self,
        origin: Origin,
        bridge: Bridge | None,
        lease: Lease | None,
        decide: Callable[[Observed], Sequence[Step]],
        finish: Callable[[int], None],
    ) -> Link | None:
        """Enter a namespace, read it, do what ``decide`` makes of that; return its host end.

        ``finish`` is called with how many devices are inside then. Raises NotANamespace,
        KernelError or HostError, and what ``decide`` raises; KernelError with EEXIST once all is
        done, when something was there that had not been seen: nobody knows then what it is like.
        """
        handle, seen = self.observe(origin, bridge, lease)
        with handle:
            todo = decide(seen)
            run = self._run(handle)
            host_end = run.do(todo) if todo else None
            if run.surprise is not None:
                raise run.surprise
            finish(sum(1 for _ in handle.netlink.dump(messages.dump_links())) if todo else _count(seen))
        return host_end or seen.host_end

    def observe(self, origin: Origin, bridge: Bridge | None, lease: Lease | None) -> tuple[Handle, Observed]:
        """Enter a namespace and read it, with its host end.

        The host's entries are read for the lease that it is expected to have.
        The handle stays open for ``apply``; the caller closes it. Raises NotANamespace.
        """
        handle = self._namespaces.open(origin.path, of_process=origin.source == "process")
        try:
            host_end = read_link(self._netlink, host_end_name(handle.cookie))
            seen = Observed(
                handle.cookie,
                host_end,
                read_inside(handle.netlink, _gateways(host_end, bridge)),
                inode=handle.inode,
                other_userns=handle.other_userns,
            )
            if host_end is None or bridge is None or lease is None:
                return handle, seen
            return handle, self._with_host_side(seen, host_end.index, bridge.index, lease)
        except BaseException:
            handle.close()
            raise

    def apply(self, plan: Sequence[Step], handle: Handle) -> Link | None:
        """Do the steps in order; return the host end when it was read on the way.

        Raises KernelError or HostError at the first step that fails.
        """
        return self._run(handle).do(plan)

    def _run(self, handle: Handle) -> "_Run":
        return _Run(self._netlink, self._members, handle, self._on_step)

    def _with_host_side(self, seen: Observed, host_end: int, bridge: int, lease: Lease) -> Observed:
        """Add what the host has of its own for a namespace's addresses."""
        addresses = [each.packed for each in (lease.address, lease.address6) if each is not None]
        if not lease.routed:
            return replace(seen, host_neighbours=self._neighbours(bridge, addresses, lease))
        routes = self._netlink.exchange([routing.find_route_itself(address) for address in addresses])
        found = (decode.route(reply) for answer in routes for reply in answer.replies)
        six = [address for address in addresses if len(address) == IPV6_BYTES]
        answers = self._netlink.exchange([routing.get_proxy(bridge, address) for address in six])
        return replace(
            seen,
            host_neighbours=self._neighbours(host_end, addresses, lease),
            host_routes=frozenset(
                route.destination
                for route in found
                if route and route.device == host_end and route.prefix == 8 * len(route.destination)
            ),
            proxied=frozenset(address for address, answer in zip(six, answers, strict=True) if not answer.code),
        )

    def _neighbours(self, device: int, addresses: Sequence[bytes], lease: Lease) -> frozenset[bytes]:
        requests = [routing.get_neighbour(device, address) for address in addresses]
        mac = netns_mac(lease.address)
        found = (decode.neighbour(reply) for answer in self._netlink.exchange(requests) for reply in answer.replies)
        return frozenset(entry.address for entry in found if entry is not None and entry.mac == mac)


def _count(seen: Observed) -> int:
    return len(seen.inside.links) if seen.inside else 0


def read_link(netlink: Netlink, name: str) -> Link | None:
    """Read one device by name, None when there is none. Raises KernelError."""
    request = messages.get_link(name)
    answer = netlink.ask(request)
    if answer.code == errno.ENODEV:
        return None
    _check(request, answer, {0})
    return decode.link(answer.replies[0])


def _gateways(host_end: Link | None, bridge: Bridge | None) -> list[tuple[int, bytes]]:
    """Return by which device which gateways should be known inside."""
    if host_end is None or bridge is None:
        return []
    return [(host_end.peer, gateway) for gateway in bridge.gateways]


def read_inside(netlink: Netlink, gateways: Sequence[tuple[int, bytes]]) -> Inside:
    """Read a namespace; of neighbour entries, those of ``gateways`` and of the gateways of its default routes.

    One that holds ``lo`` alone has nothing else that matters.
    """
    links = tuple(decode.link(payload) for payload in netlink.dump(messages.dump_links()))
    if all(link.name == "lo" for link in links):
        return Inside(links)
    families = (AF_INET, AF_INET6)
    told = (decode.route(payload) for family in families for payload in netlink.dump(routing.dump_routes(family)))
    routes = frozenset(route for route in told if route is not None)
    return Inside(
        links,
        frozenset(decode.address(payload) for payload in netlink.dump(routing.dump_addresses())),
        routes,
        _read_neighbours(netlink, {*gateways, *_default_gateways(routes)}),
    )


def _default_gateways(routes: frozenset[Route]) -> set[tuple[int, bytes]]:
    return {(route.device, route.gateway) for route in routes if route.gateway and not route.destination}


def _read_neighbours(netlink: Netlink, wanted: set[tuple[int, bytes]]) -> frozenset[Neighbour]:
    """Read entries one by one: a dump would go through those of all namespaces."""
    requests = [routing.get_neighbour(*each) for each in sorted(wanted)[:_MOST_NEIGHBOURS]]
    found = (decode.neighbour(reply) for answer in netlink.exchange(requests) for reply in answer.replies)
    return frozenset(neighbour for neighbour in found if neighbour is not None)


class _Run:
    """One run over a plan: neighbouring steps of one side travel in one message."""

    def __init__(
        self, netlink: Netlink, members: Members, handle: Handle, on_step: Callable[[Step], None] | None
    ) -> None:
        self._netlink = netlink
        self._members = members
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
            case steps.QuietHostEnd(host_end):
                sysctl.write(f"net/ipv6/conf/{host_end}/disable_ipv6", "1")
            case steps.RaiseRoutedHostEnd(host_end):
                sysctl.write(f"net/ipv6/conf/{host_end}/disable_ipv6", "0")
                self._exchange([messages.no_link_local(host_end), messages.raise_link_without_arp(host_end)], _FINE)
            case steps.Admit(host_end, lease):
                self._members.admit((host_end, lease))
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
                requests = [request for step in batch for request in self._requests(step)]
                fine = _GONE_IS_FINE if isinstance(batch[0], steps.DeletePair) else _FINE
                self._exchange(requests, fine, inside=batch[0].side == "inside")
        if self._on_step is not None:
            for step in batch:
                self._on_step(step)

    def _exchange(self, requests: Sequence[Request], fine: set[int], inside: bool = False) -> None:
        netlink = self._handle.netlink if inside else self._netlink
        for request, answer in zip(requests, netlink.exchange(requests), strict=True):
            _check(request, answer, fine)
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
            case steps.CreatePair(host_end, host_end_mac, device, mac, mtu):
                return [messages.create_pair(host_end, host_end_mac, device, mac, mtu, self._handle.descriptor)]
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
                return [routing.add_host_route(self._host_index(host_end), address, source)]
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


def _check(request: Request, answer: Answer, fine: set[int]) -> None:
    if answer.code not in fine:
        raise KernelError(request.what, answer.code, answer.detail)
