"""A network is larger than its bridge: beyond its ports namespaces are routed, and nobody has to do anything."""

import time
from pathlib import Path

import pytest

from agent.demo import internet, probe, uplink
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import (
    BRIDGE,
    GATEWAY4,
    GATEWAY6,
    address4,
    address6,
    assert_works,
    eventually_works,
    host_end,
)
from tests.harness.running import Agent
from tests.harness.waiting import eventually

PORTS = 2
NAMES = ("port1", "port2", "routed1", "routed2")
FIRST_PACKET_LIMIT = 0.5
BY_EVENT = 2.0


@pytest.fixture
def agent(start_agent: StartAgent) -> Agent:
    """With four namespaces, half of them beyond the edge."""
    agent = start_agent({"network.default": {"bridge_ports": PORTS}})
    for name in NAMES:
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


def on_bridge() -> set[str]:
    return {link["ifalias"].removeprefix("vethd:") for link in observe.links().values() if link.get("master") == BRIDGE}


def leases(agent: Agent) -> int:
    return int(agent.ask("/v1/status")[1]["networks"][0]["leases"])


def test_over_the_edge_each_still_reaches_each(agent: Agent) -> None:
    assert on_bridge() == {"port1", "port2"}
    for name in NAMES:
        assert_works(name)
        for other in NAMES:
            assert netns.ping(name, address4(other)) == 1
            assert netns.ping(name, address6(other)) == 1
    assert agent.metric("vethd_bridge_ports", device=BRIDGE) == PORTS
    assert agent.metric("vethd_leases", network="default") == len(NAMES)


def test_a_port_that_becomes_free_goes_to_the_next_and_nobody_moves(agent: Agent) -> None:
    before = {name: host_end(name)["ifindex"] for name in NAMES[1:]}
    netns.del_netns("port1")
    eventually(lambda: leases(agent) == 3, 2, "the port is free")
    netns.add_netns("next")
    agent.wait_ready("next")
    assert on_bridge() == {"port2", "next"}
    assert {name: host_end(name)["ifindex"] for name in NAMES[1:]} == before
    assert_works("next")
    assert_works("routed1")


def test_the_first_packet_is_never_lost(agent: Agent) -> None:
    for number in range(60):
        netns.add_many([f"n{number}"])
        probe.await_default_route(f"n{number}")
        target = uplink.BEYOND4 if number % 2 else GATEWAY4
        assert probe.icmp_echo(f"n{number}", target) < FIRST_PACKET_LIMIT
        assert netns.tcp_connect(f"n{number}", uplink.BEYOND4, internet.ECHO_PORT) < FIRST_PACKET_LIMIT


def test_a_restart_adopts_them_without_a_packet_lost(agent: Agent) -> None:
    before = {name: (host_end(name)["ifindex"], address4(name)) for name in NAMES}
    retransmits = observe.tcp_retransmits(*NAMES)
    with (
        netns.Heartbeat("port1", uplink.BEYOND4, internet.ECHO_PORT) as port,
        netns.Heartbeat("routed1", uplink.BEYOND6, internet.ECHO_PORT) as routed,
    ):
        agent.stop()
        agent.start()
        port.await_beats(20)
        routed.await_beats(20)
    assert observe.tcp_retransmits(*NAMES) == retransmits
    assert {name: (host_end(name)["ifindex"], address4(name)) for name in NAMES} == before
    assert on_bridge() == {"port1", "port2"}
    netns.del_netns("routed1")
    eventually(lambda: leases(agent) == 3, BY_EVENT, "its lease is free")


DAMAGES = {
    "host route gone": "ip route del {four}",
    "IPv6 host route gone": "ip -6 route del {six}",
    "host's neighbour gone": "ip neigh del {four} dev {end}",
    "host end down": "ip link set {end} down",
    "host end on the bridge": "ip link set {end} master vethd0",
    "host end deleted": "ip link del {end}",
    "bridge deleted": "ip link del vethd0",
    "rules gone": "nft flush ruleset",
    "default route gone": "ip -n routed1 route del default",
    "subnet route gone": "ip -n routed1 route del 172.27.0.0/16",
    "neighbours gone": "ip -n routed1 neigh flush dev eth0 nud permanent",
    "device down": "ip -n routed1 link set eth0 down",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_repaired_by_event(agent: Agent, what: str) -> None:
    four, six, end = address4("routed1"), address6("routed1"), host_end("routed1")["ifname"]
    repaired = agent.metric("vethd_drift_repaired_total") or 0
    observe.run("sh", "-c", DAMAGES[what].format(four=four, six=six, end=end))
    eventually(lambda: (agent.metric("vethd_drift_repaired_total") or 0) > repaired, BY_EVENT, "it was repaired")
    eventually_works("routed1", BY_EVENT)
    for name in ("port1", "routed2"):
        assert netns.ping(name, four) == 1
        assert netns.ping(name, six) == 1
    assert host_end("routed1").get("master") is None


def test_somebody_else_s_ports_fill_the_bridge(start_agent: StartAgent, tmp_path: Path) -> None:
    """The kernel's end is 1,023 ports: whoever finds no room is routed."""
    agent = start_agent()
    ends = [f"link set {end}{number} master {BRIDGE}\n" for number in range(512) for end in "de"]
    batch = [*(f"link add d{number} type veth peer name e{number}\n" for number in range(512)), *ends[:1023]]
    (tmp_path / "batch").write_text("".join(batch))
    observe.run("ip", "-batch", str(tmp_path / "batch"))
    netns.add_netns("web")
    assert agent.wait_ready("web")["state"] == "ready"
    assert host_end("web").get("master") is None
    assert_works("web")
    assert netns.ping("web", GATEWAY6) == 1


def test_taken_down_with_all_that_stands_for_it(agent: Agent) -> None:
    four, six, end = address4("routed1"), address6("routed1"), host_end("routed1")["ifname"]
    netns.del_netns("routed1")
    eventually(lambda: leases(agent) == 3, BY_EVENT, "its lease is free")
    known = [observe.run("ip", "-6", "neigh", "show", "proxy"), observe.run("ip", "route"), observe.nft_text()]
    assert not [text for text in known if end in text or f"{four} " in text or f"{six} " in text]
    started = time.monotonic()
    assert netns.ping("port1", four, timeout=0.3) == 0
    assert time.monotonic() - started < 5
