"""One namespace's attachment: reading what is, and doing the steps of a plan.

Everything here blocks and belongs to one thread, the plumber's: the RTNL lock admits one
writer at a time anyway.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.core.identity import host_end_name, netns_mac
from agent.core.plan import IPV6_BYTES
from agent.core.steps import Step
from agent.kernel import decode, messages, routing
from agent.kernel.execution import Run
from agent.kernel.members import Members
from agent.kernel.namespaces import Handle, Namespaces
from agent.kernel.netlink import NETLINK_NETFILTER, Answer, Netlink
from agent.kernel.numbers import Numbers
from agent.kernel.reading import read_inside, read_link, read_rival
from agent.kernel.sysctl import Ipv6Devices
from agent.model import Bridge, Cookie, Lease, Link, Observed, Origin

Expect = Callable[[Cookie], tuple[Bridge | None, Lease | None]]
"""Returns the bridge and the lease that a namespace is expected to have; called on the plumber's thread."""


class Attachments:
    """Observes and changes attachments, through one netlink socket of the host."""

    def __init__(
        self, namespaces: Namespaces, on_step: Callable[[Step], None] | None = None, sees_rivals: bool = False
    ) -> None:
        """``sees_rivals`` has the host ends of others' devices read, too."""
        self._namespaces = namespaces
        self._sees_rivals = sees_rivals
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._members = Members(self._netfilter)
        self._netlink = Netlink()
        self.numbers = Numbers()
        self._ipv6_devices = Ipv6Devices()
        self._on_step = on_step
        self.netfilter_port = self._netfilter.port

    def close(self) -> None:
        """Close what is open of the host."""
        self._ipv6_devices.close()
        self._netlink.close()
        self._netfilter.close()

    def settle(
        self,
        origin: Origin,
        expect: Expect,
        decide: Callable[[Observed], Sequence[Step]],
        finish: Callable[[int], None],
    ) -> Link | None:
        """Enter a namespace, read it, do what ``decide`` makes of that; return its host end.

        ``finish`` is called with how many devices are inside then. Raises NotANamespace,
        KernelError or HostError, and what ``decide`` raises; KernelError with EEXIST once all is
        done, when something was there that had not been seen: nobody knows then what it is like.
        """
        handle, seen = self.observe(origin, expect)
        with handle:
            todo = decide(seen)
            run = self._run(handle)
            host_end = run.do(todo) if todo else None
            if run.surprise is not None:
                raise run.surprise
            finish(sum(1 for _ in handle.netlink.dump(messages.dump_links())) if todo else _count(seen))
        return host_end or seen.host_end

    def observe(self, origin: Origin, expect: Expect) -> tuple[Handle, Observed]:
        """Enter a namespace and read it, with its host end, and what the host has of its own for it.

        The handle stays open for ``apply``; the caller closes it. Raises NotANamespace.
        """
        handle = self._namespaces.open(origin.path, of_process=origin.source == "process")
        try:
            bridge, lease = expect(handle.cookie)
            host_end = read_link(self._netlink, host_end_name(handle.cookie))
            seen = Observed(
                handle.cookie,
                host_end,
                read_inside(handle.netlink, _gateways(host_end, bridge)),
                inode=handle.inode,
                other_userns=handle.other_userns,
            )
            if self._sees_rivals and host_end is None and seen.inside is not None:
                seen = replace(seen, rival=read_rival(self._netlink, seen.inside))
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

    def _run(self, handle: Handle) -> Run:
        return Run(self._netlink, self._members, self.numbers, self._ipv6_devices, handle, self._on_step)

    def _with_host_side(self, seen: Observed, host_end: int, bridge: int, lease: Lease) -> Observed:
        """Add what the host has of its own for a namespace's addresses."""
        addresses = [each.packed for each in (lease.address, lease.address6) if each is not None]
        six = [address for address in addresses if lease.routed and len(address) == IPV6_BYTES]
        device = host_end if lease.routed else bridge
        requests = [routing.get_neighbour(device, address) for address in addresses]
        if lease.routed:
            requests += [routing.find_route_itself(address) for address in addresses]
            requests += [routing.get_proxy(bridge, address) for address in six]
        answers = self._netlink.exchange(requests)
        neighbours, rest = answers[: len(addresses)], answers[len(addresses) :]
        routes, proxies = rest[: len(addresses)], rest[len(addresses) :]
        return replace(
            seen,
            host_neighbours=_known(neighbours, netns_mac(lease.address)),
            host_routes=_routed_to(routes, host_end),
            proxied=frozenset(address for address, answer in zip(six, proxies, strict=True) if not answer.code),
        )


def _known(answers: Sequence[Answer], mac: bytes) -> frozenset[bytes]:
    found = (decode.neighbour(reply) for answer in answers for reply in answer.replies)
    return frozenset(entry.address for entry in found if entry is not None and entry.mac == mac)


def _routed_to(answers: Sequence[Answer], device: int) -> frozenset[bytes]:
    found = (decode.route(reply) for answer in answers for reply in answer.replies)
    return frozenset(
        route.destination
        for route in found
        if route and route.device == device and route.prefix == 8 * len(route.destination)
    )


def _count(seen: Observed) -> int:
    return len(seen.inside.links) if seen.inside else 0


def _gateways(host_end: Link | None, bridge: Bridge | None) -> list[tuple[int, bytes]]:
    """Return by which device which gateways should be known inside."""
    if host_end is None or bridge is None:
        return []
    return [(host_end.peer, gateway) for gateway in bridge.gateways]
