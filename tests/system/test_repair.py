"""Point 4: whatever is damaged is put back as it was, soon after the kernel says so."""

import time
from collections.abc import Callable

import pytest

from agent.demo import internet, uplink
from agent.demo.private_host import PrivateHost
from tests.harness import netns, observe
from tests.harness.expect import (
    BRIDGE,
    DEVICE,
    GATEWAY4,
    GATEWAY6,
    SUBNET4,
    SUBNET6,
    Shape,
    address4,
    address6,
    assert_works,
    connects,
    eventually_works,
    host_end,
    shape,
)
from tests.harness.running import Agent
from tests.harness.waiting import eventually

NAMES = ("web", "db")
# Much longer than a repair takes, much shorter than any sweep by a timer.
BY_EVENT = 2.0


def _inside(*command: str) -> Callable[[], object]:
    return lambda: observe.run("ip", *command, netns="web")


def _host(*command: str) -> Callable[[], object]:
    return lambda: observe.run("ip", *command)


def _port(*command: str) -> Callable[[], object]:
    return lambda: observe.run("ip", "link", *command[:1], host_end("web")["ifname"], *command[1:])


def _nft(*command: str) -> Callable[[], object]:
    return lambda: observe.run("nft", *command)


def _delete_rules(family: str, chain: str, word: str) -> Callable[[], object]:
    """Delete the rules of a chain that contain an expression of that name."""

    def delete() -> None:
        rules = [item["rule"] for item in observe.nft_json() if "rule" in item]
        handles = [r["handle"] for r in rules if r["chain"] == chain and r["family"] == family and word in str(r)]
        assert handles
        # All at once: the rules are back, with other handles, sooner than the next nft starts.
        observe.run("nft", "; ".join(f"delete rule {family} vethd {chain} handle {handle}" for handle in handles))

    return delete


def _empty_sets(family: str) -> Callable[[], object]:
    def empty() -> None:
        sets = [item["set"] for item in observe.nft_json() if "set" in item]
        for found in sets:
            if found["family"] == family and found.get("elem"):
                observe.run("nft", "flush", "set", family, "vethd", found["name"])

    return empty


def _address_inside(address: Callable[[str], str], prefix: str) -> Callable[[], object]:
    return lambda: observe.run("ip", "address", "del", address("web") + prefix, "dev", DEVICE, netns="web")


def _new_uplink() -> None:
    """The default route moves to another device, and that has a smaller MTU."""
    far = "ip link add up1 mtu 1400 type veth peer name inet1 mtu 1400"
    observe.run(*far.split())
    observe.run("ip", "link", "set", "up1", "up")
    observe.run("ip", "link", "set", "inet1", "up")
    observe.run("ip", "route", "replace", "default", "dev", "up1")
    observe.run("ip", "-6", "route", "replace", "default", "dev", "up1")


DAMAGE: dict[str, Callable[[], object]] = {
    "host end deleted": _port("del"),
    "host end off the bridge": _port("set", "nomaster"),
    "host end down": _port("set", "down"),
    "host end without alias": _port("set", "alias", ""),
    "host end in another group": _port("set", "group", "0"),
    "host end with another MTU": _port("set", "mtu", "1300"),
    "device deleted inside": _inside("link", "del", DEVICE),
    "device down inside": _inside("link", "set", DEVICE, "down"),
    "loopback down inside": _inside("link", "set", "lo", "down"),
    "device with another MTU": _inside("link", "set", DEVICE, "mtu", "1300"),
    "device with another MAC": _inside("link", "set", DEVICE, "address", "02:00:00:00:00:77"),
    "IPv4 address removed inside": _address_inside(address4, "/16"),
    "IPv6 address removed inside": _address_inside(address6, "/64"),
    "all addresses flushed inside": _inside("address", "flush", "dev", DEVICE),
    "IPv4 default route removed": _inside("route", "del", "default"),
    "IPv6 default route removed": _inside("-6", "route", "del", "default"),
    "IPv4 on-link route removed": _inside("route", "del", SUBNET4),
    "IPv6 on-link route removed": _inside("-6", "route", "del", SUBNET6, "dev", DEVICE),
    "all IPv4 routes flushed": _inside("route", "flush", "table", "main"),
    "neighbours flushed inside": _inside("neighbour", "flush", "nud", "permanent", "dev", DEVICE),
    "neighbours flushed on the bridge": _host("neighbour", "flush", "nud", "permanent", "dev", BRIDGE),
    "bridge deleted": _host("link", "del", BRIDGE),
    "bridge down": _host("link", "set", BRIDGE, "down"),
    "bridge with another MAC": _host("link", "set", BRIDGE, "address", "02:00:00:00:00:88"),
    "bridge with another MTU": _host("link", "set", BRIDGE, "mtu", "1300"),
    "bridge IPv4 address removed": _host("address", "del", f"{GATEWAY4}/16", "dev", BRIDGE),
    "bridge IPv6 address removed": _host("address", "del", f"{GATEWAY6}/64", "dev", BRIDGE),
    "all nftables flushed": _nft("flush", "ruleset"),
    "our nftables flushed": _nft("flush", "table", "inet", "vethd"),
    "our inet table deleted": _nft("delete", "table", "inet", "vethd"),
    "our bridge table deleted": _nft("delete", "table", "bridge", "vethd"),
    "masquerade rules deleted": _delete_rules("inet", "postrouting", "masquerade"),
    "a guard rule deleted": _delete_rules("bridge", "guest4", "drop"),
    "sets of the inet table emptied": _empty_sets("inet"),
    "sets of the bridge table emptied": _empty_sets("bridge"),
    "IPv4 forwarding off": lambda: observe.set_sysctl("net/ipv4/ip_forward", "0"),
    "IPv6 forwarding off": lambda: observe.set_sysctl("net/ipv6/conf/all/forwarding", "0"),
}


def _whole() -> dict[str, object]:
    """Everything that any of the damages changes."""
    bridge = observe.links()[BRIDGE]
    return {
        **{name: shape(name) for name in NAMES},
        "bridge": (observe.addresses(BRIDGE), bridge["mtu"], bridge["address"], "UP" in bridge["flags"]),
        "neighbours": {n["dst"] for n in observe.ip_json("neighbour", "show", "nud", "permanent", "dev", BRIDGE)},
        "rules": _without_handles(observe.nft_json()),
        "forwarding": [observe.sysctl(f"net/{path}") for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")],
    }


def _without_handles(value: object) -> object:
    if isinstance(value, dict) and ("stmt" in value or "dynamic" in value.get("flags", ())):
        # What such a set holds is counted as packets pass.
        value = {**value, "elem": None}
    if isinstance(value, dict):
        return {key: _without_handles(item) for key, item in value.items() if key != "handle"}
    if isinstance(value, list):
        # Sets tell their elements in any order.
        return sorted((_without_handles(item) for item in value), key=repr)
    return value


def _difference(before: dict[str, object]) -> str:
    """What is not as it was; empty when all is."""
    try:
        now = _whole()
    except (AssertionError, KeyError) as error:
        return f"something is missing: {error!r}"
    return "".join(f"\n{key}: was {was}\n now {now[key]}" for key, was in before.items() if was != now[key])


@pytest.fixture
def pair(agent: Agent) -> Agent:
    """The agent, with two namespaces networked."""
    for name in NAMES:
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_repaired(pair: Agent, damage: str) -> None:
    before = _whole()
    assert _difference(before) == ""
    addresses = {name: found["address"] for name, found in pair.namespaces().items()}
    DAMAGE[damage]()
    _eventually_as_before(before)
    for name in NAMES:
        eventually_works(name, 3)
    assert connects("web", "db")
    assert {name: found["address"] for name, found in pair.namespaces().items()} == addresses
    assert {found["state"] for found in pair.namespaces().values()} == {"ready"}


def _eventually_as_before(before: dict[str, object]) -> None:
    deadline = time.monotonic() + BY_EVENT
    while (difference := _difference(before)) and time.monotonic() < deadline:
        pass
    assert difference == ""


def test_repairs_are_told(pair: Agent) -> None:
    before = pair.metric("vethd_drift_repaired_total") or 0
    DAMAGE["IPv4 default route removed"]()
    eventually_works("web")
    eventually(lambda: (pair.metric("vethd_drift_repaired_total") or 0) > before, 2, "the metric counts it")
    eventually(lambda: "repaired" in pair.cli("explain", "web").stdout, 5, "explain tells of it")


def test_the_same_damage_again_and_again_is_repaired_every_time(pair: Agent) -> None:
    for _ in range(5):
        DAMAGE["IPv4 default route removed"]()
        eventually_works("web", 10)


def test_damage_to_one_is_not_felt_by_the_other(private_host: PrivateHost, pair: Agent) -> None:
    with netns.Heartbeat("db", uplink.BEYOND4, internet.ECHO_PORT) as stream:
        stream.await_beats(10)
        before = observe.tcp_retransmits("db", private_host.internet)
        for damage in ("host end deleted", "device down inside"):
            DAMAGE[damage]()
            eventually_works("web")
        stream.await_beats(10)
        assert observe.tcp_retransmits("db", private_host.internet) == before, "not one packet was lost"


def test_a_running_connection_survives_a_flush_of_the_rules(pair: Agent) -> None:
    """It rests meanwhile: an answer that arrives while there are no rules would be reset by the host itself."""
    with netns.socket_in("web", uplink.BEYOND4) as stream:
        stream.settimeout(5)
        stream.connect((uplink.BEYOND4, internet.ECHO_PORT))
        for question in (b"before", b"after"):
            stream.sendall(question)
            assert stream.recv(64) == question
            DAMAGE["all nftables flushed"]()
            eventually(lambda: "masquerade" in observe.nft_text(), BY_EVENT, "the rules are back")


def test_what_others_add_is_left_in_place(pair: Agent) -> None:
    observe.run("ip", "route", "add", "10.1.0.0/16", "via", "172.27.0.9", netns="web")
    observe.run("ip", "address", "add", "10.2.0.1/24", "dev", DEVICE, netns="web")
    observe.run("nft", "add", "table", "inet", "theirs")
    DAMAGE["IPv4 default route removed"]()
    DAMAGE["our inet table deleted"]()
    eventually_works("web")
    assert "10.2.0.1/24" in observe.addresses(DEVICE, "web")
    assert any(route["dst"] == "10.1.0.0/16" for route in observe.ip_json("route", netns="web"))
    assert "table inet theirs" in observe.nft_text()


def test_uplink_changes(pair: Agent) -> None:
    _new_uplink()
    eventually(lambda: observe.links("web")[DEVICE]["mtu"] == 1400, BY_EVENT, "the MTU is that of the new uplink")
    assert pair.ask("/v1/status")[1]["uplink"] == {"device": "up1", "mtu": 1400}
    for family in ("-4", "-6"):
        router = uplink.ROUTER4 if family == "-4" else uplink.ROUTER6
        observe.run("ip", family, "route", "replace", "default", "via", router, "dev", uplink.UPLINK)
    eventually(lambda: observe.links("web")[DEVICE]["mtu"] == 1500, BY_EVENT, "the MTU is the old one again")
    eventually_works("web")


def test_uplink_gets_another_mtu(pair: Agent) -> None:
    observe.run("ip", "link", "set", uplink.UPLINK, "mtu", "1400")
    eventually(lambda: observe.links("web")[DEVICE]["mtu"] == 1400, BY_EVENT, "the MTU follows")
    assert host_end("web")["mtu"] == observe.links()[BRIDGE]["mtu"] == 1400


def test_uplink_goes_and_comes_back(private_host: PrivateHost, pair: Agent) -> None:
    observe.run("ip", "link", "set", uplink.UPLINK, "down")
    eventually(lambda: pair.ask("/v1/status")[1]["uplink"] is None, BY_EVENT, "it is known to be gone")
    assert connects("web", "db")
    observe.run("ip", "link", "set", uplink.UPLINK, "up")
    observe.run("ip", "-6", "address", "replace", f"{uplink.HOST6}/64", "dev", uplink.UPLINK, "nodad")
    observe.run("ip", "route", "replace", "default", "via", uplink.ROUTER4)
    observe.run("ip", "-6", "route", "replace", "default", "via", uplink.ROUTER6)
    eventually_works("web")
    assert_works("db")


def test_a_shape_tells_damage_apart(pair: Agent) -> None:
    """The test of the test: each namespace has its own shape, and it is stable."""
    shapes: set[str] = {repr(shape(name)) for name in NAMES}
    assert len(shapes) == len(NAMES)
    again: Shape = shape("web")
    assert again == shape("web")
