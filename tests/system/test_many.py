"""How good: the first packet of each, a burst of a thousand, and rest while nothing happens."""

import time
from pathlib import Path

import pytest

from agent.demo import internet, probe, uplink
from agent.demo.isolation import add_named, delete_named, prepare_netns_dir
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, GATEWAY4, assert_works
from tests.harness.running import Agent
from tests.harness.waiting import eventually

pytestmark = [pytest.mark.serial, pytest.mark.timeout(180)]

FIRST_PACKET_LIMIT = 0.050
BURST = 1000
CLOCK_TICKS = 100


def test_the_first_packet_is_never_lost(agent: Agent) -> None:
    """The instant the default route is visible inside, connections to the gateway and beyond the NAT stand."""
    prepare_netns_dir()
    slow = []
    with netns.listen(None, GATEWAY4, 7000):
        for number in range(200):
            name = f"n{number}"
            add_named(name)
            probe.await_default_route(name)
            first, second = (GATEWAY4, 7000), (uplink.BEYOND4, internet.ECHO_PORT)
            for address, port in (first, second) if number % 2 else (second, first):
                took = netns.tcp_connect(name, address, port)
                if took > FIRST_PACKET_LIMIT:
                    slow.append((name, address, took))
            if number >= 100:
                delete_named(f"n{number - 100}")
    assert slow == []


def test_the_first_packet_to_another_namespace_is_never_lost(agent: Agent) -> None:
    prepare_netns_dir()
    add_named("server")
    address = agent.wait_ready("server")["address"].partition("/")[0]
    with netns.listen("server", address, 7000):
        for number in range(100):
            add_named(f"n{number}")
            probe.await_default_route(f"n{number}")
            assert netns.tcp_connect(f"n{number}", address, 7000) < FIRST_PACKET_LIMIT


def test_the_first_packet_after_wait_is_never_lost_by_ipv6(agent: Agent) -> None:
    prepare_netns_dir()
    for number in range(100):
        add_named(f"n{number}")
        agent.wait_ready(f"n{number}")
        assert probe.icmp_echo(f"n{number}", uplink.BEYOND6) < FIRST_PACKET_LIMIT


def test_a_burst_of_a_thousand(agent: Agent) -> None:
    names = [f"n{number}" for number in range(BURST)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name, timeout=60)
    found = agent.namespaces()
    assert len(found) == BURST
    assert len({item["address"] for item in found.values()}) == BURST
    assert len({item["address6"] for item in found.values()}) == BURST
    aliases = [str(link.get("ifalias")) for link in observe.host_ends().values()]
    assert sorted(aliases) == sorted(f"vethd:{name}" for name in names), "none is networked twice"
    looks = agent.metrics()["vethd_reconcile_total"]
    assert {dict(labels)["reason"] for labels in looks} == {"event"}, "our own work causes no second look"
    for name in names[::50]:
        assert observe.addresses(DEVICE, name) == {found[name]["address"], found[name]["address6"]}
        assert_works(name)
    netns.delete_many(names)
    eventually(lambda: not observe.host_ends(), 60, "all host ends are gone")
    eventually(lambda: not agent.namespaces(), 10, "all are forgotten")


def test_rests_while_nothing_happens(agent: Agent) -> None:
    """With 500 namespaces: below 0.5 % of a core and 80 MB resident."""
    names = [f"n{number}" for number in range(500)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name, timeout=60)
    resident = Path(f"/proc/{agent.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
    assert int(resident) < 80 * 1024, "kB"
    eventually(lambda: _cpu_of_the_next(agent, 1.0) < 0.005, 20, "it comes to rest")
    assert _cpu_of_the_next(agent, 10.0) < 0.005


def _cpu_of_the_next(agent: Agent, seconds: float) -> float:
    """The share of one core that the agent uses for a while."""
    before = _cpu_seconds(agent.pid)
    time.sleep(seconds)
    return (_cpu_seconds(agent.pid) - before) / seconds


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
