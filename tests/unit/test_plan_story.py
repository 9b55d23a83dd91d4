"""The plan of one namespace, told by examples: what is made, what is repaired by how little, what is left alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.core import steps
from agent.core.identity import alias_of, host_end_mac, host_end_name, netns_mac
from agent.core.plan import plan, remarks
from agent.core.steps import Step
from agent.errors import ForeignDevice
from agent.model import Address, Attachment, Inside, Neighbour, Observed, Route
from tests.unit.model_kernel import ModelKernel
from tests.unit.model_routes import AF_INET, AF_INET6
from tests.unit.worlds import LOOPBACK, OTHER_MAC, attachment, empty_world, link, network

DESIRED = attachment()
NAME = host_end_name(DESIRED.cookie)
GATEWAY4, GATEWAY6 = DESIRED.bridge.gateways
ADDRESS4, ADDRESS6 = (address for address, _ in DESIRED.addresses)
MAC = netns_mac(DESIRED.lease.address)


def networked(desired: Attachment = DESIRED) -> ModelKernel:
    """A namespace that is as it should be."""
    kernel = empty_world(desired).kernel
    return kernel.run(plan(desired, kernel.seen))


def planned(kernel: ModelKernel, desired: Attachment = DESIRED) -> list[Step]:
    return list(plan(desired, kernel.seen))


def kinds(kernel: ModelKernel, desired: Attachment = DESIRED) -> list[str]:
    return [type(step).__name__ for step in plan(desired, kernel.seen)]


def test_a_new_namespace_from_nothing_to_the_first_packet() -> None:
    bridge = DESIRED.bridge
    assert planned(empty_world(DESIRED).kernel) == [
        steps.CreatePair(NAME, host_end_mac(DESIRED.lease), "eth0", MAC, 1500),
        steps.MarkHostEnd(NAME, "vethd:web"),
        steps.QuietHostEnd(NAME),
        steps.RaiseHostEnd(NAME),
        steps.RaiseLoopback(),
        steps.RaiseDevice("eth0"),
        steps.AwaitDevice("eth0"),
        steps.AddAddress("eth0", ADDRESS4, 16),
        steps.AddAddress("eth0", ADDRESS6, 64),
        steps.AddGatewayNeighbour("eth0", GATEWAY4, bridge.mac),
        steps.AddGatewayNeighbour("eth0", GATEWAY6, bridge.mac),
        steps.AwaitHostEnd(NAME),
        steps.Admit(NAME, DESIRED.lease),
        steps.AddHostNeighbour(bridge.index, ADDRESS4, MAC),
        steps.AddHostNeighbour(bridge.index, ADDRESS6, MAC),
        steps.JoinBridge(NAME, bridge.index),
        steps.AwaitBridge("vethd0"),
        steps.AwaitAddress(ADDRESS6),
        steps.AddDefaultRoute("eth0", 10, GATEWAY6),
        steps.AddDefaultRoute("eth0", 2, GATEWAY4),
    ]


def test_adopting_what_stands_does_nothing() -> None:
    assert planned(networked()) == []


def test_the_network_decides_on_name_mtu_isolation_and_guard() -> None:
    desired = attachment(network(subnet6="", interface="net0", mtu=9000, isolate=True, anti_spoof=False))
    found = planned(empty_world(desired).kernel, desired)
    assert steps.CreatePair(NAME, host_end_mac(DESIRED.lease), "net0", MAC, 9000) in found
    assert steps.JoinBridge(NAME, desired.bridge.index) in found
    assert steps.SetIsolated(NAME, True) in found
    assert not [step for step in found if isinstance(step, steps.Admit | steps.AwaitAddress)]
    assert sum(isinstance(step, steps.AddDefaultRoute) for step in found) == 1


def without(kernel: ModelKernel, **kinds_of: Callable[[Any], bool]) -> ModelKernel:
    """Take addresses, routes or neighbours away that a predicate names."""
    inside = kernel.inside
    kept: dict[str, Any] = {
        kind: frozenset(each for each in getattr(inside, kind) if not gone(each)) for kind, gone in kinds_of.items()
    }
    kernel.seen = replace(kernel.seen, inside=replace(inside, **kept))
    return kernel


def device_set(kernel: ModelKernel, **changes: object) -> ModelKernel:
    links = tuple(
        replace(each, **changes) if each.index == kernel.inner else each  # type: ignore[arg-type]
        for each in kernel.inside.links
    )
    kernel.seen = replace(kernel.seen, inside=replace(kernel.inside, links=links))
    return kernel


def host_end_set(kernel: ModelKernel, **changes: object) -> ModelKernel:
    assert kernel.seen.host_end is not None
    kernel.seen = replace(kernel.seen, host_end=replace(kernel.seen.host_end, **changes))  # type: ignore[arg-type]
    return kernel


def default_gone(route: Route) -> bool:
    return route.family == AF_INET and not route.destination


def default6_gone(route: Route) -> bool:
    return route.family == AF_INET6 and not route.destination


@pytest.mark.parametrize(
    ("damage", "repair"),
    [
        (lambda k: without(k, routes=default_gone), ["AddDefaultRoute"]),
        # The one of IPv6 says that the address was waited for.
        (lambda k: without(k, routes=default6_gone), ["AwaitAddress", "AddDefaultRoute"]),
        (lambda k: without(k, routes=lambda r: r.family == AF_INET and r.destination), ["AddOnLinkRoute"]),
        (lambda k: without(k, addresses=lambda a: a.address == ADDRESS4), ["AddAddress"]),
        (lambda k: without(k, addresses=lambda a: a.address == ADDRESS6), ["AddAddress", "AwaitAddress"]),
        (lambda k: without(k, neighbours=lambda n: n.address == GATEWAY6), ["AddGatewayNeighbour"]),
        (lambda k: device_set(k, mtu=1400), ["SetDeviceMtu"]),
        (lambda k: device_set(k, name="lan0"), []),
        (lambda k: device_set(k, mac=OTHER_MAC), ["SetDeviceMac", "AddGatewayNeighbour", "AddGatewayNeighbour"]),
        (lambda k: host_end_set(k, mtu=1400), ["SetHostEndMtu"]),
        (lambda k: host_end_set(k, alias="somebody's"), ["MarkHostEnd"]),
        (lambda k: host_end_set(k, group=0), ["MarkHostEnd"]),
        (lambda k: host_end_set(k, isolated=True), ["SetIsolated"]),
        (lambda k: host_end_set(k, master=0), ["AwaitHostEnd", "Admit", "JoinBridge", "AwaitBridge"]),
        (lambda k: host_end_set(k, master=99), ["AwaitHostEnd", "Admit", "JoinBridge", "AwaitBridge"]),
    ],
)
def test_one_damage_takes_one_repair(damage: Callable[[ModelKernel], ModelKernel], repair: list[str]) -> None:
    kernel = damage(networked())
    assert kinds(kernel) == repair
    assert kinds(kernel.run(planned(kernel))) == []


def test_a_renamed_device_is_repaired_under_its_new_name() -> None:
    kernel = without(device_set(networked(), name="lan0"), routes=default_gone)
    assert planned(kernel) == [steps.AddDefaultRoute("lan0", 2, GATEWAY4)]


def test_what_lost_its_other_end_is_made_anew() -> None:
    kernel = networked()
    kernel.seen = replace(kernel.seen, inside=Inside((LOOPBACK,)))
    kernel.inner = None
    assert kinds(kernel)[:2] == ["DeletePair", "CreatePair"]


def test_a_pair_of_another_lease_is_made_anew() -> None:
    assert kinds(networked(), attachment(index=3))[:2] == ["DeletePair", "CreatePair"]


def test_ipv6_turned_off_inside_is_respected_and_ipv4_repaired() -> None:
    kernel = without(device_set(networked(), ipv6=False), addresses=lambda _: True, routes=lambda _: True)
    assert planned(kernel) == [steps.AddAddress("eth0", ADDRESS4, 16), steps.AddDefaultRoute("eth0", 2, GATEWAY4)]


def test_a_default_route_of_somebody_else_stays_the_only_one_and_is_told_of() -> None:
    kernel = networked()
    theirs = Route(AF_INET, b"", 0, b"\x0a\0\0\1", 9, 0)
    routes = {route for route in kernel.inside.routes if not default_gone(route)} | {theirs}
    kernel.seen = replace(kernel.seen, inside=replace(kernel.inside, routes=frozenset(routes)))
    assert planned(kernel) == []
    assert remarks(DESIRED, kernel.seen) == ("somebody else's default route by device 9 is left alone",)
    assert remarks(DESIRED, networked().seen) == ()
    assert remarks(DESIRED, Observed(DESIRED.cookie, None, None)) == ()


def test_one_of_another_metric_stands_beside_ours() -> None:
    kernel = without(networked(), routes=default_gone)
    theirs = Route(AF_INET, b"", 0, b"\x0a\0\0\1", 9, 100)
    kernel.seen = replace(kernel.seen, inside=replace(kernel.inside, routes=kernel.inside.routes | {theirs}))
    assert planned(kernel) == [steps.AddDefaultRoute("eth0", 2, GATEWAY4)]


def test_our_ipv6_address_with_somebody_s_prefix_gets_the_route_that_it_lacks() -> None:
    kernel = networked()
    inside = kernel.inside
    addresses = {each for each in inside.addresses if each.address != ADDRESS6} | {Address(2, ADDRESS6, 128)}
    routes = {route for route in inside.routes if route.prefix != 64}
    kernel.seen = replace(kernel.seen, inside=replace(inside, addresses=frozenset(addresses), routes=frozenset(routes)))
    assert planned(kernel) == [steps.AddOnLinkRoute("eth0", ADDRESS6, 64)]


def test_a_wrong_neighbour_of_the_gateway_is_put_right() -> None:
    kernel = without(networked(), neighbours=lambda each: each.address == GATEWAY4)
    wrong = frozenset({*kernel.inside.neighbours, Neighbour(2, GATEWAY4, OTHER_MAC)})
    kernel.seen = replace(kernel.seen, inside=replace(kernel.inside, neighbours=wrong))
    assert planned(kernel) == [steps.AddGatewayNeighbour("eth0", GATEWAY4, DESIRED.bridge.mac)]


def test_foreign_devices_are_named_with_what_to_do() -> None:
    inside = Inside((LOOPBACK, link(2, "eth0", "dummy")))
    with pytest.raises(ForeignDevice) as taken:
        plan(attachment(name="a\nb"), Observed(DESIRED.cookie, None, inside))
    assert str(taken.value) == (
        "a\\x0ab: has a device eth0 that vethd did not make; rename it or set network.default.interface"
    )
    stranger = link(900, NAME, "dummy", alias=alias_of("web"))
    with pytest.raises(ForeignDevice) as strange:
        plan(DESIRED, Observed(DESIRED.cookie, stranger, Inside((LOOPBACK,))))
    assert str(strange.value) == (
        f"web: the host has a device {NAME} that vethd did not make; rename or remove it: ip link del {NAME}"
    )


def test_taking_down_deletes_the_pair_and_nothing_else() -> None:
    assert plan(None, networked().seen) == (steps.DeletePair(NAME),)
    assert plan(None, empty_world(DESIRED).kernel.seen) == ()
    stranger = link(900, NAME, "dummy")
    assert plan(None, Observed(DESIRED.cookie, stranger, None)) == ()
