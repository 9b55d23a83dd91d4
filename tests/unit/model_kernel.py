"""An executable model of the kernel for one namespace and its host end.

Its state is what the agent observes (`agent.model.Observed`) and the few things it cannot see.
A step that the kernel would refuse, or that would lose a first packet, raises `Refused`, so a
plan that passes here is legal in its order. What each step does was checked on a real kernel by
tests/kernel/test_attachments.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from agent.core import steps
from agent.core.identity import is_ours
from agent.core.steps import Step
from agent.model import LINK_GROUP, Address, Bridge, Inside, Lease, Link, Neighbour, Observed, Route, Traffic

AF_INET, AF_INET6 = 2, 10
# What routes without a metric of their own get: fib_frontend.c, ipv6_route.h.
DEFAULT_METRIC = {AF_INET: 0, AF_INET6: 1024}
ON_LINK_METRIC = {AF_INET: 0, AF_INET6: 256}
SMALLEST_IPV6_MTU = 1280  # RFC 8200, section 5


class Refused(AssertionError):
    """The kernel would refuse this step at this moment, or a packet would be lost by it."""


@dataclass
class ModelKernel:
    """`inner` is the index of the host end's other end when that is in the namespace, else None.

    `guarded` says that the ruleset drops what was not admitted; `admitted` holds (host end,
    address); `awaited` is true once the host end's carrier is known since it was set up.
    """

    seen: Observed
    bridge: Bridge
    inner: int | None = None
    guarded: bool = True
    admitted: set[tuple[str, bytes]] = field(default_factory=set)
    awaited: bool = False
    trail: list[Step] = field(default_factory=list)

    def copy(self) -> "ModelKernel":
        return replace(self, admitted=set(self.admitted), trail=list(self.trail))

    def populate(
        self, addresses: Iterable[Address], routes: Iterable[Route], neighbours: Iterable[Neighbour]
    ) -> "ModelKernel":
        """Put in what is there already, as far as it can stand side by side."""
        once = {(each.device, each.address) if len(each.address) == 16 else each: each for each in addresses}
        told = {(each.device, each.address): each for each in neighbours}
        self._change_inside(
            addresses=frozenset(once.values()), routes=frozenset(routes), neighbours=frozenset(told.values())
        )
        self._settle()
        return self

    def run(self, plan: Iterable[Step]) -> "ModelKernel":
        for step in plan:
            self.apply(step)
        return self

    def apply(self, step: Step) -> None:
        self.trail.append(step)
        match step:
            case steps.CreatePair():
                self._create(step)
            case steps.DeletePair(host_end):
                self._delete(host_end)
            case steps.MarkHostEnd(host_end, alias):
                self._set_host_end(host_end, alias=alias, group=LINK_GROUP)
            case steps.QuietHostEnd(host_end):
                self._set_host_end(host_end, ipv6=False)
            case steps.RaiseHostEnd(host_end):
                self.awaited &= self._host_end(host_end).up
                self._set_host_end(host_end, up=True)
            case steps.SetHostEndMtu(host_end, mtu):
                self._set_host_end(host_end, mtu=mtu)
            case steps.RaiseLoopback():
                self._set_device("lo", up=True)
            case steps.RaiseDevice(device):
                self._raise_device(device)
            case steps.SetDeviceMtu(device, mtu):
                self._set_device(device, mtu=mtu)
            case steps.SetDeviceMac(device, mac):
                self._set_device_mac(self._device(device), mac)
            case steps.AddAddress(device, address, prefix):
                self._add_address(self._device(device), address, prefix)
            case steps.AddOnLinkRoute(device, address, prefix):
                self._add_route(on_link(self._up(device).index, address, prefix, DEFAULT_METRIC[_family(address)]))
            case steps.AddGatewayNeighbour(device, address, mac):
                self._add_neighbour(self._up(device), address, mac)
            case steps.AwaitDevice(device):
                self._await(self._device(device))
            case steps.AwaitAddress(address):
                self._await_address(address)
            case steps.AwaitHostEnd(host_end):
                self._await(self._host_end(host_end))
                self.awaited = True
            case steps.Admit(host_end, lease):
                self.admitted |= {(host_end, address) for address in addresses_of(lease)}
            case steps.AddHostNeighbour(bridge, address, mac):
                self._add_host_neighbour(bridge, address, mac)
            case steps.JoinBridge(host_end, bridge, isolated):
                self._join(host_end, bridge, isolated)
            case steps.AwaitBridge(bridge):
                self._await_bridge(bridge)
            case steps.AddDefaultRoute(device, family, gateway):
                self._add_default_route(self._up(device), family, gateway)
            case _:
                raise NotImplementedError(step)
        self._settle()

    def _create(self, step: steps.CreatePair) -> None:
        if self.seen.host_end is not None:
            return
        self._require(all(link.name != step.device for link in self.inside.links), "EEXIST: the name is taken inside")
        outer, inner = self.bridge.index + 1000, max(link.index for link in self.inside.links) + 1
        end = Link(
            outer, step.host_end, "veth", step.host_end_mac, step.mtu,
            up=False, carrier=False, group=LINK_GROUP, alias="", master=0, peer=inner, peer_nsid=0,
            isolated=False, forwarding=False, ipv6=True, traffic=Traffic(),
        )  # fmt: skip
        # New devices take the namespace's settings, which loopback's show.
        ipv6 = self._device("lo").ipv6
        device = replace(end, index=inner, name=step.device, mac=step.mac, group=0, peer=outer, ipv6=ipv6)
        self.seen = replace(self.seen, host_end=end)
        self._change_inside(links=(*self.inside.links, device))
        self.inner, self.awaited = inner, False

    def _delete(self, host_end: str) -> None:
        if self.seen.host_end is None:
            return
        self._require(is_ours(self._host_end(host_end)), "deletes a device that is not ours")
        gone, self.inner = self.inner, None
        self.seen = replace(self.seen, host_end=None)
        self._change_inside(links=tuple(link for link in self.inside.links if link.index != gone))
        self._forget(lambda device, _: device == gone)

    def _raise_device(self, device: str) -> None:
        link = self._device(device)
        self._require(link.mtu >= SMALLEST_IPV6_MTU, "EAFNOSUPPORT: no IPv6 settings at this MTU")
        self._set_device(device, up=True)
        if not link.up:
            for each in self.inside.addresses:
                if each.device == link.index:
                    self._add_on_link_route(each)

    def _set_device_mac(self, link: Link, mac: bytes) -> None:
        self._set_device(link.name, mac=mac)
        if link.mac != mac:
            # net/core/neighbour.c, neigh_changeaddr()
            kept = frozenset(each for each in self.inside.neighbours if each.device != link.index)
            self._change_inside(neighbours=kept)

    def _add_address(self, link: Link, address: bytes, prefix: int) -> None:
        added = Address(link.index, address, prefix)
        present = [each for each in self.inside.addresses if (each.device, each.address) == (link.index, address)]
        if _family(address) == AF_INET6:
            self._require(link.mtu >= SMALLEST_IPV6_MTU, "EINVAL: no IPv6 at this MTU")
            self._require(link.ipv6, "EACCES: IPv6 is turned off on this device")
        # A device has an IPv6 address once, whatever its prefix: addrconf.c, ipv6_chk_same_addr().
        if added in present or (present and _family(address) == AF_INET6):
            return
        self._change_inside(addresses=self.inside.addresses | {added})
        if link.up:
            self._add_on_link_route(added)

    def _add_on_link_route(self, added: Address) -> None:
        family = _family(added.address)
        # A single IPv4 address is no subnet, a single IPv6 address is.
        if family == AF_INET6 or added.prefix < 32:
            self._add_route(on_link(added.device, added.address, added.prefix, ON_LINK_METRIC[family]))

    def _add_neighbour(self, link: Link, address: bytes, mac: bytes) -> None:
        self._require(link.ipv6 or _family(address) == AF_INET, "EINVAL: IPv6 is turned off on this device")
        kept = {each for each in self.inside.neighbours if (each.device, each.address) != (link.index, address)}
        self._change_inside(neighbours=frozenset(kept | {Neighbour(link.index, address, mac)}))

    def _add_host_neighbour(self, bridge: int, address: bytes, mac: bytes) -> None:
        self._require(bridge == self.bridge.index, "ENODEV: no such bridge")
        self._require(self.seen.host_end is not None and self.seen.host_end.mac[2:] == mac[2:], "a stranger's MAC")
        self.seen = replace(self.seen, host_neighbours=self.seen.host_neighbours | {address})

    def _join(self, host_end: str, bridge: int, isolated: bool) -> None:
        link = self._host_end(host_end)
        self._require(bridge == self.bridge.index, "ENODEV: no such bridge")
        if link.master != bridge:
            self._require(self.awaited, "joins before its carrier is known: the first packets are lost")
            admitted = any(name == host_end for name, _ in self.admitted)
            self._require(admitted or not self.guarded, "joins before it is admitted: the first packets are dropped")
        self._set_host_end(host_end, master=bridge, isolated=isolated)

    def _await_bridge(self, bridge: str) -> None:
        self._require(bridge == self.bridge.name, "ENODEV: no such bridge")
        self._require(self.seen.host_end is not None and self.seen.host_end.forwarding, "ETIMEDOUT: no port forwards")

    def _add_default_route(self, link: Link, family: int, gateway: bytes) -> None:
        if any(
            each.family == family and not each.destination and each.metric == DEFAULT_METRIC[family]
            for each in self.inside.routes
        ):
            return
        self._require(
            any(
                each.device == link.index and not each.gateway and covers(each, gateway) for each in self.inside.routes
            ),
            "ENETUNREACH: the gateway is not on link",
        )
        neighbours = {(each.device, each.address, each.mac) for each in self.inside.neighbours}
        self._require((link.index, gateway, self.bridge.mac) in neighbours, "the gateway would have to be asked for")
        host = self.seen.host_end
        self._require(host is not None and host.forwarding and host.master == self.bridge.index, "leads nowhere yet")
        self._add_route(Route(family, b"", 0, gateway, link.index, DEFAULT_METRIC[family]))

    def _settle(self) -> None:
        """What the kernel does by itself: carrier needs both ends, and down devices have no routes."""
        host = self.seen.host_end
        inner = next((link for link in self.inside.links if link.index == self.inner), None)
        if host is not None:
            carrier = host.up and inner is not None and inner.up
            host = replace(host, carrier=carrier, forwarding=carrier and host.master != 0)
            self.seen = replace(self.seen, host_end=host)
            self._change_inside(
                links=tuple(replace(link, carrier=carrier) if link is inner else link for link in self.inside.links)
            )
        down = {link.index for link in self.inside.links if not link.up}
        self._forget(lambda device, _: device in down, keep_addresses=True)
        without_ipv6 = {link.index for link in self.inside.links if link.mtu < SMALLEST_IPV6_MTU or not link.ipv6}
        self._forget(lambda device, family: device in without_ipv6 and family == AF_INET6)

    def _forget(self, lost: Callable[[int, int], bool], keep_addresses: bool = False) -> None:
        inside = self.inside
        self._change_inside(
            addresses=frozenset(
                each for each in inside.addresses if keep_addresses or not lost(each.device, _family(each.address))
            ),
            routes=frozenset(each for each in inside.routes if not lost(each.device, each.family)),
            neighbours=frozenset(each for each in inside.neighbours if not lost(each.device, _family(each.address))),
        )

    @property
    def inside(self) -> Inside:
        assert self.seen.inside is not None
        return self.seen.inside

    def _device(self, name: str) -> Link:
        found = next((link for link in self.inside.links if link.name == name), None)
        if found is None:
            raise Refused(f"ENODEV: {name} is not inside, after {self.trail}")
        return found

    def _up(self, name: str) -> Link:
        found = self._device(name)
        self._require(found.up, "ENETDOWN: the device is down")
        return found

    def _host_end(self, name: str) -> Link:
        host = self.seen.host_end
        if host is None or host.name != name:
            raise Refused(f"ENODEV: no host end {name}, after {self.trail}")
        return host

    def _await(self, link: Link) -> None:
        self._require(link.up, "ENETDOWN: the device is down")
        self._require(link.carrier, "ETIMEDOUT: the other end is down or elsewhere")

    def _await_address(self, address: bytes) -> None:
        holders = {each.device for each in self.inside.addresses if each.address == address}
        up = {link.index for link in self.inside.links if link.up}
        self._require(bool(holders & up), "ETIMEDOUT: nothing is delivered to an address that is not there")

    def _set_host_end(self, name: str, **changes: object) -> None:
        self.seen = replace(self.seen, host_end=replace(self._host_end(name), **changes))  # type: ignore[arg-type]

    def _set_device(self, name: str, **changes: object) -> None:
        changed = self._device(name)
        self._change_inside(
            links=tuple(replace(link, **changes) if link is changed else link for link in self.inside.links)  # type: ignore[arg-type]
        )

    def _add_route(self, route: Route) -> None:
        self._change_inside(routes=self.inside.routes | {route})

    def _change_inside(self, **changes: object) -> None:
        self.seen = replace(self.seen, inside=replace(self.inside, **changes))  # type: ignore[arg-type]

    def _require(self, condition: bool, why: str) -> None:
        if not condition:
            raise Refused(f"{why}; steps so far: {self.trail}")


def on_link(device: int, address: bytes, prefix: int, metric: int) -> Route:
    """The route to an address's own subnet."""
    host_bits = 8 * len(address) - prefix
    network = int.from_bytes(address) >> host_bits << host_bits
    destination = network.to_bytes(len(address)) if prefix else b""
    return Route(_family(address), destination, prefix, b"", device, metric)


def covers(route: Route, address: bytes) -> bool:
    if route.family != _family(address):
        return False
    host_bits = 8 * len(address) - route.prefix
    return int.from_bytes(route.destination) >> host_bits == int.from_bytes(address) >> host_bits


def addresses_of(lease: Lease) -> list[bytes]:
    return [each.packed for each in (lease.address, lease.address6) if each is not None]


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6
