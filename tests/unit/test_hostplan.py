"""The host's side: from any state to bridges, addresses, forwarding; what is not ours is refused, never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.core import hostplan
from agent.core.hostplan import (
    ACCOUNTING,
    FORWARDING,
    FORWARDING6,
    SETTINGS,
    AddBridgeAddress,
    HostSeen,
    HostStep,
    MakeBridge,
    SetBridge,
    WriteSetting,
    bridge_of,
    conflicts,
    host_plan,
    is_our_bridge,
    network_mtu,
    originals_in,
)
from agent.core.identity import bridge_alias, bridge_mac
from agent.errors import HostError
from agent.model import Address, Link, Network, Route, Uplink
from tests.unit.model_host import ModelHost
from tests.unit.model_routes import SMALLEST_IPV6_MTU, on_link
from tests.unit.worlds import OTHER_MAC, link, network

UPLINK = Uplink("up0", 2, 1500)
WEB = network("default")
LAB = network("lab", "10.9.0.0/24", "", bridge="vethd-lab", mtu=9000)
BEFORE = {FORWARDING: "0", FORWARDING6: "0"}
THEIRS = frozenset({Address(2, b"\xc0\0\2\2", 24)})
THEIR_ROUTES = frozenset({Route(2, b"", 0, b"\xc0\0\2\1", 2, 0), Route(2, b"\xc0\0\2\0", 24, b"", 2, 0)})


def fresh(*networks: Network, settings: Mapping[str, str | None] | None = None) -> HostSeen:
    bridges: dict[str, Link | None] = {each.bridge: None for each in networks}
    return HostSeen(bridges, THEIRS, THEIR_ROUTES, BEFORE if settings is None else settings, UPLINK)


def gateways(net: Network) -> list[IPv4Interface | IPv6Interface]:
    return [net.gateway] if net.gateway6 is None else [net.gateway, net.gateway6]


def shortcomings(networks: Sequence[Network], seen: HostSeen, originals: Mapping[str, str]) -> list[str]:
    wrong = []
    for net in networks:
        bridge = seen.bridges[net.bridge]
        if bridge is None:
            wrong.append(f"no {net.bridge}")
            continue
        mtu = net.mtu or (seen.uplink.mtu if seen.uplink else 1500)
        if (bridge.kind, bridge.up, bridge.mac, bridge.mtu) != ("bridge", True, bridge_mac(net.subnet), mtu):
            wrong.append(f"{bridge}")
        if not is_our_bridge(bridge) or originals_in(bridge.alias) != originals:
            wrong.append(f"alias {bridge.alias}")
        for gateway in gateways(net):
            if not any((each.device, each.address) == (bridge.index, gateway.packed) for each in seen.addresses):
                wrong.append(f"no {gateway}")
            destination, prefix = gateway.network.network_address.packed, gateway.network.prefixlen
            if not any(
                (each.device, each.destination, each.prefix) == (bridge.index, destination, prefix)
                for each in seen.routes
            ):
                wrong.append(f"no route to {gateway.network}")
    six = any(net.subnet6 for net in networks)
    wrong += [name for name in (FORWARDING, FORWARDING6) if seen.settings[name] == "0" and (six or name == FORWARDING)]
    return wrong


_ALIASES = st.sampled_from(["", *map(bridge_alias, ("default", "former", "lab restore a=b"))])


@st.composite
def hosts(draw: st.DrawFn) -> tuple[tuple[Network, ...], HostSeen, dict[str, str]]:
    """Networks, and a host on which they stand, or in part, or not at all; no foreign bridges."""
    mtu = draw(st.sampled_from([0, 1280, 9000]))
    subnet6 = draw(st.sampled_from(["fd00:7e74:1::/64", ""]))
    networks = (network("default", mtu=mtu, subnet6=subnet6), *draw(st.sampled_from([(), (LAB,)])))
    originals = draw(st.dictionaries(st.sampled_from([FORWARDING, FORWARDING6]), st.sampled_from("02")))
    bridges: dict[str, Link | None] = {}
    addresses, routes = set(THEIRS), set(THEIR_ROUTES)
    for place, net in enumerate(networks):
        index, up = 10 + place, draw(st.booleans())
        ours = link(
            index, net.bridge, "bridge", up=up,
            mac=draw(st.sampled_from([bridge_mac(net.subnet), OTHER_MAC])),
            mtu=draw(st.sampled_from([900, 1280, 1500, 9000])),
            alias=draw(_ALIASES),
        )  # fmt: skip
        if ours.alias == "":
            ours = replace(ours, mac=bridge_mac(net.subnet))
        bridges[net.bridge] = draw(st.sampled_from([None, ours]))
        if bridges[net.bridge] is None:
            continue
        for gateway in gateways(net):
            prefix = draw(st.sampled_from([None, gateway.network.prefixlen, gateway.max_prefixlen]))
            if prefix is not None and (gateway.version == 4 or ours.mtu >= SMALLEST_IPV6_MTU):
                addresses.add(Address(index, gateway.packed, prefix))
            if up and draw(st.booleans()):
                routes.add(on_link(index, gateway.packed, gateway.network.prefixlen, 0))
    settings = {name: draw(st.sampled_from([None, "0", "1"])) for name in (FORWARDING, FORWARDING6)}
    uplink = draw(st.sampled_from([None, UPLINK, Uplink("up0", 2, 1400)]))
    return networks, HostSeen(bridges, frozenset(addresses), frozenset(routes), settings, uplink), originals


@given(hosts(), st.floats(0, 1))
def test_from_any_state_to_the_desired_one_crash_or_no_crash(
    host: tuple[tuple[Network, ...], HostSeen, dict[str, str]], cut: float
) -> None:
    networks, seen, originals = host
    first = host_plan(networks, seen, originals)
    assert (first == ()) == (shortcomings(networks, seen, originals) == [])
    kernel = ModelHost(seen).run(first[: round(cut * len(first))])
    kernel.run(host_plan(networks, kernel.seen, originals))
    assert shortcomings(networks, kernel.seen, originals) == []
    assert host_plan(networks, kernel.seen, originals) == ()
    assert kernel.seen.addresses >= seen.addresses
    assert kernel.seen.routes >= seen.routes


@given(hosts())
def test_every_step_but_making_the_bridge_may_be_done_twice(
    host: tuple[tuple[Network, ...], HostSeen, dict[str, str]],
) -> None:
    networks, seen, originals = host
    once, twice = ModelHost(seen), ModelHost(seen)
    for step in host_plan(networks, seen, originals):
        once.apply(step)
        twice.apply(step)
        if not isinstance(step, MakeBridge):
            twice.apply(step)
        assert once.seen == twice.seen


ANSWERS = [
    WriteSetting("net/ipv4/conf/vethd0/proxy_arp", "1"),
    WriteSetting("net/ipv4/neigh/vethd0/proxy_delay", "0"),
    WriteSetting("net/ipv6/conf/vethd0/proxy_ndp", "1"),
    WriteSetting("net/ipv6/neigh/vethd0/proxy_delay", "0"),
]


def forwarding(steps: Sequence[HostStep]) -> list[WriteSetting]:
    """What is written but for the bridges' own settings."""
    return [step for step in steps if isinstance(step, WriteSetting) and step.name in SETTINGS]


def test_a_bridge_that_no_longer_answers_for_the_routed_is_put_right() -> None:
    seen = ModelHost(fresh(WEB)).run(host_plan([WEB], fresh(WEB), {})).seen
    forgetful = replace(seen, settings={**seen.settings, ANSWERS[0].name: "0", ANSWERS[2].name: None})
    assert host_plan([WEB], forgetful, {}) == (ANSWERS[0],)


def test_a_fresh_host() -> None:
    assert host_plan([WEB], fresh(WEB), BEFORE) == (
        MakeBridge("vethd0", bridge_mac(WEB.subnet), 1500),
        SetBridge(
            "vethd0",
            bridge_mac(WEB.subnet),
            1500,
            "vethd:network default restore net/ipv4/ip_forward=0 net/ipv6/conf/all/forwarding=0",
        ),
        AddBridgeAddress("vethd0", WEB.gateway),
        AddBridgeAddress("vethd0", WEB.gateway6),  # type: ignore[arg-type]
        *ANSWERS,
        WriteSetting(FORWARDING, "1"),
        WriteSetting(FORWARDING6, "1"),
    )


def test_originals_are_written_down_before_a_setting_is_changed() -> None:
    kinds = [type(step) for step in host_plan([WEB, LAB], fresh(WEB, LAB), BEFORE)]
    assert kinds.index(WriteSetting) > max(place for place, kind in enumerate(kinds) if kind is SetBridge)


def test_without_ipv6_its_forwarding_is_nobody_s_business() -> None:
    steps = host_plan([LAB], fresh(LAB), {})
    assert [step.name for step in forwarding(steps)] == [FORWARDING]
    assert hostplan.needed_settings([LAB]) == {FORWARDING: "1"}
    assert hostplan.needed_settings([LAB, WEB]) == {FORWARDING: "1", FORWARDING6: "1"}


def test_settings_that_the_kernel_has_not_are_not_written() -> None:
    steps = host_plan([WEB], fresh(WEB, settings={FORWARDING: "1", FORWARDING6: None}), {})
    assert not forwarding(steps)


@pytest.mark.parametrize(
    "stranger",
    [
        link(9, "vethd0", "dummy", mac=bridge_mac(WEB.subnet)),
        link(9, "vethd0", "bridge", alias="docker"),
        link(9, "vethd0", "bridge", alias="a vethd:network default"),
        link(9, "vethd0", "veth", alias=bridge_alias("default")),
    ],
)
def test_a_device_of_somebody_else_is_refused_and_named(stranger: Link) -> None:
    seen = replace(fresh(WEB), bridges={"vethd0": stranger})
    with pytest.raises(HostError) as caught:
        host_plan([WEB], seen, {})
    assert str(caught.value) == (
        "the host has a device vethd0 that vethd did not make; remove it (ip link del vethd0)"
        " or set network.default.bridge"
    )


def test_a_bridge_that_was_made_when_the_agent_died_is_recognised() -> None:
    half = link(9, "vethd0", "bridge", mac=bridge_mac(WEB.subnet), up=False)
    steps = host_plan([WEB], replace(fresh(WEB), bridges={"vethd0": half}), {})
    assert isinstance(steps[0], SetBridge)


_SETTINGS = st.dictionaries(st.sampled_from(SETTINGS), st.text("0123456789", min_size=1, max_size=3))


@given(st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True), _SETTINGS)
def test_originals_are_read_back_from_the_alias(name: str, originals: dict[str, str]) -> None:
    net = replace(WEB, name=name)
    (alias,) = [step.alias for step in host_plan([net], fresh(net), originals) if isinstance(step, SetBridge)]
    assert originals_in(alias) == originals
    assert len(alias.encode()) <= 255
    assert is_our_bridge(link(9, "vethd0", "bridge", alias=alias))


@given(st.text())
def test_any_alias_can_be_read(alias: str) -> None:
    assert originals_in(alias).keys() <= set(SETTINGS)
    assert originals_in("vethd:network web") == {}


def test_an_alias_that_somebody_wrote_cannot_have_any_file_written() -> None:
    assert originals_in(f"vethd:network web restore kernel/core_pattern=|/x ../../etc/x=1 {FORWARDING}=0") == {
        FORWARDING: "0"
    }


def test_accounting_is_switched_on_where_it_is_wanted_and_there() -> None:
    settings = {FORWARDING: "1", FORWARDING6: "1", ACCOUNTING: "0"}
    seen = fresh(WEB, settings=settings)
    assert WriteSetting(ACCOUNTING, "1") in host_plan([WEB], seen, {}, accounting=True)
    assert not forwarding(host_plan([WEB], seen, {}))
    without = fresh(WEB, settings=settings | {ACCOUNTING: None})
    assert not forwarding(host_plan([WEB], without, {}, accounting=True))


def test_mtu_is_the_network_s_or_the_uplink_s() -> None:
    assert network_mtu(LAB, UPLINK) == 9000
    assert network_mtu(WEB, Uplink("up0", 2, 1400)) == 1400
    assert network_mtu(WEB, None) == 1500


def test_what_namespaces_need_to_know_of_their_bridge() -> None:
    assert bridge_of(WEB, fresh(WEB)) is None
    kernel = ModelHost(fresh(WEB)).run(host_plan([WEB], fresh(WEB), {}))
    bridge = bridge_of(WEB, kernel.seen)
    assert bridge is not None
    assert (bridge.name, bridge.mac, bridge.mtu) == ("vethd0", bridge_mac(WEB.subnet), 1500)
    assert bridge.gateways == (WEB.gateway.packed, WEB.gateway6.packed if WEB.gateway6 else b"")


def route_to(subnet: str, device: int) -> Route:
    net = IPv6Network(subnet) if ":" in subnet else IPv4Network(subnet)
    return Route(2 if net.version == 4 else 10, net.network_address.packed, net.prefixlen, b"", device, 0)


@pytest.mark.parametrize(
    ("subnet", "conflict"),
    [
        ("172.27.0.0/16", "172.27.0.0/16"),
        ("172.27.9.0/24", "172.27.0.0/16"),
        ("172.16.0.0/12", "172.27.0.0/16"),
        ("172.27.255.255/32", "172.27.0.0/16"),
        ("172.28.0.0/16", None),
        ("172.26.0.0/16", None),
        ("fd00:7e74:1::/64", "fd00:7e74:1::/64"),
        ("fd00::/8", "fd00:7e74:1::/64"),
        ("fd00:7e74:1:1::/64", None),
    ],
)
def test_a_subnet_that_the_host_routes_elsewhere_is_a_conflict(subnet: str, conflict: str | None) -> None:
    seen = replace(fresh(WEB), routes=THEIR_ROUTES | {route_to(subnet, 2)})
    assert conflicts(WEB, seen) == (None if conflict is None else (conflict, 2))


def test_our_own_bridge_is_no_conflict_a_default_route_neither() -> None:
    kernel = ModelHost(fresh(WEB)).run(host_plan([WEB], fresh(WEB), {}))
    assert conflicts(WEB, kernel.seen) is None
    assert conflicts(WEB, fresh(WEB)) is None


@given(st.ip_addresses(v=4), st.integers(1, 32))
def test_conflicts_are_overlaps(address: object, prefix: int) -> None:
    net = IPv4Network((int(address), prefix), strict=False)  # type: ignore[call-overload]
    assume(net.prefixlen)
    found = conflicts(WEB, replace(fresh(WEB), routes=frozenset({route_to(str(net), 2)})))
    assert (found is not None) == net.overlaps(WEB.subnet)
