"""Observing, planning and doing on the real kernel: it converges, twice does no harm, and the model is right."""

from dataclasses import replace

import pytest

from agent.core import steps
from agent.core.identity import is_ours
from agent.core.plan import plan
from agent.demo import probe
from agent.errors import KernelError
from agent.model import Inside, Link, Observed, Route, Traffic
from tests.harness import netns, observe
from tests.harness.expect import GATEWAY4, GATEWAY6, shape
from tests.kernel.ground import Ground, sh
from tests.unit.model_kernel import ModelKernel
from tests.unit.worlds import OTHER_MAC

HOST, INSIDE = None, "web"

# What somebody does, by whom, and what of it has to be repaired: {end} is the host end's name.
DAMAGES = {
    "default route gone": (INSIDE, "ip route del default"),
    "IPv6 default route gone": (INSIDE, "ip -6 route del default"),
    "on-link route gone": (INSIDE, "ip route del 172.27.0.0/16"),
    "IPv6 on-link route gone": (INSIDE, "ip -6 route del fd00:7e74:1::/64"),
    "routes flushed": (INSIDE, "ip route flush table main; ip -6 route flush table main"),
    "address gone": (INSIDE, "ip addr del 172.27.0.2/16 dev eth0"),
    "IPv6 address gone": (INSIDE, "ip addr del fd00:7e74:1::2/64 dev eth0"),
    "addresses flushed": (INSIDE, "ip addr flush dev eth0"),
    "device down": (INSIDE, "ip link set eth0 down"),
    "device down, neighbour wrong": (
        INSIDE,
        "ip link set eth0 down; ip neigh add 172.27.0.1 lladdr 02:00:00:00:00:09 nud permanent dev eth0",
    ),
    "device down, IPv6 address with another prefix": (
        INSIDE,
        "ip link set eth0 down; ip addr add fd00:7e74:1::2/128 dev eth0 nodad",
    ),
    "IPv6 address with another prefix": (
        INSIDE,
        "ip addr flush dev eth0 scope global; ip addr add fd00:7e74:1::2/128 dev eth0 nodad",
    ),
    "IPv4 address with another prefix": (
        INSIDE,
        "ip addr del 172.27.0.2/16 dev eth0; ip addr add 172.27.0.2/24 dev eth0",
    ),
    "loopback down": (INSIDE, "ip link set lo down"),
    "MTU": (INSIDE, "ip link set eth0 mtu 1400"),
    "MTU too small for IPv6": (INSIDE, "ip link set eth0 mtu 1000"),
    "MTU too small for IPv6, and down": (INSIDE, "ip link set eth0 mtu 1000 down"),
    "MAC": (INSIDE, "ip link set eth0 address 02:00:00:00:00:09"),
    "renamed": (INSIDE, "ip link set eth0 name lan0; ip route del default"),
    "renamed to no UTF-8, and down": (INSIDE, "ip link set eth0 down; ip link set eth0 name $(printf '\\377\\376x')"),
    "neighbours flushed": (INSIDE, "ip neigh flush dev eth0 nud permanent"),
    "gateway's neighbour wrong": (
        INSIDE,
        "ip neigh replace 172.27.0.1 lladdr 02:00:00:00:00:09 nud permanent dev eth0",
    ),
    "device deleted": (INSIDE, "ip link del eth0"),
    "device moved away": (INSIDE, "ip link set eth0 netns other"),
    "IPv6 turned off": (INSIDE, "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip addr flush dev eth0"),
    "host end down": (HOST, "ip link set {end} down"),
    "host end off the bridge": (HOST, "ip link set {end} nomaster"),
    "host end on another bridge": (
        HOST,
        "ip link add br9 type bridge; ip link set br9 up; ip link set {end} master br9",
    ),
    "host end's MTU": (HOST, "ip link set {end} mtu 1400"),
    "host end's mark": (HOST, "ip link set {end} alias nobodys"),
    "host end's group": (HOST, "ip link set {end} group 0"),
    "host end's MAC": (HOST, "ip link set {end} address 02:00:00:00:00:09"),
    "host end isolated": (HOST, "ip link set {end} type bridge_slave isolated on"),
    "host end deleted": (HOST, "ip link del {end}"),
    "host's neighbours gone": (HOST, "ip neigh flush dev vethd0 nud permanent"),
    "host's neighbour wrong": (HOST, "ip neigh replace 172.27.0.2 lladdr 02:00:00:00:00:09 nud permanent dev vethd0"),
}


def damage(ground: Ground, what: str) -> None:
    where, command = DAMAGES[what]
    (end,) = observe.host_ends()
    netns.add_many(["other"])
    sh(command.format(end=end), where)


def test_a_new_namespace_works_at_once(ground: Ground) -> None:
    netns.add_many(["web"])
    assert len(ground.settle("web")) == 20
    for gateway in (GATEWAY4, GATEWAY6):
        assert probe.icmp_echo("web", gateway) < 0.5
    assert ground.planned("web") == ()


def test_observing_changes_nothing(ground: Ground) -> None:
    ground.add("web")
    before = shape("web")
    assert ground.planned("web") == ground.planned("web") == ()
    assert shape("web") == before


def test_each_step_twice_on_a_new_namespace(ground: Ground) -> None:
    netns.add_many(["web"])
    for step in ground.planned("web"):
        ground.do("web", [step])
        ground.do("web", [step])
    assert ground.planned("web") == ()
    assert probe.icmp_echo("web", GATEWAY4) < 0.5


def test_the_whole_plan_twice(ground: Ground) -> None:
    netns.add_many(["web"])
    whole = ground.planned("web")
    ground.do("web", whole)
    ground.do("web", whole)
    assert ground.planned("web") == ()


def test_killed_after_any_step(ground: Ground) -> None:
    netns.add_many(["first"])
    for cut in range(len(ground.planned("first"))):
        name = f"cut{cut}"
        netns.add_many([name])
        ground.do(name, ground.planned(name)[:cut])
        ground.settle(name)
        assert ground.planned(name) == (), cut
        assert probe.icmp_echo(name, GATEWAY4) < 0.5
        assert probe.icmp_echo(name, GATEWAY6) < 0.5


@pytest.mark.parametrize("what", DAMAGES)
def test_any_damage_is_repaired_and_the_model_foretold_how(ground: Ground, what: str) -> None:
    ground.add("web")
    damage(ground, what)
    desired = ground.desired("web")
    handle, seen = ground.observe("web")
    handle.close()
    todo = plan(desired, seen)
    assert todo, "the damage was seen"
    model = ModelKernel(seen, desired.bridge, inner_of(seen), admitted={("", b"")})
    ground.do("web", todo)
    handle, after = ground.observe("web")
    handle.close()
    assert plan(desired, after) == ()
    assert comparable(model.run(todo).seen) == comparable(after)
    assert probe.icmp_echo("web", GATEWAY4) < 0.5
    if what != "IPv6 turned off":
        assert probe.icmp_echo("web", GATEWAY6) < 0.5


def inner_of(seen: Observed) -> int | None:
    assert seen.inside is not None
    ours = [each for each in seen.inside.links if seen.host_end and each.index == seen.host_end.peer]
    return ours[0].index if ours else None


def comparable(seen: Observed) -> object:
    """What model and kernel must agree on: devices go by name, for numbers are the kernel's to choose."""
    assert seen.inside is not None
    assert seen.host_end is not None
    names = {link.index: link.name for link in seen.inside.links}
    return (
        _settings(seen.host_end),
        sorted(map(repr, map(_settings, seen.inside.links))),
        sorted(
            (names[each.device], each.address, each.prefix) for each in seen.inside.addresses if not _own(each.address)
        ),
        sorted(
            (names[each.device], each.family, each.destination, each.gateway)
            for each in seen.inside.routes
            if not _own(each.destination)
        ),
        sorted((names[each.device], each.address, each.mac) for each in seen.inside.neighbours),
        sorted(seen.host_neighbours),
    )


def _settings(link: Link) -> Link:
    # Loopback has a carrier and a peer in no sense that the model knows.
    carrier = link.carrier and link.name != "lo"
    return replace(link, index=0, peer=0, peer_nsid=None, traffic=Traffic(), carrier=carrier)


def _own(address: bytes) -> bool:
    """Loopback's addresses, link-local ones, and their routes: none of ours."""
    return address in (b"\x7f\0\0\1", bytes(15) + b"\1") or address[:2] == b"\xfe\x80"


def test_a_route_of_somebody_else_to_our_subnet_stays_beside_ours(ground: Ground) -> None:
    ground.add("web")
    commands = (
        "ip link add tun0 type bridge; ip link set tun0 up;"
        " ip route del 172.27.0.0/16; ip route add 172.27.0.0/16 dev tun0;"
        " ip -6 route del fd00:7e74:1::/64; ip -6 route add fd00:7e74:1::/64 dev tun0"
    )
    sh(commands, "web")
    ground.settle("web")
    assert ground.planned("web") == ()
    for family, subnet in (("-4", "172.27.0.0/16"), ("-6", "fd00:7e74:1::/64")):
        routes = observe.ip_json(family, "route", "show", subnet, netns="web")
        assert {route["dev"] for route in routes} == {"tun0", "eth0"}


def test_what_others_put_inside_stays(ground: Ground) -> None:
    netns.add_many(["web"])
    sh("ip link add br0 type bridge; ip addr add 10.1.0.1/24 dev br0; ip link set br0 up", "web")
    ground.settle("web")
    assert observe.addresses("br0", "web") == {"10.1.0.1/24"}
    assert observe.ip_json("route", "show", "10.1.0.0/24", netns="web")


def test_a_default_route_of_somebody_else_is_left_as_the_only_one(ground: Ground) -> None:
    ground.add("web")
    sh("ip route replace default via 172.27.0.9 dev eth0", "web")
    assert ground.planned("web") == ()
    assert ("172.27.0.9", "eth0") in observe.default_routes("web")


def test_taking_down(ground: Ground) -> None:
    ground.add("web")
    handle, seen = ground.observe("web")
    with handle:
        ground.attachments.apply(plan(None, seen), handle)
        ground.attachments.apply(plan(None, seen), handle)
    assert observe.host_ends() == {}
    assert set(observe.links("web")) == {"lo"}


def test_every_step_is_told_in_turn(ground: Ground) -> None:
    netns.add_many(["web"])
    told: list[steps.Step] = []
    ground.attachments._on_step = told.append
    assert ground.settle("web") == tuple(told)


def test_a_step_that_fails_says_what_and_why(ground: Ground) -> None:
    ground.add("web")
    (end,) = observe.host_ends()
    with pytest.raises(KernelError, match=rf"put {end} on the bridge: the kernel said E\w+ \(") as caught:
        ground.do("web", [steps.JoinBridge(end, 4711)])
    assert str(caught.value).isprintable()
    with pytest.raises(KernelError, match="wait for the carrier of nowhere: the kernel said ENODEV"):
        ground.do("web", [steps.AwaitHostEnd("nowhere")])
    with pytest.raises(KernelError, match="find nowhere inside: the kernel said ENODEV"):
        ground.do("web", [steps.AddAddress("nowhere", b"\x0a\0\0\1", 8)])


def test_nothing_is_done_after_a_step_that_failed(ground: Ground) -> None:
    ground.add("web")
    (end,) = observe.host_ends()
    with pytest.raises(KernelError):
        ground.do("web", [steps.AwaitHostEnd("nowhere"), steps.DeletePair(end)])
    assert set(observe.host_ends()) == {end}


def test_what_is_seen_of_a_namespace(ground: Ground) -> None:
    ground.add("web")
    handle, seen = ground.observe("web")
    handle.close()
    desired = ground.desired("web")
    assert seen.host_end is not None
    assert is_ours(seen.host_end)
    assert (seen.host_end.carrier, seen.host_end.forwarding, seen.host_end.isolated) == (True, True, False)
    assert seen.host_end.ipv6 is False, "host ends are quiet"
    assert isinstance(seen.inside, Inside)
    device = next(each for each in seen.inside.links if each.name == "eth0")
    assert (device.index, device.peer) == (seen.host_end.peer, seen.host_end.index)
    assert device.mac != OTHER_MAC
    assert {each.gateway for each in seen.inside.routes if not each.destination} == set(desired.bridge.gateways)
    assert all(isinstance(route, Route) for route in seen.inside.routes)
    assert seen.host_neighbours == {address for address, _ in desired.addresses}


def test_a_namespace_with_loopback_alone_is_read_by_one_question(ground: Ground) -> None:
    netns.add_many(["web"])
    handle, seen = ground.observe("web")
    handle.close()
    assert seen.inside is not None
    assert [link.name for link in seen.inside.links] == ["lo"]
    assert seen.host_end is None
    assert (seen.inside.addresses, seen.inside.routes) == (frozenset(), frozenset())
