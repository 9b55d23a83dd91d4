"""An executable model of the kernel for one namespace and its host end.

Its state is what the agent observes (`agent.model.Observed`) and the few things it cannot see.
A step that the kernel would refuse, or that would lose a first packet, raises `Refused`, so a
plan that passes here is legal in its order. What each step does was checked on a real kernel by
tests/kernel/test_attachments.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from agent.core import steps
from agent.core.identity import is_ours, is_routed
from agent.core.steps import Step
from agent.model import LINK_GROUP, Address, Bridge, Inside, Link, Neighbour, Observed, Route, Traffic
from tests.unit.model_routes import (
    AF_INET,
    AF_INET6,
    DEFAULT_METRIC,
    ON_LINK_METRIC,
    SMALLEST_IPV6_MTU,
    addresses_of,
    covers,
    family_of,
    on_link,
)


class Refused(AssertionError):
    """The kernel would refuse this step at this moment, or a packet would be lost by it."""


@dataclass
class ModelKernel:
    """`inner` is the index of the host end's other end when that is in the namespace, else None.

    `guarded` says that the ruleset drops what was not admitted; `admitted` holds (host end,
    address); `awaited` is true once the host end's carrier is known, `raised` while a routed one's is not.
    """

    seen: Observed
    bridge: Bridge
    inner: int | None = None
    guarded: bool = True
    admitted: set[tuple[str, bytes]] = field(default_factory=set)
    awaited: bool = False
    raised: bool = False
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
        self.raised = False  # The look that a plan stands on settles the host end's carrier.
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
            case steps.RaiseRoutedHostEnd(host_end):
                self.raised = True
                self._set_host_end(host_end, up=True, ipv6=True)
            case steps.LeaveBridge(host_end):
                self._set_host_end(host_end, master=0, isolated=False)
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
            case steps.AddAddress(device, address, prefix, routed):
                self._add_address(self._device(device), address, prefix, routed)
            case steps.AddOnLinkRoute(device, address, prefix):
                self._add_route(on_link(self._up(device).index, address, prefix, DEFAULT_METRIC[family_of(address)]))
            case steps.AddGatewayNeighbour(device, address, mac):
                self._add_neighbour(self._up(device), address, mac)
            case steps.AwaitDevice(device):
                self._await(self._device(device))
            case steps.AwaitAddress(address):
                self._await_address(address)
            case steps.AwaitHostEnd(host_end):
                self._await(self._host_end(host_end))
                self.awaited, self.raised = True, False
            case steps.Admit(host_end, lease):
                self.admitted |= {(host_end, address) for address in addresses_of(lease)}
            case steps.AddHostNeighbour(bridge, address, mac):
                self._add_host_neighbour(bridge, address, mac)
            case steps.AddRoutedNeighbour(host_end, address, mac):
                self._require(self._host_end(host_end).mac[2:] == mac[2:], "a stranger's MAC")
                self.seen = replace(self.seen, host_neighbours=self.seen.host_neighbours | {address})
            case steps.AddHostRoute(host_end, address, source):
                self._add_host_route(host_end, address, source)
            case steps.AddProxy(bridge, address):
                self._require(bridge == self.bridge.index, "ENODEV: no such bridge")
                self._require(len(address) == 16, "IPv4 is answered for by itself")
                self.seen = replace(self.seen, proxied=self.seen.proxied | {address})
            case steps.JoinBridge(host_end, bridge):
                self._join(host_end, bridge)
            case steps.SetIsolated(host_end, isolated):
                self._require(self._host_end(host_end).master != 0, "EOPNOTSUPP: is no bridge port")
                self._set_host_end(host_end, isolated=isolated)
            case steps.AwaitBridge(bridge):
                self._await_bridge(bridge)
            case steps.AddSubnetRoute(device, address, prefix, gateway):
                link = self._up(device)
                found = on_link(link.index, address, prefix, DEFAULT_METRIC[family_of(address)])
                self._require_gateway(link, gateway)
                self._add_route(replace(found, gateway=gateway))
            case steps.AddDefaultRoute(device, family, gateway, routed):
                self._add_default_route(self._up(device), family, gateway, routed)
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
        host = self.seen.host_end
        routed = host is not None and is_routed(host.mac) and link.index == self.inner
        if not link.up and not routed:
            for each in self.inside.addresses:
                if each.device == link.index:
                    self._add_on_link_route(each)

    def _set_device_mac(self, link: Link, mac: bytes) -> None:
        self._set_device(link.name, mac=mac)
        if link.mac != mac:
            # net/core/neighbour.c, neigh_changeaddr()
            kept = frozenset(each for each in self.inside.neighbours if each.device != link.index)
            self._change_inside(neighbours=kept)

    def _add_address(self, link: Link, address: bytes, prefix: int, routed: bool) -> None:
        added = Address(link.index, address, prefix)
        present = [each for each in self.inside.addresses if (each.device, each.address) == (link.index, address)]
        if family_of(address) == AF_INET6:
            self._require(link.mtu >= SMALLEST_IPV6_MTU, "EINVAL: no IPv6 at this MTU")
            self._require(link.ipv6, "EACCES: IPv6 is turned off on this device")
        # A device has an IPv6 address once, whatever its prefix: addrconf.c, ipv6_chk_same_addr().
        if added in present or (present and family_of(address) == AF_INET6):
            return
        self._change_inside(addresses=self.inside.addresses | {added})
        if link.up and not routed:
            self._add_on_link_route(added)

    def _add_on_link_route(self, added: Address) -> None:
        family = family_of(added.address)
        # A single IPv4 address is no subnet, a single IPv6 address is.
        if family == AF_INET6 or added.prefix < 32:
            self._add_route(on_link(added.device, added.address, added.prefix, ON_LINK_METRIC[family]))

    def _add_neighbour(self, link: Link, address: bytes, mac: bytes) -> None:
        self._require(link.ipv6 or family_of(address) == AF_INET, "EINVAL: IPv6 is turned off on this device")
        kept = {each for each in self.inside.neighbours if (each.device, each.address) != (link.index, address)}
        self._change_inside(neighbours=frozenset(kept | {Neighbour(link.index, address, mac)}))

    def _add_host_neighbour(self, bridge: int, address: bytes, mac: bytes) -> None:
        self._require(bridge == self.bridge.index, "ENODEV: no such bridge")
        self._require(self.seen.host_end is not None and self.seen.host_end.mac[2:] == mac[2:], "a stranger's MAC")
        self.seen = replace(self.seen, host_neighbours=self.seen.host_neighbours | {address})

    def _join(self, host_end: str, bridge: int) -> None:
        link = self._host_end(host_end)
        self._require(bridge == self.bridge.index, "ENODEV: no such bridge")
        if link.master != bridge:
            self._require(self.awaited, "joins before its carrier is known: the first packets are lost")
            admitted = any(name == host_end for name, _ in self.admitted)
            self._require(admitted or not self.guarded, "joins before it is admitted: the first packets are dropped")
        self._set_host_end(host_end, master=bridge, isolated=link.isolated and link.master == bridge)

    def _await_bridge(self, bridge: str) -> None:
        self._require(bridge == self.bridge.name, "ENODEV: no such bridge")
        self._require(self.seen.host_end is not None and self.seen.host_end.forwarding, "ETIMEDOUT: no port forwards")

    def _add_host_route(self, host_end: str, address: bytes, source: bytes) -> None:
        host = self._host_end(host_end)
        self._require(host.up, "ENETDOWN: the host end is down")
        self._require(host.ipv6 or len(address) == 4, "EACCES: IPv6 is turned off on this device")
        self._require(source in self.bridge.gateways and len(source) == len(address), "EINVAL: not the host's address")
        self._require(address in self.seen.host_neighbours, "the host would have to ask for the namespace")
        self.seen = replace(self.seen, host_routes=self.seen.host_routes | {address})

    def _add_default_route(self, link: Link, family: int, gateway: bytes, routed: bool) -> None:
        if any(
            each.family == family and not each.destination and each.metric == DEFAULT_METRIC[family]
            for each in self.inside.routes
        ):
            return
        self._require(
            routed
            or any(
                each.device == link.index and not each.gateway and covers(each, gateway) for each in self.inside.routes
            ),
            "ENETUNREACH: the gateway is not on link",
        )
        self._require_gateway(link, gateway)
        self._add_route(Route(family, b"", 0, gateway, link.index, DEFAULT_METRIC[family]))

    def _require_gateway(self, link: Link, gateway: bytes) -> None:
        host = self.seen.host_end
        if host is None:
            raise Refused("leads nowhere")
        routed = is_routed(host.mac)
        neighbours = {(each.device, each.address, each.mac) for each in self.inside.neighbours}
        mac = host.mac if routed else self.bridge.mac
        self._require((link.index, gateway, mac) in neighbours, "the gateway would have to be asked for")
        if routed:
            self._require(any(len(each) == len(gateway) for each in self.seen.host_routes), "no way back yet")
            self._require(not self.raised, "its carrier is not known yet")
        else:
            self._require(host.forwarding and host.master == self.bridge.index, "leads nowhere yet")

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
        if host is None or (is_routed(host.mac) and not host.up):
            # Entries and routes of a device go with it, and when it is set down.
            self.seen = replace(self.seen, host_routes=frozenset())
            if host is not None:
                self.seen = replace(self.seen, host_neighbours=frozenset())
        elif is_routed(host.mac) and not host.ipv6:
            four = frozenset(each for each in self.seen.host_routes if len(each) == 4)
            self.seen = replace(self.seen, host_routes=four)
        down = {link.index for link in self.inside.links if not link.up}
        self._forget(lambda device, _: device in down, keep_addresses=True)
        without_ipv6 = {link.index for link in self.inside.links if link.mtu < SMALLEST_IPV6_MTU or not link.ipv6}
        self._forget(lambda device, family: device in without_ipv6 and family == AF_INET6)

    def _forget(self, lost: Callable[[int, int], bool], keep_addresses: bool = False) -> None:
        inside = self.inside
        self._change_inside(
            addresses=frozenset(
                each for each in inside.addresses if keep_addresses or not lost(each.device, family_of(each.address))
            ),
            routes=frozenset(each for each in inside.routes if not lost(each.device, each.family)),
            neighbours=frozenset(each for each in inside.neighbours if not lost(each.device, family_of(each.address))),
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
