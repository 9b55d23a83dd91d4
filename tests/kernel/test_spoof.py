"""What a hostile namespace sends by hand on its bridge: nobody hears of it, nobody believes it.

`web` (172.27.0.2) is root inside and sends whatever it likes; `db` (172.27.0.3) and the host must not be fooled.
"""

import socket
from pathlib import Path

import pytest

from agent.core.identity import netns_mac
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, DEVICE, GATEWAY4, GATEWAY6
from tests.kernel import crafted, frames
from tests.kernel.crafted import DESTINATION_OPTIONS, HOP_BY_HOP, SOURCE_MAC, TARGET_MAC, behind, option
from tests.kernel.frames import BROADCAST
from tests.kernel.ground import Ground, sh
from tests.unit.worlds import lease_in, network

WEB = network()
MAC, DB_MAC, CACHE_MAC = (netns_mac(lease_in(WEB, index).address) for index in (2, 3, 4))
GATEWAY_MAC = netns_mac(WEB.gateway.ip)
IP, DB_IP, CACHE_IP, OTHER_IP = "172.27.0.2", "172.27.0.3", "172.27.0.4", "172.27.0.9"
IP6, DB_IP6, CACHE_IP6, OTHER_IP6 = (f"fd00:7e74:1::{host}" for host in (2, 3, 4, 9))
STRANGE_MAC = bytes.fromhex("020000000009")
ALL_NODES, ALL_NODES_MAC = "ff02::1", bytes.fromhex("333300000001")
MINE = option(TARGET_MAC, MAC)

ADVERT = frames.icmp6(ALL_NODES_MAC, MAC, IP6, ALL_NODES, frames.ROUTER_ADVERTISEMENT, bytes(12) + b"spoofed.")
REDIRECT = frames.icmp6(DB_MAC, MAC, IP6, DB_IP6, frames.REDIRECT, bytes(36))
ANSWER_FOR_ANOTHER = crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, OTHER_IP6, MINE)
TO_DHCP_CLIENT = frames.udp(BROADCAST, MAC, IP, DB_IP, b"spoofed", ports=(5000, 68))
TO_DHCP6_CLIENT = frames.udp(DB_MAC, MAC, IP6, DB_IP6, b"spoofed", ports=(5000, 546))

# What must not get to `db`.
HOSTILE = {
    "address of another": frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed"),
    "gateway's address": frames.udp(DB_MAC, MAC, GATEWAY4, DB_IP, b"spoofed"),
    "address of the world": frames.udp(DB_MAC, MAC, "8.8.8.8", DB_IP, b"spoofed"),
    "no address": frames.udp(DB_MAC, MAC, "0.0.0.0", DB_IP, b"spoofed"),
    "another MAC": frames.udp(DB_MAC, STRANGE_MAC, IP, DB_IP, b"spoofed"),
    "gateway's MAC": frames.udp(DB_MAC, GATEWAY_MAC, IP, DB_IP, b"spoofed"),
    "another's MAC and address": frames.udp(DB_MAC, DB_MAC, DB_IP, DB_IP, b"spoofed"),
    "IPv6 address of another": frames.udp(DB_MAC, MAC, OTHER_IP6, DB_IP6, b"spoofed"),
    "no IPv6 address": frames.udp(DB_MAC, MAC, "::", DB_IP6, b"spoofed"),
    "link-local address": frames.udp(DB_MAC, MAC, "fe80::1", DB_IP6, b"spoofed"),
    "IPv6 from another MAC": frames.udp(DB_MAC, STRANGE_MAC, IP6, DB_IP6, b"spoofed"),
    "ARP for another": frames.arp(MAC, MAC, OTHER_IP, DB_IP),
    "ARP for another, unasked": frames.arp(MAC, MAC, OTHER_IP, OTHER_IP),
    "ARP question of another": frames.arp(MAC, MAC, OTHER_IP, DB_IP, operation=1),
    "ARP for the gateway": frames.arp(MAC, MAC, GATEWAY4, DB_IP),
    "ARP with another MAC": frames.arp(MAC, STRANGE_MAC, IP, DB_IP),
    "ARP from another MAC": frames.arp(STRANGE_MAC, MAC, IP, DB_IP),
    "reverse ARP": frames.ethernet(DB_MAC, MAC, 0x8035, frames.arp(MAC, MAC, OTHER_IP, DB_IP)[14:]),
    "DHCP server": frames.udp(BROADCAST, MAC, IP, DB_IP, b"spoofed", ports=(67, 68)),
    "DHCP server of another port": TO_DHCP_CLIENT,
    "DHCPv6 server": frames.udp(DB_MAC, MAC, IP6, DB_IP6, b"spoofed", ports=(547, 546)),
    "DHCPv6 server of another port": TO_DHCP6_CLIENT,
    "DHCPv6 server behind an option": behind(DESTINATION_OPTIONS, TO_DHCP6_CLIENT),
    "router advertisement": ADVERT,
    "router advertisement behind an option": behind(HOP_BY_HOP, ADVERT),
    "redirect": REDIRECT,
    "redirect behind options": behind(HOP_BY_HOP, behind(DESTINATION_OPTIONS, REDIRECT)),
    "multicast report": frames.icmp6(ALL_NODES_MAC, MAC, IP6, ALL_NODES, frames.MLD_REPORT, bytes(4)),
    "advertisement for another": ANSWER_FOR_ANOTHER,
    "advertisement for the gateway": crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, GATEWAY6, MINE),
    "advertisement for the gateway, to all": crafted.advertisement(
        ALL_NODES_MAC, MAC, IP6, ALL_NODES, GATEWAY6, MINE, crafted.UNASKED
    ),
    "advertisement for another without MAC": crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, OTHER_IP6),
    "advertisement behind an option": behind(HOP_BY_HOP, ANSWER_FOR_ANOTHER),
    "advertisement behind two": behind(HOP_BY_HOP, behind(DESTINATION_OPTIONS, ANSWER_FOR_ANOTHER)),
    "advertisement with another's MAC": crafted.advertisement(
        DB_MAC, MAC, IP6, DB_IP6, IP6, option(TARGET_MAC, STRANGE_MAC)
    ),
    "advertisement with a second MAC": crafted.advertisement(
        DB_MAC, MAC, IP6, DB_IP6, IP6, MINE + option(TARGET_MAC, STRANGE_MAC)
    ),
    "advertisement with a MAC behind something else": crafted.advertisement(
        DB_MAC, MAC, IP6, DB_IP6, IP6, option(14, bytes(6)) + option(TARGET_MAC, STRANGE_MAC)
    ),
    "solicitation with another's MAC": crafted.solicitation(
        DB_MAC, MAC, IP6, DB_IP6, DB_IP6, option(SOURCE_MAC, STRANGE_MAC)
    ),
    "solicitation with the gateway's MAC": crafted.solicitation(
        DB_MAC, MAC, IP6, DB_IP6, DB_IP6, option(SOURCE_MAC, GATEWAY_MAC)
    ),
    "solicitation of another": crafted.solicitation(DB_MAC, MAC, OTHER_IP6, DB_IP6, DB_IP6, option(SOURCE_MAC, MAC)),
    "within a VLAN": frames.vlan(frames.udp(DB_MAC, MAC, IP, DB_IP, b"spoofed")),
    "spoofed within a VLAN": frames.vlan(frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed")),
    "spoofed with a priority": frames.vlan(frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed"), 0),
    "ARP with a priority": frames.vlan(frames.arp(MAC, MAC, OTHER_IP, DB_IP), 0),
    "advertisement with a priority": frames.vlan(ANSWER_FOR_ANOTHER, 0),
    "within two VLANs": frames.vlan(frames.vlan(frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed"), 2)),
    "within a provider's VLAN": frames.ethernet(DB_MAC, MAC, 0x88A8, b"\0\5" + ANSWER_FOR_ANOTHER[12:]),
    "spoofed with options": crafted.with_options4(frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed"), b"\1\1\1\0"),
    "another protocol": frames.ethernet(DB_MAC, MAC, 0x88B5, b"spoofed" + bytes(40)),
    "spanning tree": frames.ethernet(bytes.fromhex("0180c2000000"), MAC, 0x0026, bytes(38)),
    "nothing at all": frames.ethernet(DB_MAC, MAC, 0x0800, bytes(46)),
}
PIECES = {
    "spoofed": crafted.pieces4(frames.udp(DB_MAC, MAC, OTHER_IP, DB_IP, b"spoofed" * 4), 8),
    "spoofed IPv6": crafted.pieces6(frames.udp(DB_MAC, MAC, OTHER_IP6, DB_IP6, b"spoofed" * 4), 8),
    "advertisement": crafted.pieces6(ANSWER_FOR_ANOTHER, 24),
    "advertisement without its target": crafted.pieces6(ANSWER_FOR_ANOTHER, 8),
    "router advertisement": crafted.pieces6(ADVERT, 8),
    "DHCP server": crafted.pieces4(TO_DHCP_CLIENT, 8),
    "DHCPv6 server": crafted.pieces6(TO_DHCP6_CLIENT, 8),
}
RIGHTFUL = {
    "IPv4": frames.udp(DB_MAC, MAC, IP, DB_IP, b"rightful"),
    "IPv4 with options": crafted.with_options4(frames.udp(DB_MAC, MAC, IP, DB_IP, b"rightful"), b"\1\1\1\0"),
    "IPv6": frames.udp(DB_MAC, MAC, IP6, DB_IP6, b"rightful"),
    "IPv6 behind an option": behind(DESTINATION_OPTIONS, frames.udp(DB_MAC, MAC, IP6, DB_IP6, b"rightful")),
    "broadcast": frames.udp(BROADCAST, MAC, IP, "172.27.255.255", b"rightful"),
    "ARP question": frames.arp(MAC, MAC, IP, DB_IP, operation=1),
    "ARP answer": frames.arp(MAC, MAC, IP, DB_IP, to=DB_MAC),
    "DHCP client": frames.udp(BROADCAST, MAC, IP, "255.255.255.255", b"rightful", ports=(68, 67)),
    "solicitation": crafted.solicitation(DB_MAC, MAC, IP6, DB_IP6, DB_IP6),
    "solicitation with its MAC": crafted.solicitation(DB_MAC, MAC, IP6, DB_IP6, DB_IP6, option(SOURCE_MAC, MAC)),
    "advertisement": crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, IP6, MINE),
    "advertisement without MAC": crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, IP6),
    "advertisement unasked": crafted.advertisement(ALL_NODES_MAC, MAC, IP6, ALL_NODES, IP6, MINE, crafted.UNASKED),
}
LAST = b"the last and rightful one"


@pytest.fixture(params=["br_netfilter", "bridge alone"])
def guarded(ground: Ground, request: pytest.FixtureRequest) -> Ground:
    """With br_netfilter, frames of the bridge pass the host's rules too, and pieces are put together there."""
    for family in ("ip", "ip6"):
        setting = Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables")
        if request.param == "br_netfilter" and not setting.exists():
            pytest.skip("this kernel has no br_netfilter")
        if setting.exists():
            setting.write_text("1" if request.param == "br_netfilter" else "0")
    ground.add("web", "db", "cache")
    return ground


bridge_alone = pytest.mark.parametrize("guarded", ["bridge alone"], indirect=True)


def received(*sent: bytes) -> bool:
    """Whether any of the frames that `web` sends comes out of `db`'s device."""
    with frames.wire("db", DEVICE) as ear, frames.wire("web", DEVICE) as mouth:
        for frame in sent:
            mouth.send(frame)
        mouth.send(frames.udp(DB_MAC, MAC, IP, DB_IP, LAST))
        heard = frames.heard_before(ear, LAST)
    # The kernel takes a VLAN's tag off before it hands a frame over.
    starts = tuple(start for frame in sent for start in (frame, frame[:12] + frame[16:]))
    return any(frame.startswith(starts) for frame in heard)


def test_what_is_spoofed_does_not_get_through(guarded: Ground) -> None:
    assert [what for what, frame in HOSTILE.items() if received(frame)] == []


@bridge_alone
def test_what_is_spoofed_does_not_get_through_in_pieces(guarded: Ground) -> None:
    """Of a message that is not to be, the first piece never comes: the others say nothing alone."""
    assert [what for what, (first, _) in PIECES.items() if received(first)] == []
    assert all(received(piece) for piece in crafted.pieces4(RIGHTFUL["IPv4"], 8))
    assert all(received(piece) for piece in crafted.pieces6(RIGHTFUL["IPv6"], 8))


def test_what_is_rightful_gets_through(guarded: Ground) -> None:
    assert [what for what, frame in RIGHTFUL.items() if not received(frame)] == []


def test_without_the_guard_all_of_it_would_have_come_through(guarded: Ground) -> None:
    """The frames are well made: it is the rules that hold them back, nothing else."""
    sh("nft delete table bridge vethd; nft delete table inet vethd")
    # A bridge keeps what is meant for bridges, drops nonsense, and does not send back where a MAC was heard last.
    kept = {"spanning tree", "another's MAC and address", "nothing at all", "gateway's MAC"}
    others = {what: frame for what, frame in HOSTILE.items() if what not in kept}
    assert [what for what, frame in others.items() if not received(frame)] == []
    assert [what for what, (first, _) in PIECES.items() if not received(first)] == []


def test_the_host_hears_nothing_spoofed_either(guarded: Ground) -> None:
    with frames.wire(None, BRIDGE) as ear, frames.wire("web", DEVICE) as mouth:
        mouth.send(frames.udp(GATEWAY_MAC, MAC, OTHER_IP, GATEWAY4, b"spoofed"))
        mouth.send(frames.udp(GATEWAY_MAC, MAC, OTHER_IP6, GATEWAY6, b"spoofed"))
        mouth.send(frames.udp(GATEWAY_MAC, MAC, IP, GATEWAY4, LAST))
        assert not [frame for frame in frames.heard_before(ear, LAST) if b"spoofed" in frame]


def test_who_is_no_guest_is_not_guarded(guarded: Ground) -> None:
    guarded.ruleset.load([WEB], [])
    assert received(HOSTILE["address of another"])
    assert not received(HOSTILE["router advertisement"]), "those are the host's to send, in any case"


def neighbours(name: str | None, device: str) -> dict[str, str]:
    """Address to MAC, as a namespace or the host (on its bridge) believes it."""
    found = observe.ip_json("neighbour", "show", "dev", device, netns=name)
    return {entry["dst"]: entry["lladdr"] for entry in found if "lladdr" in entry}


LIES = {
    "ARP answer": frames.arp(MAC, MAC, CACHE_IP, DB_IP, to=DB_MAC),
    "ARP question": frames.arp(MAC, MAC, CACHE_IP, DB_IP, operation=1),
    "ARP unasked": frames.arp(MAC, MAC, CACHE_IP, CACHE_IP),
    "advertisement": crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, CACHE_IP6, MINE),
    "advertisement to all": crafted.advertisement(ALL_NODES_MAC, MAC, IP6, ALL_NODES, CACHE_IP6, MINE, crafted.UNASKED),
    "advertisement behind an option": behind(
        HOP_BY_HOP, crafted.advertisement(DB_MAC, MAC, IP6, DB_IP6, CACHE_IP6, MINE)
    ),
    "solicitation": crafted.solicitation(DB_MAC, MAC, CACHE_IP6, DB_IP6, DB_IP6, option(SOURCE_MAC, MAC)),
}


def believed(lies: list[str]) -> list[str]:
    """Which lies of `web` have `db` send to it what is meant for `cache`."""
    found = []
    for lie in lies:
        sh(f"ip neigh flush dev {DEVICE} nud reachable nud stale nud delay nud probe", "db")
        assert netns.ping("db", CACHE_IP) == netns.ping("db", CACHE_IP6) == 1
        # An entry that was confirmed in the last second is not overwritten by ARP (locktime, arp(7)).
        sh(f"echo 0 > /proc/sys/net/ipv4/neigh/{DEVICE}/locktime", "db")
        with frames.wire("db", DEVICE) as ear, frames.wire("web", DEVICE) as mouth:
            mouth.send(LIES[lie])
            mouth.send(frames.udp(DB_MAC, MAC, IP, DB_IP, LAST))
            frames.heard_before(ear, LAST)
        if {MAC.hex(":")} & {neighbours("db", DEVICE)[address] for address in (CACHE_IP, CACHE_IP6)}:
            found.append(lie)
    return found


def test_nobody_believes_who_answers_for_another(guarded: Ground) -> None:
    assert believed(list(LIES)) == []
    sh("nft delete table bridge vethd")
    assert believed(list(LIES)) == list(LIES), "but for the rules they would have been believed"


def test_the_host_knows_better_than_any_advertisement(guarded: Ground) -> None:
    before = neighbours(None, BRIDGE)
    assert before[DB_IP] == before[DB_IP6] == DB_MAC.hex(":")
    with frames.wire(None, BRIDGE) as ear, frames.wire("web", DEVICE) as mouth:
        mouth.send(frames.arp(MAC, MAC, DB_IP, GATEWAY4, to=GATEWAY_MAC))
        mouth.send(crafted.advertisement(GATEWAY_MAC, MAC, IP6, GATEWAY6, DB_IP6, MINE))
        mouth.send(crafted.solicitation(GATEWAY_MAC, MAC, IP6, GATEWAY6, GATEWAY6, option(SOURCE_MAC, STRANGE_MAC)))
        mouth.send(frames.udp(GATEWAY_MAC, MAC, IP, GATEWAY4, LAST))
        frames.heard_before(ear, LAST)
    assert neighbours(None, BRIDGE) == before


def test_its_own_address_moves_nowhere_but_with_its_own_mac(guarded: Ground) -> None:
    """A kernel inside that has another's address and MAC is heard by nobody."""
    sh(f"ip link set {DEVICE} address {CACHE_MAC.hex(':')}; ip addr add {CACHE_IP}/16 dev {DEVICE}", "web")
    with netns.socket_in("web", CACHE_IP, socket.SOCK_DGRAM) as sender, frames.wire("db", DEVICE) as ear:
        sender.bind((CACHE_IP, 0))
        sender.sendto(b"spoofed", (DB_IP, 9))
        with frames.wire("cache", DEVICE) as mouth:
            mouth.send(frames.udp(DB_MAC, CACHE_MAC, CACHE_IP, DB_IP, LAST))
        assert not [frame for frame in frames.heard_before(ear, LAST) if frame[6:12] == CACHE_MAC and b"spoof" in frame]
