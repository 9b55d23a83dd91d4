"""Our nftables tables on the real kernel: loaded again and again, changed, removed, and obeyed by real frames."""

import contextlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from agent.core.identity import host_end_name, netns_mac
from agent.demo import probe
from agent.errors import HostError, KernelError
from agent.kernel.members import Member, Members
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.model import Cookie, Network, Port
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, DEVICE, GATEWAY4, GATEWAY6
from tests.kernel import frames
from tests.kernel.frames import BROADCAST
from tests.kernel.ground import Ground, sh
from tests.kernel.test_netlink import members_of
from tests.unit.worlds import lease_in, network

WEB = network()
ONE: Member = (host_end_name(Cookie(1)), lease_in(WEB, 2))
TWO: Member = (host_end_name(Cookie(2)), lease_in(WEB, 3))
FOUR_ONLY: Member = (host_end_name(Cookie(3)), replace(lease_in(WEB, 4), address6=None))


@pytest.fixture
def members(ground: Ground) -> Iterator[Members]:
    with Netlink(NETLINK_NETFILTER) as netlink:
        yield Members(netlink)


def table() -> str:
    """Both tables as `nft` tells them, without handles and with elements in order."""
    text = observe.nft_text()
    return re.sub(r"elements = \{([^}]*)\}", lambda m: " ".join(sorted(re.split(r"[,\s]+", m[1]))), text)


def counts() -> list[int]:
    return [len(members_of("bridge", name)) for name in ("guests", "members4", "members6")]


def test_loading_again_changes_nothing(ground: Ground) -> None:
    ground.ruleset.load([WEB], [ONE, TWO])
    before = table()
    ground.ruleset.load([WEB], [ONE, TWO])
    assert table() == before
    ground.ruleset.load([WEB], [])
    assert counts() == [0, 0, 0]


def test_loading_leaves_the_tables_of_others_alone(ground: Ground) -> None:
    observe.run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter")
    before = observe.run("nft", "list", "table", "inet", "theirs")
    ground.ruleset.load([WEB], [ONE])
    ground.ruleset.remove()
    assert observe.run("nft", "list", "table", "inet", "theirs") == before


def test_removing_tells_what_there_was(ground: Ground) -> None:
    assert ground.ruleset.is_loaded()
    assert ground.ruleset.remove() == ["nftables table inet vethd", "nftables table bridge vethd"]
    assert not ground.ruleset.is_loaded()
    assert ground.ruleset.remove() == []
    assert not [item for item in observe.nft_json() if "table" in item]


@pytest.mark.parametrize("family", ["inet", "bridge"])
def test_half_of_it_is_not_loaded(ground: Ground, family: str) -> None:
    sh(f"nft delete table {family} vethd")
    assert not ground.ruleset.is_loaded()
    ground.ruleset.load([WEB], [])
    assert ground.ruleset.is_loaded()


@pytest.mark.parametrize(
    "change",
    [
        "flush ruleset",
        "flush table inet vethd",
        "flush set bridge vethd guests",
        "insert rule inet vethd forward drop",
        "add chain inet vethd postrouting { policy drop; }",
        "add element bridge vethd guests { theirs }",
        # Declared otherwise, it cannot be declared as ours any more.
        "delete table bridge vethd; add table bridge vethd; add set bridge vethd guests { type ether_addr; }",
    ],
)
def test_whatever_somebody_made_of_it_loading_puts_it_right(ground: Ground, change: str) -> None:
    ground.ruleset.load([WEB], [ONE, TWO])
    before = table()
    observe.run("nft", change)
    assert table() != before
    ground.ruleset.load([WEB], [ONE, TWO])
    assert table() == before


def test_what_nftables_refuses_is_told_in_one_line_and_leaves_the_old(ground: Ground) -> None:
    before = table()
    with pytest.raises(HostError, match=r"^nftables: Error: .*; the kernel needs nf_tables") as caught:
        ground.ruleset.load([replace(WEB, bridge="v*")], [])
    assert str(caught.value).isprintable()
    assert table() == before


def test_every_network_at_once(ground: Ground) -> None:
    nets = [
        replace(WEB, reach=("lab",), host_access=(Port("tcp", 53), Port("udp", 53))),
        network("lab", "10.9.0.0/24", "", bridge="vethd-lab", isolate=True, nat=False, host_access="none"),
        network("third", "10.10.0.0/24", "fd00:10::/64", bridge="é-bridge", reach=("default", "lab", "lab")),
    ]
    ground.ruleset.load(nets, [ONE, FOUR_ONLY])
    assert ground.ruleset.is_loaded()
    assert counts() == [2, 2, 1]


def test_members_one_by_one_are_what_loading_makes_of_them(ground: Ground, members: Members) -> None:
    for member in (ONE, TWO, FOUR_ONLY):
        members.admit(member)
        members.admit(member)
    one_by_one = table()
    assert counts() == [3, 3, 2]
    ground.ruleset.load([WEB], [ONE, TWO, FOUR_ONLY])
    assert table() == one_by_one


def test_members_go_and_who_is_none_is_no_error(ground: Ground, members: Members) -> None:
    ground.ruleset.load([WEB], [ONE, TWO, FOUR_ONLY])
    members.expel([ONE])
    assert counts() == [2, 2, 1]
    members.expel([ONE, TWO])
    members.expel([ONE, TWO])
    assert counts() == [1, 1, 0]
    members.expel([])


def test_who_is_half_a_member_is_wholly_expelled(ground: Ground, members: Members) -> None:
    ground.ruleset.load([WEB], [ONE, TWO])
    sh(f"nft delete element bridge vethd guests {{ {ONE[0]} }}")
    members.expel([TWO, ONE])
    assert counts() == [0, 0, 0]


def test_without_the_table_nobody_can_be_admitted(ground: Ground, members: Members) -> None:
    ground.ruleset.remove()
    with pytest.raises(KernelError, match="change the set members4 of our nftables table: the kernel said ENOENT"):
        members.admit(ONE)
    members.expel([ONE])


def test_several_threads_take_turns(ground: Ground) -> None:
    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(ground.ruleset.load, [WEB], [ONE, TWO]) for _ in range(12)]
        looks = [pool.submit(ground.ruleset.is_loaded) for _ in range(12)]
    assert not [each.exception() for each in loads if each.exception()]
    assert all(look.result() for look in looks)
    assert counts() == [2, 2, 2]


# What a hostile namespace `web` (172.27.0.2) sends to `db` (172.27.0.3): it must not get there.
MAC, DB_MAC = (netns_mac(lease_in(WEB, index).address) for index in (2, 3))
IP, DB_IP, OTHER_IP = "172.27.0.2", "172.27.0.3", "172.27.0.9"
IP6, DB_IP6, OTHER_IP6 = "fd00:7e74:1::2", "fd00:7e74:1::3", "fd00:7e74:1::9"
STRANGE_MAC = bytes.fromhex("020000000009")
ALL_NODES, ALL_NODES_MAC = "ff02::1", bytes.fromhex("333300000001")

HOSTILE = {
    "address of another": frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed"),
    "gateway's address": frames.udp(DB_MAC, MAC, GATEWAY4, DB_IP, b"spoofed"),
    "address of the world": frames.udp(DB_MAC, MAC, "8.8.8.8", DB_IP, b"spoofed"),
    "another MAC": frames.udp(DB_MAC, STRANGE_MAC, IP, DB_IP, b"spoofed"),
    "another's MAC and address": frames.udp(DB_MAC, DB_MAC, DB_IP, DB_IP, b"spoofed"),
    "IPv6 address of another": frames.udp(DB_MAC, MAC, OTHER_IP6, DB_IP6, b"spoofed"),
    "IPv6 from another MAC": frames.udp(DB_MAC, STRANGE_MAC, IP6, DB_IP6, b"spoofed"),
    "ARP for another": frames.arp(MAC, MAC, OTHER_IP, DB_IP),
    "ARP for the gateway": frames.arp(MAC, MAC, GATEWAY4, DB_IP),
    "ARP with another MAC": frames.arp(MAC, STRANGE_MAC, IP, DB_IP),
    "ARP from another MAC": frames.arp(STRANGE_MAC, MAC, IP, DB_IP),
    "DHCP server": frames.udp(BROADCAST, MAC, IP, DB_IP, b"spoofed", ports=(67, 68)),
    "router advertisement": frames.icmp6(
        ALL_NODES_MAC, MAC, IP6, ALL_NODES, frames.ROUTER_ADVERTISEMENT, bytes(12) + b"spoofed."
    ),
    "redirect": frames.icmp6(DB_MAC, MAC, IP6, DB_IP6, frames.REDIRECT, bytes(36)),
    "multicast report": frames.icmp6(ALL_NODES_MAC, MAC, IP6, ALL_NODES, frames.MLD_REPORT, bytes(4)),
    "within a VLAN": frames.vlan(frames.udp(DB_MAC, MAC, IP, DB_IP, b"spoofed")),
    "spoofed within a VLAN": frames.vlan(frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed")),
    "another protocol": frames.ethernet(DB_MAC, MAC, 0x88B5, b"spoofed" + bytes(40)),
    "spanning tree": frames.ethernet(bytes.fromhex("0180c2000000"), MAC, 0x0026, bytes(38)),
    "nothing at all": frames.ethernet(DB_MAC, MAC, 0x0800, bytes(46)),
}
RIGHTFUL = {
    "IPv4": frames.udp(DB_MAC, MAC, IP, DB_IP, b"rightful"),
    "IPv6": frames.udp(DB_MAC, MAC, IP6, DB_IP6, b"rightful"),
    "broadcast": frames.udp(BROADCAST, MAC, IP, "172.27.255.255", b"rightful"),
    "ARP question": frames.arp(MAC, MAC, IP, DB_IP, operation=1),
    "ARP answer": frames.arp(MAC, MAC, IP, DB_IP, to=DB_MAC),
    "neighbour solicitation": frames.icmp6(
        DB_MAC, MAC, IP6, DB_IP6, frames.NEIGHBOUR_SOLICITATION, bytes(4) + socket.inet_pton(socket.AF_INET6, DB_IP6)
    ),
}
LAST = b"the last and rightful one"


@pytest.fixture
def guarded(ground: Ground) -> Ground:
    ground.add("web", "db")
    return ground


def received(sent: bytes) -> bool:
    """Whether a frame that `web` sends comes out of `db`'s device."""
    with frames.wire("db", DEVICE) as ear, frames.wire("web", DEVICE) as mouth:
        mouth.send(sent)
        mouth.send(frames.udp(DB_MAC, MAC, IP, DB_IP, LAST))
        # The kernel takes a VLAN's tag off before it hands a frame over.
        return any(frame.startswith((sent, sent[:12] + sent[16:])) for frame in frames.heard_before(ear, LAST))


def test_what_is_spoofed_does_not_get_through(guarded: Ground) -> None:
    assert [what for what, frame in HOSTILE.items() if received(frame)] == []


def test_what_is_rightful_gets_through(guarded: Ground) -> None:
    assert [what for what, frame in RIGHTFUL.items() if not received(frame)] == []


def test_without_the_guard_all_of_it_would_have_come_through(guarded: Ground) -> None:
    """The frames are well made: it is the ruleset that holds them back, nothing else."""
    sh("nft delete table bridge vethd")
    # A bridge keeps what is meant for bridges and drops nonsense, and a MAC is where it was heard last.
    kept = {"spanning tree", "another's MAC and address", "nothing at all"}
    others = {what: frame for what, frame in HOSTILE.items() if what not in kept}
    assert [what for what, frame in others.items() if not received(frame)] == []


def test_the_host_hears_nothing_spoofed_either(guarded: Ground) -> None:
    with frames.wire(None, BRIDGE) as ear, frames.wire("web", DEVICE) as mouth:
        gateway_mac = guarded.bridge().mac
        mouth.send(frames.udp(gateway_mac, MAC, OTHER_IP, GATEWAY4, b"spoofed"))
        mouth.send(frames.udp(gateway_mac, MAC, OTHER_IP6, GATEWAY6, b"spoofed"))
        mouth.send(frames.udp(gateway_mac, MAC, IP, GATEWAY4, LAST))
        assert not [frame for frame in frames.heard_before(ear, LAST) if b"spoofed" in frame]


def test_who_is_no_guest_is_not_guarded(guarded: Ground) -> None:
    guarded.ruleset.load([WEB], [])
    assert received(HOSTILE["address of another"])
    assert not received(HOSTILE["router advertisement"]), "those are the host's to send, in any case"


def reachable(source: str, address: str, port: int) -> bool:
    return netns.reaches(source, address, port, timeout=0.3)


@contextlib.contextmanager
def serving(name: str | None, address: str, *ports: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(probe.listen(name, address, port))
        yield


@pytest.mark.parametrize(
    ("access", "open_ports"),
    [("all", {53, 80}), ("none", set()), ((Port("tcp", 53),), {53}), ((Port("udp", 80),), set())],
)
def test_host_services_that_may_be_opened(ground: Ground, access: object, open_ports: set[int]) -> None:
    ground.add("web")
    ground.ruleset.load([replace(WEB, host_access=access)], [])  # type: ignore[arg-type]
    with serving(None, GATEWAY4, 53, 80):
        assert {port for port in (53, 80) if reachable("web", GATEWAY4, port)} == open_ports
    assert probe.icmp_echo("web", GATEWAY4) < 0.5, "the gateway answers pings in any case"
    assert probe.icmp_echo("web", GATEWAY6) < 0.5
    with serving("web", IP, 80):
        assert netns.reaches(None, IP, 80), "the host reaches its namespaces"


LAB = network("lab", "10.9.0.0/24", "", bridge="vethd-lab")
LAB_IP = "10.9.0.3"


@pytest.mark.parametrize(
    ("nets", "web_reaches_lab", "lab_reaches_web"),
    [
        ([WEB, LAB], False, False),
        ([replace(WEB, reach=("lab",)), LAB], True, False),
        ([replace(WEB, reach=("lab",)), replace(LAB, reach=("default",))], True, True),
    ],
)
def test_networks_reach_each_other_as_they_are_told(
    private_host: object, nets: list[Network], web_reaches_lab: bool, lab_reaches_web: bool
) -> None:
    with contextlib.closing(Ground(nets)) as ground:
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
        ground.add("web")
        ground.add("bench", place=1)
        with serving("bench", LAB_IP, 80), serving("web", IP, 80):
            assert reachable("web", LAB_IP, 80) == web_reaches_lab
            assert reachable("bench", IP, 80) == lab_reaches_web


def test_isolated_namespaces_reach_the_host_and_not_each_other(private_host: object) -> None:
    with contextlib.closing(Ground([replace(WEB, isolate=True)])) as ground:
        ground.add("web", "db")
        with serving("db", DB_IP, 80):
            assert not reachable("web", DB_IP, 80)
        assert probe.icmp_echo("web", GATEWAY4) < 0.5
        assert probe.icmp_echo("db", GATEWAY6) < 0.5
