"""Namespaces beyond the bridge's ports: the host routes to them, and nobody notices the difference.

The first two namespaces are ports of the bridge, all others are routed.
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.plan import plan
from agent.demo import probe
from agent.demo.internet import WHOAMI_PORT
from agent.demo.private_host import PrivateHost
from agent.demo.uplink import BEYOND4, BEYOND6, HOST4, HOST6
from agent.kernel.reaper import Reaper, Removal
from agent.model import Network, Observed
from tests.harness import netns, observe
from tests.harness.expect import GATEWAY4, GATEWAY6, shape
from tests.harness.waiting import eventually
from tests.kernel.frames import MLD_REPORT
from tests.kernel.ground import Ground, remove, sh
from tests.kernel.test_attachments import comparable, inner_of
from tests.unit.model_kernel import ModelKernel
from tests.unit.worlds import network

PORTS = 2
ETH_P_IPV6 = 0x86DD
# Of a frame whose IPv6 header is followed by one for each hop: where the ICMPv6 message begins.
HOP_BY_HOP = 14 + 40 + 8
NAMES = ("port1", "port2", "routed1", "routed2")
ADDRESSES = {name: (f"172.27.0.{2 + place}", f"fd00:7e74:1::{2 + place}") for place, name in enumerate(NAMES)}
HOST, INSIDE = None, "routed1"

DAMAGES = {
    "default route gone": (INSIDE, "ip route del default"),
    "IPv6 default route gone": (INSIDE, "ip -6 route del default"),
    "subnet route gone": (INSIDE, "ip route del 172.27.0.0/16"),
    "IPv6 subnet route gone": (INSIDE, "ip -6 route del fd00:7e74:1::/64"),
    "routes flushed": (INSIDE, "ip route flush table main; ip -6 route flush table main"),
    "addresses flushed": (INSIDE, "ip addr flush dev eth0"),
    "device down": (INSIDE, "ip link set eth0 down"),
    "MTU": (INSIDE, "ip link set eth0 mtu 1400"),
    "MAC": (INSIDE, "ip link set eth0 address 02:00:00:00:00:09"),
    "neighbours flushed": (INSIDE, "ip neigh flush dev eth0 nud permanent"),
    "device deleted": (INSIDE, "ip link del eth0"),
    "host end down": (HOST, "ip link set {end} down"),
    "host end on the bridge": (HOST, "ip link set {end} master vethd0"),
    "host end's MTU": (HOST, "ip link set {end} mtu 1400"),
    "host end's MAC": (HOST, "ip link set {end} address 02:00:00:00:00:09"),
    "host end without IPv6": (HOST, "echo 1 > /proc/sys/net/ipv6/conf/{end}/disable_ipv6"),
    "host route gone": (HOST, "ip route del 172.27.0.4"),
    "host route elsewhere": (HOST, "ip route replace 172.27.0.4 dev vethd0"),
    "IPv6 host route gone": (HOST, "ip -6 route del fd00:7e74:1::4"),
    "host's neighbours gone": (HOST, "ip neigh flush dev {end} nud permanent"),
    "answer on the bridge gone": (HOST, "ip -6 neigh del proxy fd00:7e74:1::4 dev vethd0"),
}


@contextlib.contextmanager
def grounded(*networks: Network) -> Iterator[Ground]:
    with contextlib.closing(Ground([replace(each, bridge_ports=PORTS) for each in networks])) as ground:
        yield ground


@pytest.fixture
def ground(private_host: PrivateHost) -> Iterator[Ground]:
    with grounded(network()) as made:
        made.add(*NAMES)
        yield made


def end_of(name: str) -> str:
    (found,) = [link["ifname"] for link in observe.links().values() if link.get("ifalias") == f"vethd:{name}"]
    return str(found)


def test_every_namespace_reaches_every_other_and_the_host(ground: Ground) -> None:
    for name in NAMES:
        for address in (GATEWAY4, GATEWAY6):
            assert probe.icmp_echo(name, address) < 0.5
        for other, addresses in ADDRESSES.items():
            for address in addresses:
                assert probe.icmp_echo(name, address) < 0.5, (name, other, address)
                assert probe.icmp_echo(HOST, address) < 0.5


def test_the_first_packet_passes_both_ways(ground: Ground) -> None:
    for place in range(10):
        name = f"more{place}"
        netns.add_many([name])
        ground.settle(name)
        assert probe.icmp_echo(name, GATEWAY4) < 0.2
        assert probe.icmp_echo(name, GATEWAY6) < 0.2
        assert probe.icmp_echo("port1", f"172.27.0.{6 + place}") < 0.2
        assert probe.icmp_echo("port1", f"fd00:7e74:1::{6 + place:x}") < 0.2


def test_it_looks_from_inside_like_the_others(ground: Ground) -> None:
    port, routed = shape("port1"), shape("routed1")
    assert observe.addresses("eth0", "routed1") == {"172.27.0.4/16", "fd00:7e74:1::4/64"}
    assert observe.default_routes("routed1") == observe.default_routes("port1")
    assert port.inside.keys() == routed.inside.keys()


def test_observed_again_nothing_is_to_do(ground: Ground) -> None:
    assert [ground.planned(name) for name in NAMES] == [()] * len(NAMES)


def test_each_step_twice(ground: Ground) -> None:
    netns.add_many(["web"])
    for step in ground.planned("web"):
        ground.do("web", [step])
        ground.do("web", [step])
    assert ground.planned("web") == ()
    assert probe.icmp_echo("web", GATEWAY4) < 0.5


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
    where, command = DAMAGES[what]
    sh(command.format(end=end_of(INSIDE)), where)
    desired = ground.desired(INSIDE)
    handle, seen = ground.observe(INSIDE)
    handle.close()
    todo = plan(desired, seen)
    assert todo, "the damage was seen"
    model = ModelKernel(seen, desired.bridge, inner_of(seen), admitted={("", b"")})
    ground.do(INSIDE, todo)
    handle, after = ground.observe(INSIDE)
    handle.close()
    assert plan(desired, after) == ()
    assert (comparable(model.run(todo).seen), host_side(model.seen)) == (comparable(after), host_side(after))
    for address in (GATEWAY4, GATEWAY6, *ADDRESSES["port1"], *ADDRESSES["routed2"]):
        assert probe.icmp_echo(INSIDE, address) < 0.5


def host_side(seen: Observed) -> tuple[list[bytes], list[bytes]]:
    return sorted(seen.host_routes), sorted(seen.proxied)


def test_the_host_answers_no_arp_of_a_routed_namespace(ground: Ground) -> None:
    """Else one namespace could fill the neighbour table of the host."""
    sh("ip neigh del 172.27.0.1 dev eth0; ip route replace 172.27.0.0/16 dev eth0", "routed1")
    assert netns.ping("routed1", GATEWAY4, timeout=0.3) == 0
    entries = observe.ip_json("neighbour", "show", "dev", end_of("routed1"))
    assert {entry["state"][0] for entry in entries} == {"PERMANENT"}


@pytest.mark.parametrize(("family", "source"), [(socket.AF_INET, "172.27.0.2"), (socket.AF_INET6, "fd00:7e74:1::2")])
def test_it_sends_with_its_own_address_alone(ground: Ground, family: int, source: str) -> None:
    members = [(end_of(name), ground.desired(name).lease) for name in NAMES]
    ground.ruleset.load(ground.networks, members)
    target = GATEWAY4 if family == socket.AF_INET else GATEWAY6
    bits = 32 if family == socket.AF_INET else 128
    sh(f"ip addr add {source}/{bits} dev eth0 {'nodad' if bits == 128 else ''}", "routed1")
    before = counted()
    send("routed1", source, target)
    assert counted() == before, "it did not arrive"
    send("routed1", ADDRESSES["routed1"][0 if bits == 32 else 1], target)
    assert counted() == before + 1


def send(name: str, source: str, target: str) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with netns.enter(name), socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(b"vethd", (target, 40_000))


def counted() -> int:
    """Datagrams to ports of the host where nobody listens, both families."""
    names, values = (line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()[-4:-2])
    six = dict(line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines())
    return int(values[names.index("NoPorts")]) + int(six["Udp6NoPorts"])


LAB = network("lab", "10.9.0.0/24", "fd00:9::/120", bridge="vethd-lab")


def test_isolation_reach_and_services_hold_for_the_routed(private_host: PrivateHost) -> None:
    """Network default is isolated, and may reach lab; lab may not reach default, nor the host but for one port."""
    with grounded(network(isolate=True, reach=("lab",)), replace(LAB, host_access=())) as ground:
        ground.add(*NAMES)
        ground.add("filler", "filler2", "lab1", place=1)
        assert ground.desired("lab1", 1).lease.routed
        lab = ground.desired("lab1", 1).lease
        for other in ("port1", "routed2"):
            for address in ADDRESSES[other]:
                assert netns.ping("routed1", address, timeout=0.3) == 0
                assert netns.ping("lab1", address, timeout=0.3) == 0
        for address in (str(lab.address), str(lab.address6)):
            assert netns.ping("routed1", address) == 1
            assert netns.ping("port1", address) == 1
        assert netns.ping("lab1", "10.9.0.1") == 1, "the gateway always answers"
        with netns.listen(HOST, "10.9.0.1", 4711), netns.listen(HOST, "172.27.0.1", 4711):
            assert not netns.reaches("lab1", "10.9.0.1", 4711, 0.3)
            assert netns.reaches("routed1", "172.27.0.1", 4711)


def test_it_leaves_the_host_with_the_host_s_address(ground: Ground) -> None:
    assert probe.tcp_ask("routed1", BEYOND4, WHOAMI_PORT) == HOST4
    assert probe.tcp_ask("routed1", BEYOND6, WHOAMI_PORT) == HOST6


def test_taken_down_nothing_is_left(ground: Ground) -> None:
    before = observe.ip_json("-6", "neighbour", "show", "proxy")
    assert {entry["dst"] for entry in before} == {"fd00:7e74:1::4", "fd00:7e74:1::5"}
    ends = [end_of(name) for name in ("routed1", "routed2")]
    assert all(end in observe.nft_text() for end in ends)
    with contextlib.closing(Reaper()) as reaper:
        remove(
            reaper,
            [
                Removal(end, ground.desired(name).lease, ground.bridge().index, admitted=True)
                for name, end in zip(("routed1", "routed2"), ends, strict=True)
            ],
        )
    assert observe.ip_json("-6", "neighbour", "show", "proxy") == []
    assert not [route for route in observe.ip_json("route") if route["dst"].startswith("172.27.0.4")]
    text = observe.nft_text()
    assert not [end for end in ends if end in text]


def told_in_vain() -> int:
    """IPv6 packets that the host wanted to send by the bridge, and that were dropped."""
    told = Path("/proc/thread-self/net/dev_snmp6/vethd0").read_text()
    return int(told.partition("Ip6OutDiscards")[2].split()[0])


def test_the_ports_are_not_told_of_the_groups_that_the_host_joins_to_answer_for_others(ground: Ground) -> None:
    """One more for each routed namespace, and each would be flooded to a thousand ports."""
    with netns.enter("port1"):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_IPV6))
    with ear:
        before = told_in_vain()
        netns.add_many(["web"])
        ground.settle("web")
        eventually(lambda: told_in_vain() > before, 5, "the host has told of it")
        with contextlib.suppress(BlockingIOError):
            while frame := ear.recv(2048):
                assert frame[HOP_BY_HOP] != MLD_REPORT
