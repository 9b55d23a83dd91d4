"""The plan of one namespace: from any state of disrepair to the desired one, by legal steps, crash or no crash."""

from dataclasses import replace

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from agent.core import steps
from agent.core.fits import device_fits, host_end_fits
from agent.core.identity import alias_of, host_end_mac, host_end_name, is_ours, netns_mac
from agent.core.plan import our_link, plan
from agent.core.steps import Step
from agent.errors import ForeignDevice
from agent.model import LINK_GROUP, Attachment, Link, Route
from tests.unit.model_kernel import ModelKernel
from tests.unit.model_routes import DEFAULT_METRIC, addresses_of, covers
from tests.unit.worlds import World, hindered_worlds, worlds


def shortcomings(desired: Attachment, kernel: ModelKernel) -> list[str]:
    """What is not as it should be, told without the planner's help."""
    host, inner, inside = kernel.seen.host_end, kernel.inner, kernel.inside
    if host is None or inner is None:
        return ["there is no pair"]
    device = next(link for link in inside.links if link.index == inner)
    loopback = next(link for link in inside.links if link.name == "lo")
    lease, bridge = desired.lease, desired.bridge
    wanted: dict[str, bool] = {
        "loopback": loopback.up,
        "host end": host.up and host.carrier and host.name == host_end_name(desired.cookie),
        "mark": (host.alias, host.group) == (alias_of(desired.name), LINK_GROUP),
        "lease on the host end": host.mac == host_end_mac(lease),
        "mtu": (host.mtu, device.mtu) == (bridge.mtu, bridge.mtu),
        "device": device.up and device.carrier and device.mac == netns_mac(lease.address),
        "host neighbours": kernel.seen.host_neighbours == set(addresses_of(lease)),
    }
    if lease.routed:
        wanted |= {
            "off any bridge": host.master == 0,
            "IPv6 at the host end": host.ipv6,
            "host routes": kernel.seen.host_routes == set(addresses_of(lease)),
            "answers": kernel.seen.proxied == {each for each in addresses_of(lease) if len(each) == 16},
        }
    else:
        wanted |= {
            "forwarding": host.forwarding,
            "port": (host.master, host.isolated) == (bridge.index, desired.network.isolate),
        }
    gateway_mac = host.mac if lease.routed else bridge.mac
    for address, prefix in desired.addresses:
        if not device.ipv6 and len(address) == 16:
            continue
        held = {each.prefix for each in inside.addresses if (each.device, each.address) == (inner, address)}
        # The kernel keeps an IPv6 address once only: somebody's prefix may stand in the place of ours.
        wanted[f"address {address!r}"] = prefix in held or (len(address) == 16 and bool(held))
        via = next(each for each in bridge.gateways if len(each) == len(address)) if lease.routed else b""
        wanted[f"subnet route of {address!r}"] = any(
            route.device == inner and route.gateway == via and route.prefix == prefix and covers(route, address)
            for route in inside.routes
        )
    for gateway in bridge.gateways:
        if not device.ipv6 and len(gateway) == 16:
            continue
        entry = {each.mac for each in inside.neighbours if (each.device, each.address) == (inner, gateway)}
        wanted[f"neighbour {gateway!r}"] = entry == {gateway_mac}
        wanted[f"default route by {gateway!r}"] = any(
            (route.device == inner and route.gateway == gateway) or _takes_the_place(route, gateway)
            for route in inside.routes
            if not route.destination
        )
    return [what for what, is_so in wanted.items() if not is_so]


def _takes_the_place(route: Route, gateway: bytes) -> bool:
    family = 2 if len(gateway) == 4 else 10
    return route.family == family and route.metric == DEFAULT_METRIC[family]


def obstacle(world: World) -> Link | None:
    """The device of somebody else that bears a name which vethd would have to use."""
    host = world.kernel.seen.host_end
    if host is not None and not is_ours(host):
        return host
    inner = world.kernel.inner
    stays = host is not None and inner is not None and host.mac == host_end_mac(world.desired.lease)
    for link in world.kernel.inside.links:
        if not stays and link.index != inner and link.name == world.desired.network.interface:
            return link
    return None


def foreign(kernel: ModelKernel) -> tuple[object, ...]:
    """Everything inside that is not ours to change."""
    inside = kernel.inside
    strangers = [link for link in inside.links if link.name != "lo" and link.index != kernel.inner]
    theirs = {link.index for link in inside.links if link.index != kernel.inner}
    return (
        strangers,
        {each for each in inside.addresses if each.device in theirs},
        {each for each in inside.routes if each.device in theirs},
        {each for each in inside.neighbours if each.device in theirs},
    )


def planned(world: World) -> tuple[Step, ...]:
    assume(obstacle(world) is None)
    return plan(world.desired, world.kernel.seen)


@given(worlds())
def test_from_any_state_to_the_desired_one(world: World) -> None:
    steps_ = planned(world)
    event(f"{len(steps_)} steps")
    world.kernel.run(steps_)
    assert shortcomings(world.desired, world.kernel) == []
    assert plan(world.desired, world.kernel.seen) == ()


@given(worlds())
def test_says_nothing_exactly_when_nothing_is_wrong(world: World) -> None:
    assert (planned(world) == ()) == (shortcomings(world.desired, world.kernel) == [])


@given(worlds(), st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_killed_anywhere_the_next_plan_puts_it_right(world: World, cuts: list[float]) -> None:
    for cut in cuts:
        steps_ = planned(world)
        world.kernel.run(steps_[: round(cut * len(steps_))])
    world.kernel.run(plan(world.desired, world.kernel.seen))
    assert shortcomings(world.desired, world.kernel) == []
    assert plan(world.desired, world.kernel.seen) == ()


@given(worlds())
def test_every_step_may_be_done_twice(world: World) -> None:
    once, twice = world.kernel.copy(), world.kernel.copy()
    for step in planned(world):
        once.apply(step)
        twice.apply(step)
        twice.apply(step)
        assert twice.seen == once.seen


@given(worlds())
def test_a_plan_may_be_done_twice(world: World) -> None:
    steps_ = planned(world)
    world.kernel.run(steps_).run(steps_)
    assert shortcomings(world.desired, world.kernel) == []


@given(worlds())
def test_what_is_not_ours_stays_as_it_is(world: World) -> None:
    before = world.kernel.copy()
    steps_ = planned(world)
    world.kernel.run(steps_)
    assert foreign(world.kernel) == foreign(before)
    if not any(isinstance(step, steps.CreatePair) for step in steps_):
        # On our own device, too, others may have put things.
        assert world.kernel.inside.addresses >= before.inside.addresses
        assert world.kernel.inside.routes >= before.inside.routes


@given(hindered_worlds())
def test_a_device_of_somebody_else_is_told_of_and_left_alone(world: World) -> None:
    stranger = obstacle(world)
    assert stranger is not None
    with pytest.raises(ForeignDevice) as caught:
        plan(world.desired, world.kernel.seen)
    assert stranger.name in str(caught.value)
    assert str(caught.value).isprintable()


@given(worlds())
def test_take_down_removes_our_pair_alone(world: World) -> None:
    before = world.kernel.copy()
    host = before.seen.host_end
    world.kernel.run(plan(None, world.kernel.seen))
    assert foreign(world.kernel) == foreign(before)
    if host is None or not is_ours(host):
        assert world.kernel.seen == before.seen
    else:
        assert world.kernel.seen.host_end is None
        assert world.kernel.inner is None
    assert plan(None, world.kernel.seen) == ()


@given(worlds())
def test_take_down_needs_no_look_inside(world: World) -> None:
    outside = replace(world.kernel.seen, inside=None)
    assert plan(None, outside) == plan(None, world.kernel.seen)


@given(worlds())
def test_order_of_the_first_packet(world: World) -> None:
    steps_ = planned(world)
    place = {type(step): number for number, step in reversed(list(enumerate(steps_)))}
    last = {type(step): number for number, step in enumerate(steps_)}
    if steps.AddDefaultRoute in place:
        rest = [last[kind] for kind in last if kind not in (steps.AddDefaultRoute, steps.AddSubnetRoute)]
        assert place[steps.AddDefaultRoute] > max(rest, default=-1), "the default routes come last"
    if steps.AddHostRoute in place:
        assert place[steps.AwaitHostEnd] < place[steps.AddHostRoute]
        assert (steps.Admit in place) == world.desired.network.anti_spoof
    if steps.JoinBridge in place:
        assert place[steps.AwaitHostEnd] < place[steps.JoinBridge] < place[steps.AwaitBridge]
        assert (steps.Admit in place) == world.desired.network.anti_spoof
    if steps.Admit in place:
        after = steps.AddHostRoute if world.desired.lease.routed else steps.JoinBridge
        assert place[steps.Admit] < place.get(after, len(steps_))
    for kind, number in place.items():
        if kind not in (steps.CreatePair, steps.DeletePair) and steps.CreatePair in place:
            assert number > place[steps.CreatePair], "nothing is done to a device before it is there"


@given(worlds())
def test_our_link_is_the_pair_s_other_end(world: World) -> None:
    found = our_link(world.kernel.seen)
    if found is not None:
        assert found.index == world.kernel.inner
    elif world.kernel.inner is not None:
        assert world.kernel.seen.host_end is not None
        assert not is_ours(world.kernel.seen.host_end)


@given(worlds())
def test_a_device_that_fits_is_left_alone_and_one_that_does_not_is_not(world: World) -> None:
    """What an event shows is judged by `fits` alone, so both must be of one mind."""
    steps_ = planned(world)
    host, device = world.kernel.seen.host_end, our_link(world.kernel.seen)
    if host is None or device is None:
        return
    at_host_end = (
        steps.MarkHostEnd, steps.RaiseHostEnd, steps.RaiseRoutedHostEnd, steps.SetHostEndMtu,
        steps.JoinBridge, steps.SetIsolated, steps.LeaveBridge, steps.CreatePair,
    )  # fmt: skip
    at_device = (steps.RaiseDevice, steps.SetDeviceMtu, steps.SetDeviceMac)
    if steps.CreatePair not in map(type, steps_):
        assert host_end_fits(host, world.desired) == (not any(isinstance(step, at_host_end) for step in steps_))
        assert device_fits(device, world.desired) == (not any(isinstance(step, at_device) for step in steps_))
    else:
        assert not host_end_fits(host, world.desired)
