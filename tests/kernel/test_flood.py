"""A hostile namespace fills no table of the host: that of its bridge, that of its neighbours, those of the rules.

For namespaces on the bridge and for routed ones. The kernel has one neighbour table for all its namespaces, whose
limit (gc_thresh3, arp(7)) is 1,024 entries that are no permanent ones: what is tried here stays well below.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.identity import netns_mac
from agent.demo import probe
from agent.demo.internet import ECHO_PORT
from agent.demo.private_host import PrivateHost
from agent.demo.uplink import BEYOND4, BEYOND6, UPLINK
from agent.kernel import bridges
from agent.model import Network
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, DEVICE, GATEWAY4, GATEWAY6, KINDS
from tests.kernel import frames
from tests.kernel.ground import Ground, sh
from tests.unit.worlds import lease_in, network

BRIDGE_MAC = netns_mac(network().gateway.ip)
MAC, DB_MAC, MISSED_MAC = (netns_mac(lease_in(network(), index).address) for index in (2, 3, 77))
IP, DB_IP = "172.27.0.2", "172.27.0.3"
IP6, DB_IP6 = "fd00:7e74:1::2", "fd00:7e74:1::3"
CONTROL = [bytes.fromhex(f"0180c20000{last:02x}") for last in (0x00, 0x02, 0x03, 0x0E, 0x0F)]
LLDP = 0x88CC
MANY = 150
BURST = 100
LAST = b"the last of all"


@contextlib.contextmanager
def grounded(*networks: Network, ports: int) -> Iterator[Ground]:
    nets = [replace(each, bridge_ports=ports) for each in networks]
    with contextlib.closing(Ground(nets)) as ground:
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", setting).write_text("1")
        yield ground


@pytest.fixture(params=KINDS)
def ground(private_host: PrivateHost, request: pytest.FixtureRequest) -> Iterator[Ground]:
    with grounded(network(), ports=KINDS[request.param]) as made:
        made.add("web", "db")
        yield made


on_the_bridge = pytest.mark.parametrize("ground", ["port"], indirect=True)


def is_routed() -> bool:
    return not [link for link in observe.links().values() if link.get("master") == BRIDGE]


def known_macs() -> dict[str, str]:
    """What the bridge has learnt: MAC to port."""
    found = observe.run("bridge", "-json", "fdb", "show", "br", BRIDGE, "dynamic")
    return {entry["mac"]: entry["ifname"] for entry in json.loads(found) if entry.get("state") != "permanent"}


def asked_for(device: str) -> int:
    """How many neighbours of a device the host knows, or asks for."""
    return len([e for e in observe.ip_json("neighbour", "show", "dev", device) if "PERMANENT" not in e["state"]])


def spray(targets: list[str], name: str = "web") -> None:
    """One datagram to each, by the routes of the namespace."""
    with netns.socket_in(name, targets[0], socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for target in targets:
            with contextlib.suppress(OSError):
                sender.sendto(b"x", (target, 9))


def to_the_gateway(ground: Ground, targets: list[str]) -> None:
    """One datagram to each, to the MAC of the gateway, whatever the routes say."""
    gateway_mac, source = ground.bridge().mac, IP6 if ":" in targets[0] else IP
    with frames.wire(None, BRIDGE) as ear, frames.wire("web", DEVICE) as mouth:
        for target in targets:
            mouth.send(frames.udp(gateway_mac, MAC, source, target, b"x"))
        mouth.send(frames.udp(gateway_mac, MAC, IP, GATEWAY4, LAST))
        frames.heard_before(ear, LAST)


def assert_reaches_the_world(name: str) -> None:
    for address in (BEYOND4, BEYOND6):
        assert probe.tcp_connect(name, address, ECHO_PORT) < 0.5


def claim(to: bytes, *macs: bytes) -> None:
    """`web` sends control frames from these MACs, and something rightful that comes after them."""
    with frames.wire("web", DEVICE) as mouth, frames.wire("db", DEVICE) as ear:
        for mac in macs:
            mouth.send(frames.ethernet(to, mac, LLDP, bytes(46)))
        mouth.send(frames.udp(frames.BROADCAST, MAC, IP, "172.27.255.255", LAST))
        frames.heard_before(ear, LAST)


@on_the_bridge
def test_a_gullible_bridge_is_told_where_a_mac_is_by_a_frame_that_no_rule_sees(ground: Ground) -> None:
    sh(f"ip link set {BRIDGE} type bridge no_linklocal_learn 0")
    claim(CONTROL[3], MISSED_MAC)
    assert MISSED_MAC.hex(":") in known_macs()


@on_the_bridge
@pytest.mark.parametrize("to", CONTROL, ids=bytes.hex)
def test_no_control_frame_tells_the_bridge_where_a_mac_is(ground: Ground, to: bytes) -> None:
    bridges.disbelieve(ground.netlink, BRIDGE)
    assert netns.ping("web", DB_IP) == 1
    before = known_macs()
    claim(to, DB_MAC, MISSED_MAC)
    assert known_macs() == before
    assert netns.ping("web", DB_IP) == 1


@on_the_bridge
def test_a_bridge_tells_whether_it_is_gullible(ground: Ground) -> None:
    sh(f"ip link set {BRIDGE} type bridge no_linklocal_learn 0")
    assert bridges.is_gullible(ground.netlink, BRIDGE)
    bridges.disbelieve(ground.netlink, BRIDGE)
    assert not bridges.is_gullible(ground.netlink, BRIDGE)
    assert not bridges.is_gullible(ground.netlink, UPLINK), "no bridge"
    assert not bridges.is_gullible(ground.netlink, "nothing")
    # Nothing else of it is touched.
    assert observe.links()[BRIDGE]["linkinfo"]["info_data"]["stp_state"] == 0
    with pytest.raises(Exception, match="keep nothing from learning by control frames: the kernel said ENODEV"):
        bridges.disbelieve(ground.netlink, "nothing")


@on_the_bridge
def test_the_bridge_learns_no_mac_but_its_own(ground: Ground) -> None:
    assert netns.ping("web", DB_IP) == 1
    before = known_macs()
    with frames.wire("db", DEVICE) as ear, frames.wire("web", DEVICE) as mouth:
        for _ in range(MANY):
            mouth.send(frames.udp(DB_MAC, b"\2" + os.urandom(5), IP, DB_IP, b"x"))
            mouth.send(frames.arp(b"\2" + os.urandom(5), MAC, IP, DB_IP))
        mouth.send(frames.udp(DB_MAC, MAC, IP, DB_IP, LAST))
        # The bridge itself may tell at any time which groups it listens to.
        assert not [frame for frame in frames.heard_before(ear, LAST) if frame[6:12] != BRIDGE_MAC]
    assert known_macs() == before


def test_unused_addresses_of_its_own_network_are_not_asked_for(ground: Ground) -> None:
    four = [f"172.27.77.{host}" for host in range(1, MANY)]
    six = [f"fd00:7e74:1::77:{host:x}" for host in range(1, MANY)]
    if is_routed():
        spray(four)
        spray(six)
    else:
        to_the_gateway(ground, four)
        to_the_gateway(ground, six)
    assert asked_for(BRIDGE) == 0
    assert "172.27.77." not in observe.nft_text(), "nor counted"
    for address in (DB_IP, DB_IP6, GATEWAY4, GATEWAY6):
        assert netns.ping("web", address) == 1


@on_the_bridge
def test_who_is_there_is_reached_by_the_gateway_too(ground: Ground) -> None:
    """As by a neighbour that knows an address from when it was routed."""
    gateway_mac = ground.bridge().mac
    with frames.wire("db", DEVICE) as ear, frames.wire("web", DEVICE) as mouth:
        mouth.send(frames.udp(gateway_mac, MAC, IP6, DB_IP6, b"by the gateway"))
        mouth.send(frames.udp(gateway_mac, MAC, IP, DB_IP, LAST))
        assert [frame for frame in frames.heard_before(ear, LAST) if frame.endswith(b"by the gateway")]


def test_unused_addresses_of_another_network_are_not_asked_for(private_host: PrivateHost) -> None:
    lab = network("lab", "10.9.0.0/24", "fd00:9::/120", bridge="vethd-lab")
    for ports in KINDS.values():
        with grounded(network(reach=("lab",)), lab, ports=ports) as ground:
            name, bench = f"web{ports}", f"bench{ports}"
            ground.add(name)
            ground.add(bench, place=1)
            lease = ground.desired(bench, 1).lease
            spray([f"10.9.0.{host}" for host in range(100, 200)], name)
            spray([f"fd00:9::{host:x}" for host in range(100, 200)], name)
            for address in (str(lease.address), str(lease.address6)):
                assert netns.ping(name, address) == 1
            assert asked_for("vethd-lab") == 0


def test_a_scan_of_the_hosts_own_networks_waits_its_turn(ground: Ground) -> None:
    """The host asks for those that a namespace wants to reach; it does not ask for all at once."""
    assert_reaches_the_world("web")
    spray([f"192.0.2.{host}" for host in range(3, 253)])
    spray([f"2001:db8:2::{host:x}" for host in range(3, 253)])
    # 20 more a second, and this takes some milliseconds.
    assert BURST / 2 < asked_for(UPLINK) < 2 * (BURST + 30)
    for name in ("web", "db"):
        assert_reaches_the_world(name)
    spray(["192.0.2.254"], "db")
    known = {entry["dst"] for entry in observe.ip_json("neighbour", "show", "dev", UPLINK)}
    assert "192.0.2.254" in known, "the others go on as before"


def test_questions_with_its_own_address_leave_one_entry_at_most(ground: Ground) -> None:
    everybody = "33330000" + "0001"
    with frames.wire("web", DEVICE) as mouth:
        for host in range(1, MANY):
            for target in (f"172.27.78.{host}", f"9.9.9.{host}"):
                mouth.send(frames.arp(MAC, MAC, IP, target, operation=1))
            target6 = socket.inet_pton(socket.AF_INET6, f"fd00:7e74:1::78:{host:x}")
            body = bytes(4) + target6 + b"\1\1" + MAC
            mouth.send(frames.icmp6(bytes.fromhex(everybody), MAC, IP6, "ff02::1", frames.NEIGHBOUR_SOLICITATION, body))
    assert netns.ping("web", GATEWAY4) == 1
    assert asked_for(BRIDGE) == 0
    assert asked_for(UPLINK) <= 2, "the router's two addresses"


@pytest.mark.parametrize("route_localnet", ["0", "1"])
def test_what_listens_on_loopback_alone_is_out_of_reach(ground: Ground, route_localnet: str) -> None:
    """Other software sets route_localnet for all devices: kube-proxy did (CVE-2020-8558)."""
    Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text(route_localnet)
    sh("ip route add 127.1.1.1 via 172.27.0.1 dev eth0 onlink", "web")
    sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet", "web")
    with probe.listen(None, "0.0.0.0", 4711):
        assert netns.reaches(None, "127.1.1.1", 4711)
        assert netns.reaches("web", GATEWAY4, 4711)
        assert not netns.reaches("web", "127.1.1.1", 4711, 0.3)


def test_what_the_host_s_own_rules_translate_to_loopback_is_reached(ground: Ground) -> None:
    """As with a name server that listens there: that is the host's wish."""
    Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    sh('nft "add table ip t; add chain ip t c { type nat hook prerouting priority dstnat; }"')
    sh("nft add rule ip t c ip daddr 172.27.0.1 tcp dport 53 dnat to 127.0.0.1:4711")
    with probe.listen(None, "127.0.0.1", 4711):
        assert netns.reaches("web", GATEWAY4, 53)
