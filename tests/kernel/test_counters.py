"""Counters of devices and of connections, read at speed, against what `ip` and `nft` tell."""

import socket
import subprocess

import pytest

from agent.demo.private_host import PrivateHost
from agent.kernel.counted import decode
from agent.kernel.counters import Place, TrafficReader, read_inside
from agent.kernel.elements import delete_all
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import Opening, OpeningsReader, openings_elements, read_openings
from agent.kernel.ruleset import Ruleset
from agent.kernel.wire import attribute, nested
from agent.model import Cookie, Traffic
from tests.harness import netns, observe
from tests.harness.waiting import eventually
from tests.unit.worlds import network

# More than fit one datagram of the dump, with a last one that is not full.
PAIRS = 200


@pytest.fixture
def pairs(private_host: PrivateHost) -> None:
    netns.add_netns("far")
    commands = (f"link add h{number} up type veth peer name p{number} netns far" for number in range(PAIRS))
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _told_by_ip() -> dict[int, Traffic]:
    devices = observe.ip_json("-stats", "link", "show")
    return {
        each["ifindex"]: Traffic(*(each["stats64"][way][kind] for way in ("rx", "tx") for kind in _KINDS))
        for each in devices
    }


_KINDS = ("bytes", "packets", "errors", "dropped")


def test_every_device_is_told_as_ip_tells_it(pairs: None) -> None:
    observe.run("ip", "-n", "far", "link", "set", "p7", "up")
    eventually(lambda: observe.links()["h7"]["operstate"] == "UP", 5, "h7 has a carrier")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("h7", 0))
        for size in (60, 100, 1000):
            raw.send(bytes(size))
    reader = TrafficReader()
    told = reader.read()
    assert len(told) > PAIRS
    sent_by = socket.if_nametoindex("h7")
    assert told[sent_by].tx_packets >= 3
    assert told[sent_by].tx_bytes >= 1160
    # The kernel itself goes on sending on a new device for a while.
    eventually(lambda: reader.read() == _told_by_ip(), 5, "both tell the same of every device")
    before = reader.read()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("h7", 0))
        raw.send(bytes(60))
    after = reader.read()
    idle = socket.if_nametoindex("h8")
    assert after[sent_by].tx_packets > before[sent_by].tx_packets
    assert after[idle] is before[idle], "not decoded again"
    observe.run("ip", "link", "del", "h7")
    assert reader.read().keys() == after.keys() - {sent_by}


def test_devices_inside_are_told_by_their_place(pairs: None) -> None:
    links = {link["ifname"]: link for link in observe.ip_json("link", "show")}
    place = {
        name: Place(links[name]["link_netnsid"], links[name]["link_index"], links[name]["ifindex"])
        for name in ("h1", "h2")
    }
    elsewhere = Place(place["h1"].nsid, place["h1"].device, place["h2"].host_end)
    gone = Place(place["h1"].nsid, 100_000, place["h1"].host_end)
    found = read_inside({Cookie(1): place["h1"], Cookie(2): place["h2"], Cookie(3): elsewhere, Cookie(4): gone})
    assert set(found) == {Cookie(1), Cookie(2)}


FILL = "\n".join(
    f"add element inet vethd {name} {{ "
    + ", ".join(f"{address}{number:x} counter packets {number + 1} bytes 9" for number in range(1, count))
    + " }"
    for name, address, count in (("opened4", "10.0.0.", 10), ("opened6", "fd00::", 2000), ("accepted6", "fd00::", 20))
)


def _told_by_nft(name: str) -> dict[bytes, int]:
    (found,) = (item["set"] for item in observe.nft_json() if item.get("set", {}).get("name") == name)
    family = socket.AF_INET6 if name.endswith("6") else socket.AF_INET
    elements = [each["elem"] for each in found["elem"]]
    return {socket.inet_pton(family, each["val"]): each["counter"]["packets"] for each in elements}


def test_openings_are_told_as_nft_tells_them(private_host: PrivateHost) -> None:
    Ruleset().load([network()], [])
    reader = OpeningsReader()
    both, one = (socket.inet_pton(socket.AF_INET6, address) for address in ("fd00::7", "fd00::700"))
    with Netlink(NETLINK_NETFILTER) as netlink:
        assert reader.read(netlink) == ({}, {})
        subprocess.run(["nft", "-f", "-"], input=FILL, text=True, check=True)
        # A hash table that has grown is put in order by and by, and told in another order then.
        eventually(lambda: reader.read(netlink).opened is reader.read(netlink).opened, 5, "the table rests")
        openings = reader.read(netlink)
        assert openings.opened == _told_by_nft("opened4") | _told_by_nft("opened6")
        assert openings.accepted == _told_by_nft("accepted6")
        assert len(openings.opened) == 9 + 1999
        assert read_openings(netlink, [both, bytes(4), one]) == {
            both: Opening(8, 8),
            bytes(4): Opening(None, None),
            one: Opening(0x701, None),
        }
        assert read_openings(netlink, []) == {}
        again = reader.read(netlink)
        assert again.opened is openings.opened
        assert again.accepted is openings.accepted
        observe.run("nft", "add element inet vethd opened6 { fd00::ffff counter packets 5 bytes 9 }")
        more = reader.read(netlink)
        assert more.opened == {**openings.opened, socket.inet_pton(socket.AF_INET6, "fd00::ffff"): 5}
        assert more.accepted is openings.accepted
        delete_all(netlink, openings_elements([both, one]))
        forgotten = reader.read(netlink)
        assert forgotten.opened.keys() == more.opened.keys() - {both, one}
        assert forgotten.accepted.keys() == more.accepted.keys() - {both}
        observe.run("nft", "delete", "table", "inet", "vethd")
        assert read_openings(netlink, [both]) == {both: Opening(None, None)}
        assert reader.read(netlink) == ({}, {}), "no table, no connections"


def _element(key: bytes, packets: int, before: bytes = b"") -> bytes:
    counter = attribute(1, (99).to_bytes(8)) + attribute(2, packets.to_bytes(8))
    expression = nested(7, attribute(1, b"counter\0") + nested(2, counter))
    return nested(1, nested(1, attribute(1, key)) + before + expression)


def test_elements_that_are_not_alike_are_told_all_the_same() -> None:
    alike = {bytes([10, 0, 0, number]): number * 7 for number in range(1, 30)}
    assert dict(decode(b"".join(_element(*each) for each in alike.items()))) == alike
    # The second half has one attribute more, such as a comment; and one element is of another length.
    others = {bytes([10, 0, 1, number]): number * 9 for number in range(1, 30)}
    elements = b"".join(_element(*each) for each in alike.items())
    elements += b"".join(_element(*each, before=attribute(6, b"ab")) for each in others.items())
    assert dict(decode(elements)) == alike | others
    long = {bytes(16): 5}
    assert dict(decode(elements + _element(*next(iter(long.items()))))) == alike | others | long
    # As long as the others, and yet of other attributes.
    odd = _element(b"abcd", 3)
    swapped = nested(1, attribute(6, b"") + nested(1, attribute(1, b"")) + odd[16:])
    assert len(swapped) == len(odd)
    assert dict(decode(odd + swapped + odd)) == {b"abcd": 3, b"": 3}
