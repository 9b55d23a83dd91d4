"""What the metrics tell is what was sent, opened and accepted, no more and no less."""

import socket
from contextlib import ExitStack

import pytest

from agent.demo import internet, uplink
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import GATEWAY4, KINDS, address4, host_end
from tests.harness.running import Agent
from tests.harness.waiting import eventually

# Ethernet, IPv4 and UDP headers: what a device counts beside the payload.
HEADERS = 14 + 20 + 8
MANY = 40


@pytest.fixture
def web(start_agent: StartAgent) -> Agent:
    """The agent with one namespace, looking at conntrack at every scrape."""
    agent = start_agent({"metrics": {"conntrack_interval": 0.001}})
    netns.add_netns("web")
    agent.wait_ready("web")
    return agent


@pytest.fixture
def quiet(start_agent: StartAgent) -> Agent:
    """The same without IPv6, whose own chatter would be counted, rightly."""
    agent = start_agent({"network.default": {"subnet6": ""}, "metrics": {"conntrack_interval": 0.001}})
    observe.set_sysctl("net/ipv6/conf/vethd0/disable_ipv6", "1")
    netns.add_netns("web")
    agent.wait_ready("web")
    return agent


def _udp(name: str | None) -> socket.socket:
    with netns.enter(name):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _traffic(agent: Agent) -> dict[str, float]:
    metrics = agent.metrics()
    return {
        f"{direction}_{kind}": next(
            value
            for labels, value in metrics[f"vethd_network_{direction}_{kind}_total"].items()
            if ("netns", "web") in labels
        )
        for direction in ("receive", "transmit")
        for kind in ("bytes", "packets")
    }


def test_traffic_is_exact_in_both_directions(quiet: Agent) -> None:
    address = address4("web")
    with _udp("web") as inside, _udp(None) as outside:
        inside.bind((address, 4000))
        outside.bind((GATEWAY4, 5000))
        before = _traffic(quiet)
        for _ in range(100):
            inside.sendto(bytes(1000), (GATEWAY4, 5000))
        for _ in range(50):
            outside.sendto(bytes(500), (address, 4000))
        for _ in range(50):
            inside.recv(1000)
        after = _traffic(quiet)
    assert {name: after[name] - before[name] for name in after} == {
        "transmit_packets": 100,
        "transmit_bytes": 100 * (1000 + HEADERS),
        "receive_packets": 50,
        "receive_bytes": 50 * (500 + HEADERS),
    }


def test_drops_that_only_the_end_inside_knows_are_told(quiet: Agent) -> None:
    name = "vethd_network_receive_drop_total"
    assert quiet.metric(name, netns="web") == 0
    frame = bytes.fromhex("ffffffffffff 027eac1b0001 88b5") + bytes(50)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((host_end("web")["ifname"], 0))
        for _ in range(7):
            # No process and no protocol inside takes this.
            raw.send(frame)
    eventually(lambda: quiet.metric(name, netns="web") == 7, 2, "all seven are told")
    (device,) = observe.ip_json("-s", "link", "show", "dev", host_end("web")["ifname"])
    assert device["stats64"]["tx"]["dropped"] == 0


def test_connections_are_counted_one_by_one_in_both_directions(web: Agent) -> None:
    address = address4("web")
    assert not web.metric("vethd_conntrack_connections_total", netns="web", direction="opened")
    with ExitStack() as stack:
        for _ in range(5):
            with netns.enter("web"):
                stack.enter_context(socket.create_connection((uplink.BEYOND4, internet.ECHO_PORT), 3))
        for _ in range(3):
            silent = stack.enter_context(_udp("web"))
            # Two packets of one connection, and no answer: `ct state new` would count both.
            silent.sendto(b"1", (uplink.BEYOND4, 9))
            silent.sendto(b"2", (uplink.BEYOND4, 9))
        with netns.enter("web"):
            server = stack.enter_context(socket.create_server((address, 6000)))
        for _ in range(2):
            stack.enter_context(socket.create_connection((address, 6000), 3))
            stack.enter_context(server.accept()[0])
        assert web.metric("vethd_conntrack_connections_total", netns="web", direction="opened") == 8
        assert web.metric("vethd_conntrack_connections_total", netns="web", direction="accepted") == 2
        entries = {
            (dict(labels)["protocol"], dict(labels)["state"]): value
            for labels, value in web.metrics()["vethd_conntrack_entries"].items()
        }
        assert entries == {("tcp", "established"): 7, ("udp", "unreplied"): 3}


def test_counters_of_connections_outlive_repair_and_restart(web: Agent) -> None:
    name = "vethd_conntrack_connections_total"
    netns.tcp_connect("web", uplink.BEYOND4, internet.ECHO_PORT)
    before = web.metric(name, netns="web", direction="opened") or 0
    assert before == 1
    web.stop()
    web.start()
    assert web.metric(name, netns="web", direction="opened") == before
    netns.tcp_connect("web", uplink.BEYOND4, internet.ECHO_PORT)
    assert web.metric(name, netns="web", direction="opened") == before + 1


def test_what_lived_between_two_scrapes_is_counted_and_gets_its_receipt(web: Agent) -> None:
    total = "vethd_network_total_transmit_bytes_total"
    before = web.metric(total) or 0
    mark = web.mark()
    netns.add_netns("brief")
    web.wait_ready("brief")
    with _udp("brief") as sender:
        for _ in range(20):
            sender.sendto(bytes(100), (GATEWAY4, 5000))
    netns.del_netns("brief")
    receipt = web.wait_event("removed", since=mark, name="brief")
    assert receipt["transmit_bytes"] >= 20 * (100 + HEADERS)
    assert receipt["transmit_packets"] >= 20
    assert receipt["connections_opened"] == 1
    assert 0 < receipt["lifetime_seconds"] < 60
    eventually(lambda: web.metric("vethd_netns_info", netns="brief") is None, 2, "its series are gone")
    assert (web.metric(total) or 0) >= before + 20 * (100 + HEADERS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_receipt_is_right_also_when_the_kernel_takes_the_device_away_first(
    start_agent: StartAgent, kind: str
) -> None:
    agent = start_agent({"network.default": {"bridge_ports": KINDS[kind], "subnet6": ""}})
    names = [f"brief{number}" for number in range(MANY)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name)
        for _ in range(3):
            netns.udp_echo(name, uplink.BEYOND4, internet.ECHO_PORT)
    # So many at once that all are gone before the agent can look at the last.
    netns.delete_many(names)
    octets = 3 * (HEADERS + len(b"vethd"))
    for name in names:
        receipt = agent.wait_event("removed", name=name)
        assert (receipt["transmit_packets"], receipt["transmit_bytes"]) == (3, octets), name
        # The bridge has its own chatter.
        assert receipt["receive_packets"] >= 3, name
        assert receipt["receive_bytes"] >= octets, name


def test_the_next_holder_of_an_address_starts_at_nothing(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"subnet": "172.27.0.0/29"}})
    for number in range(8):
        netns.add_netns(f"n{number}")
        agent.wait_ready(f"n{number}")
        assert agent.metric("vethd_conntrack_connections_total", netns=f"n{number}", direction="opened") == 0
        netns.tcp_connect(f"n{number}", uplink.BEYOND4, internet.ECHO_PORT)
        netns.del_netns(f"n{number}")
        eventually(lambda: not agent.metric("vethd_leases"), 2, "its lease is free")
