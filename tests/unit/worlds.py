"""Every world that a plan may meet: networks, leases, and namespaces in any state of disrepair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal, TypeVar

from hypothesis import strategies as st

from agent.core.identity import address6_of, alias_of, bridge_mac, host_end_mac, host_end_name, netns_mac
from agent.model import (
    LINK_GROUP,
    ROUTE_PROTOCOL,
    Address,
    Attachment,
    Bridge,
    Cookie,
    Inside,
    Lease,
    Link,
    Neighbour,
    Network,
    Observed,
    Port,
    Route,
    Traffic,
)
from tests.unit.model_kernel import ModelKernel
from tests.unit.model_routes import ON_LINK_METRIC, addresses_of, on_link

_T = TypeVar("_T")
OUTER, INNER, FOREIGN_BRIDGE = 900, 2, 77
OTHER_MAC = bytes.fromhex("0a0000000001")
SUBNETS: Sequence[tuple[str, str]] = (
    ("172.27.0.0/16", "fd00:7e74:1::/64"),
    ("172.27.0.0/16", ""),
    ("10.9.0.0/29", "fd00:9::/125"),
    ("10.9.0.0/29", ""),
    ("192.168.7.0/24", "fd00:7::/64"),
)


def network(
    name: str = "default",
    subnet: str = "172.27.0.0/16",
    subnet6: str = "fd00:7e74:1::/64",
    bridge: str = "vethd0",
    interface: str = "eth0",
    nat: bool = True,
    mtu: int = 0,
    isolate: bool = False,
    host_access: Literal["all", "none"] | tuple[Port, ...] = "all",
    anti_spoof: bool = True,
    reach: tuple[str, ...] = (),
) -> Network:
    six = IPv6Network(subnet6) if subnet6 else None
    four = IPv4Network(subnet)
    return Network(name, four, six, bridge, interface, nat, mtu, isolate, host_access, anti_spoof, reach)


def lease_in(net: Network, index: int = 2, routed: bool = False) -> Lease:
    return Lease(net.name, index, net.subnet.network_address + index, address6_of(net.subnet6, index), routed)


def bridge_for(net: Network, mtu: int = 1500, index: int = 5) -> Bridge:
    gateways = tuple(each.packed for each in (net.gateway, net.gateway6) if each is not None)
    return Bridge(net.bridge, index, bridge_mac(net.subnet), net.mtu or mtu, gateways)


def attachment(
    net: Network | None = None, index: int = 2, name: str = "web", cookie: int = 4242, routed: bool = False
) -> Attachment:
    net = net or network()
    return Attachment(Cookie(cookie), name, net, lease_in(net, index, routed), bridge_for(net))


def link(index: int, name: str, kind: str = "veth", **more: object) -> Link:
    """A device that is up, of MTU 1500, on no bridge and of no group."""
    plain = Link(
        index, name, kind, OTHER_MAC, 1500, up=True, carrier=True, group=0, alias="", master=0, peer=0,
        peer_nsid=None, isolated=False, forwarding=False, ipv6=True, traffic=Traffic(),
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


LOOPBACK = link(1, "lo", "loopback", up=False, carrier=False, mac=bytes(6), mtu=65536)


@dataclass(frozen=True)
class World:
    """What should be, and a kernel in which that is so, or in part, or not at all."""

    desired: Attachment
    kernel: ModelKernel

    def __repr__(self) -> str:
        kernel, net = self.kernel, self.desired.network
        parts = (
            f"{net.interface} on {self.desired.bridge.index}, lease {self.desired.lease.address}",
            f"isolate {net.isolate}",
            f"anti_spoof {net.anti_spoof}",
            f"host end {kernel.seen.host_end}",
            f"inner {kernel.inner}",
            *map(str, kernel.inside.links),
            f"{kernel.inside.addresses}",
            f"{kernel.inside.routes}",
            f"{kernel.inside.neighbours}",
            f"host neighbours {kernel.seen.host_neighbours}",
            f"admitted {kernel.admitted}",
        )
        return "\n".join(("World:", *parts)).replace(f", traffic={Traffic()}", "")

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What hypothesis shows of a failing example."""
        printer.text(repr(self))


def empty_world(desired: Attachment) -> World:
    """A namespace as `ip netns add` makes it."""
    seen = Observed(desired.cookie, None, Inside((LOOPBACK,)))
    return World(desired, ModelKernel(seen, desired.bridge, guarded=desired.network.anti_spoof))


@st.composite
def attachments(draw: st.DrawFn) -> Attachment:
    subnet, subnet6 = draw(st.sampled_from(SUBNETS))
    net = network(
        draw(st.sampled_from(["default", "lab"])),
        subnet,
        subnet6,
        interface=draw(st.sampled_from(["eth0", "net0"])),
        mtu=draw(st.sampled_from([0, 1280, 9000])),
        isolate=draw(st.booleans()),
        anti_spoof=draw(st.booleans()),
    )
    cookie = draw(st.integers(0, 2**64 - 1))
    index = draw(st.integers(2, 1 + min(net.capacity, 300)))
    return attachment(net, index, draw(st.text(max_size=6)), cookie, draw(st.booleans()))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any mix of what is desired and what is there, as far as the kernel can be in such a state."""
    desired = draw(attachments())
    paired = draw(st.booleans())
    host = draw(_host_ends(desired)) if paired or draw(st.booleans()) else None
    inner = draw(st.sampled_from([INNER, 7]))
    taken = {INNER, 7} if paired or host is None else {host.peer}
    ipv6 = draw(_mostly(True, st.just(False)))
    links = [replace(LOOPBACK, up=draw(st.booleans()), ipv6=ipv6), *draw(_foreign_links(desired, host, taken))]
    if paired:
        assert host is not None
        host = replace(host, kind="veth", peer=inner)
        named = {each.name for each in links}
        name = draw(_mostly(desired.network.interface, st.just("renamed0")))
        if name in named:
            name = "aside0"
        links.append(draw(_inner_links(desired, host, name)))
    kernel = ModelKernel(
        Observed(
            desired.cookie,
            host,
            Inside(tuple(links)),
            draw(_some(addresses_of(desired.lease))),
            draw(_some(addresses_of(desired.lease))) if desired.lease.routed else frozenset(),
            draw(_some([each for each in addresses_of(desired.lease) if len(each) == 16])),
        ),
        desired.bridge,
        inner if paired else None,
        guarded=desired.network.anti_spoof,
    )
    device = inner if paired else INNER
    addresses = draw(_some(_addresses(desired, device, [each.index for each in links])))
    routes = draw(_some(_routes(desired, device, [each.index for each in links])))
    neighbours = draw(_some(_neighbours(desired, device)))
    if host is not None and draw(st.booleans()):
        kernel.admitted = {(host.name, address) for address in addresses_of(desired.lease)}
    present = {each.index for each in links}
    kernel.populate(
        (each for each in addresses if each.device in present),
        (each for each in routes if each.device in present),
        (each for each in neighbours if each.device in present),
    )
    return World(desired, kernel)


@st.composite
def hindered_worlds(draw: st.DrawFn) -> World:
    """A device of somebody else bears a name that vethd has to use."""
    world = draw(worlds())
    kernel, desired = world.kernel, world.desired
    host = draw(_host_ends(desired))
    if draw(st.booleans()):
        strange = (replace(host, kind="dummy"), replace(host, group=0, alias="uplink of rack 7", mac=OTHER_MAC))
        kernel.seen = replace(kernel.seen, host_end=draw(st.sampled_from(strange)))
        return world
    kernel.inner = None
    stranger = link(
        8, desired.network.interface, draw(st.sampled_from(["veth", "dummy"])), peer=draw(st.just(host.index))
    )
    kernel.seen = Observed(
        desired.cookie,
        draw(st.sampled_from([None, replace(host, kind="veth", group=LINK_GROUP)])),
        Inside((LOOPBACK, stranger)),
    )
    return world


@st.composite
def _host_ends(draw: st.DrawFn, desired: Attachment) -> Link:
    """A device of the host end's name: mostly ours, in any state, its other end anywhere."""
    up = draw(st.booleans())
    right = 0 if desired.lease.routed else desired.bridge.index
    master = draw(_mostly(right, st.sampled_from([0, desired.bridge.index, FOREIGN_BRIDGE])))
    other = host_end_mac(lease_in(desired.network, 3, desired.lease.routed))
    otherwise = host_end_mac(replace(desired.lease, routed=not desired.lease.routed))
    return link(
        OUTER,
        host_end_name(desired.cookie),
        draw(_mostly("veth", st.just("dummy"))),
        mac=draw(_mostly(host_end_mac(desired.lease), st.sampled_from([other, otherwise, OTHER_MAC]))),
        mtu=draw(_mostly(desired.bridge.mtu, st.sampled_from([900, 1400, 65535]))),
        up=up,
        carrier=False,
        group=draw(_mostly(LINK_GROUP, st.sampled_from([0, 1 << 30]))),
        alias=draw(_mostly(alias_of(desired.name), st.sampled_from(["", "uplink of rack 7", "vethd:former"]))),
        master=master,
        isolated=master != 0 and draw(st.booleans()),
        peer=draw(st.sampled_from([INNER, 3, 4, 50])),
        peer_nsid=draw(st.sampled_from([None, 0, 3])),
        ipv6=draw(st.booleans()),
    )


@st.composite
def _inner_links(draw: st.DrawFn, desired: Attachment, host: Link, name: str) -> Link:
    return link(
        host.peer,
        name,
        mac=draw(_mostly(netns_mac(desired.lease.address), st.just(OTHER_MAC))),
        mtu=draw(_mostly(desired.bridge.mtu, st.sampled_from([900, 1400, 65535]))),
        up=draw(st.booleans()),
        carrier=False,
        peer=host.index,
        peer_nsid=0,
        ipv6=draw(_mostly(True, st.just(False))),
    )


@st.composite
def _foreign_links(draw: st.DrawFn, desired: Attachment, host: Link | None, taken: set[int]) -> list[Link]:
    """Devices of others inside. Their numbers may be like ours: those mean nothing across namespaces."""
    names = draw(st.lists(st.sampled_from(["tun0", "eth0", "net0", "renamed0"]), unique=True, max_size=2))
    free = [index for index in (INNER, 3, 4, 7) if index not in taken]
    peers = st.sampled_from([0, 3] if host is None else [0, 3, host.index])
    return [
        link(
            free[place], name, draw(st.sampled_from(["veth", "dummy", "tun"])), up=draw(st.booleans()), peer=draw(peers)
        )
        for place, name in enumerate(names)
    ]


def _addresses(desired: Attachment, device: int, devices: list[int]) -> list[Address]:
    ours = [Address(device, address, prefix) for address, prefix in desired.addresses]
    otherwise = [Address(device, address, 8 * len(address)) for address, _ in desired.addresses]
    foreign = [Address(each, address, 24) for each in devices for address in (b"\x0a\x01\x02\x03", b"\xfd" + bytes(15))]
    return [*ours, *otherwise, *foreign]


def _routes(desired: Attachment, device: int, devices: list[int]) -> list[Route]:
    found = [
        Route(_family(gateway), b"", 0, gateway, device, metric)
        for gateway in desired.bridge.gateways
        for metric in (0, 1024, 50)
    ]
    for address, prefix in desired.addresses:
        found.append(on_link(device, address, prefix, ON_LINK_METRIC[_family(address)]))
        gateway = next(each for each in desired.bridge.gateways if len(each) == len(address))
        found.append(replace(on_link(device, address, prefix, 0), gateway=gateway))
    for each in devices:
        for gateway in (b"\x0a\x01\x02\x01", b"\xfd" + bytes(15)):
            found += [Route(_family(gateway), b"", 0, gateway, each, metric) for metric in (0, 1024, ROUTE_PROTOCOL)]
        found += [on_link(each, address, prefix, 0) for address, prefix in desired.addresses]
    return found


def _neighbours(desired: Attachment, device: int) -> list[Neighbour]:
    return [
        Neighbour(device, gateway, mac)
        for gateway in desired.bridge.gateways
        for mac in (desired.bridge.mac, host_end_mac(desired.lease), OTHER_MAC)
    ]


def _mostly(right: _T, otherwise: st.SearchStrategy[_T]) -> st.SearchStrategy[_T]:
    return st.one_of(st.just(right), st.just(right), otherwise)


def _some(values: Sequence[_T]) -> st.SearchStrategy[frozenset[_T]]:
    return st.frozensets(st.sampled_from(values)) if values else st.just(frozenset())


def _family(address: bytes) -> int:
    return 2 if len(address) == 4 else 10
