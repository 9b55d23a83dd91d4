"""Point 1: root inside a namespace does what it likes, and the agent knows better; nobody else notices.

What it sends by hand is in tests/kernel: test_spoof.py, test_flood.py.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, GATEWAY4, KINDS, address4, assert_works, eventually_works, host_end
from tests.harness.running import Agent
from tests.harness.waiting import eventually

METRICS_PORT = 9853
FLAPS_SECONDS = 2.0

# What root inside `web` does, all of it one after the other.
TRICKS = {
    "renames its device": "ip link set eth0 down; ip link set eth0 name lan0; ip link set lan0 up",
    "has another of that name": "ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up",
    "names one like a host end of ours": "ip link add vh0123456789abc type veth peer name vhcba9876543210",
    "marks one as ours": "ip link set eth1 group 32372; ip link set eth1 alias vethd:db",
    "has 500 devices": "for i in $(seq 250); do echo link add d$i type veth peer name e$i; done | ip -batch -",
    "has 5,000 routes": "for i in $(seq 5000); do echo route add 10.0.$((i/250)).$((i%250))/32 dev lo; done"
    " | ip -batch -",
    "has 5,000 neighbours": "for i in $(seq 5000); do"
    " echo neigh add 10.1.$((i/250)).$((i%250)) lladdr 02:00:00:00:00:01 nud permanent dev lan0; done | ip -batch -",
    "has addresses of others": "ip addr add 172.27.0.3/32 dev eth0; ip addr add fd00:7e74:1::3/128 dev lan0 nodad",
    "loses its own": "ip addr flush dev lan0",
    "loses its routes": "ip route flush dev lan0; ip -6 route flush dev lan0",
    "sends its traffic elsewhere": "ip rule add from all lookup 99; ip route add table 99 default via 172.27.0.1"
    " dev lan0 onlink; ip rule del from all lookup 99",
    "has a MAC of another": "ip link set lan0 address 02:7e:ac:1b:00:03",
    "has a smaller MTU": "ip link set lan0 mtu 700",
    "has rules of its own": "nft add table inet vethd; nft add chain inet vethd c; nft flush ruleset",
    "turns its switches": "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 1 > /proc/sys/net/ipv4/ip_forward",
    "deletes its device": "ip link del lan0",
}  # fmt: skip


@pytest.fixture(params=KINDS)
def agent(start_agent: StartAgent, request: pytest.FixtureRequest) -> Agent:
    agent = start_agent({"network.default": {"bridge_ports": KINDS[request.param]}})
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


def do(command: str, name: str = "web") -> None:
    observe.run("sh", "-c", command, netns=name)


@contextlib.contextmanager
def over_and_over(command: str, name: str = "web") -> Iterator[None]:
    """Somebody inside does it as fast as he can for the length of the block."""
    with netns.enter(name):
        process = subprocess.Popen(
            ["sh", "-c", f"while :; do {command}; done"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_whatever_it_does_the_agent_is_not_deceived_and_the_others_do_not_notice(agent: Agent) -> None:
    address, index = address4("web"), host_end("web")["ifindex"]
    retransmits = observe.tcp_retransmits("db")
    with netns.Heartbeat("db", uplink.BEYOND4, internet.ECHO_PORT) as other:
        for what, command in TRICKS.items():
            if what == "deletes its device":
                assert host_end("web")["ifindex"] == index, "it was never made anew until now"
                # Its own devices of that name are in the way of a new one.
                do("ip link del eth0")
            do(command)
            eventually(lambda: why_not("web", address) == "", 5, f"{what}: the agent sees to it")
            other.await_beats(5)
    assert observe.tcp_retransmits("db") == retransmits
    eventually_works("web")
    assert_works("db")
    assert {each["state"] for each in agent.namespaces().values()} == {"ready"}
    before = {name: found["address"] for name, found in agent.namespaces().items()}
    agent.stop()
    agent.start()
    assert {name: found["address"] for name, found in agent.namespaces().items()} == before
    assert {link["ifalias"] for link in observe.host_ends().values()} == {"vethd:web", "vethd:db"}


def why_not(name: str, address: str) -> str:
    """Why a namespace cannot be reached by the host, empty when it can: it may call its device what it likes."""
    return "" if netns.ping(None, address, timeout=0.5) and netns.ping(name, GATEWAY4, timeout=0.5) else "no answer"


def test_a_device_that_it_moves_away_is_made_anew_and_gone_where_it_was(agent: Agent) -> None:
    """Into a namespace of its own making, and into one of vethd's other namespaces."""
    with netns.enter("web"):
        inner = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    with inner:
        eventually(lambda: is_apart(inner.pid), 5, "it has a namespace of its own")
        for target in (str(inner.pid), "/run/netns/db"):
            do(f"ip link set {DEVICE} down; ip link set {DEVICE} name moved; ip link set moved netns {target}")
            eventually_works("web")
            assert "moved" not in observe.links("db")
            assert "moved" not in observe.links(netns.of_process(inner.pid))
            assert_works("db")
        inner.kill()
    assert len(observe.host_ends()) == 2


def is_apart(pid: int) -> bool:
    with netns.enter("web"):
        own = Path("/proc/thread-self/ns/net").stat().st_ino
    return netns.of_process(pid).stat().st_ino != own


FLAPS = {
    "its link": f"ip link set {DEVICE} down; ip link set {DEVICE} up",
    "its address": f"ip addr flush dev {DEVICE}",
    "its device": f"ip link del {DEVICE}",
}


def test_what_flaps_is_repaired_a_few_times_and_once_a_second_then(agent: Agent) -> None:
    for what, command in FLAPS.items():
        mark = agent.mark()
        with over_and_over(command):
            begin = time.monotonic()
            delays: list[float] = []
            while time.monotonic() - begin < FLAPS_SECONDS:
                delays.append(seconds_to_network(agent, f"n{len(delays)}"))
        repairs = len(agent.events("repaired", since=mark, name="web"))
        assert repairs <= 5 + FLAPS_SECONDS + 2, f"{what}: {repairs} repairs"
        assert sorted(delays)[len(delays) // 2] < 0.25, f"{what}: others wait {delays}"
        eventually_works("web", 5)
    assert_works("db")


def seconds_to_network(agent: Agent, name: str) -> float:
    netns.add_many([name])
    begin = time.monotonic()
    agent.wait_ready(name)
    took = time.monotonic() - begin
    netns.delete_many([name])
    return took


def test_the_metrics_cannot_be_reached(agent: Agent) -> None:
    assert netns.reaches(None, "127.0.0.1", METRICS_PORT)
    for address in ("127.0.0.1", "::1", GATEWAY4, "fd00:7e74:1::1", uplink.HOST4, uplink.HOST6):
        assert not netns.reaches("web", address, METRICS_PORT, 0.3), address
