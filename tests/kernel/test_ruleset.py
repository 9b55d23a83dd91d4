"""Our nftables tables on the real kernel: loaded again and again, changed, removed, and obeyed."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from agent.core.identity import host_end_name
from agent.demo import probe
from agent.errors import HostError, KernelError
from agent.kernel import elements
from agent.kernel.elements import delete_all
from agent.kernel.members import Member, Members, member_elements
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.model import Cookie, Network, Port
from tests.harness import netns, observe
from tests.harness.expect import GATEWAY4, GATEWAY6
from tests.kernel.ground import Ground, sh
from tests.kernel.test_netlink import members_of
from tests.unit.worlds import lease_in, network

WEB = network()
ONE: Member = (host_end_name(Cookie(1)), lease_in(WEB, 2))
TWO: Member = (host_end_name(Cookie(2)), lease_in(WEB, 3))
FOUR_ONLY: Member = (host_end_name(Cookie(3)), replace(lease_in(WEB, 4), address6=None))
ROUTED: Member = (host_end_name(Cookie(4)), lease_in(WEB, 5, routed=True))
ALL = [ONE, TWO, FOUR_ONLY, ROUTED]


@pytest.fixture
def members(ground: Ground) -> Iterator[Members]:
    with Netlink(NETLINK_NETFILTER) as netlink:
        yield Members(netlink)


def expel(members: Sequence[Member]) -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        delete_all(netlink, [element for member in members for element in member_elements(member)])


def table() -> str:
    """Both tables as `nft` tells them, without handles and with elements in order."""
    text = observe.nft_text()
    return re.sub(r"elements = \{([^}]*)\}", lambda m: " ".join(sorted(re.split(r"[,\s]+", m[1]))), text)


def counts() -> list[int]:
    return [len(members_of("bridge", name)) for name in ("guests", "members4", "members6", "streams4")]


def test_loading_again_changes_nothing(ground: Ground) -> None:
    ground.ruleset.load([WEB], [ONE, TWO])
    before = table()
    ground.ruleset.load([WEB], [ONE, TWO])
    assert table() == before
    ground.ruleset.load([WEB], [])
    assert counts() == [0, 0, 0, 0]


def test_each_transaction_is_a_generation(ground: Ground) -> None:
    before = ground.ruleset.generation()
    assert before is not None
    ground.ruleset.load([WEB], ALL)
    assert ground.ruleset.generation() == before + 1
    sh("nft add table inet theirs")
    assert ground.ruleset.generation() == before + 2


def test_loading_leaves_the_tables_of_others_alone(ground: Ground) -> None:
    observe.run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter")
    before = observe.run("nft", "list", "table", "inet", "theirs")
    ground.ruleset.load([WEB], [ONE])
    ground.ruleset.remove()
    assert observe.run("nft", "list", "table", "inet", "theirs") == before


def test_what_nft_lists_it_can_load(ground: Ground) -> None:
    """As people do who keep their host's rules in a file."""
    ground.ruleset.load([WEB], ALL)
    before = table()
    sh("nft list ruleset > /run/rules; nft flush ruleset; nft -f /run/rules")
    assert table() == before
    ground.ruleset.load([WEB], ALL)
    assert table() == before


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
        "add element bridge vethd elsewhere { 02:00:00:00:00:01 : 02:00:00:00:00:02 }",
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
    assert counts() == [2, 2, 1, 2]


def test_members_one_by_one_are_what_loading_makes_of_them(ground: Ground, members: Members) -> None:
    empty = table()
    for member in ALL:
        members.admit(member)
        members.admit(member, new=True)
    # Of these it is known from their beginning how many connections they have had.
    assert [len(members_of("inet", name)) for name in ("accepted4", "accepted6")] == [4, 3]
    sh("nft flush set inet vethd accepted4; nft flush set inet vethd accepted6")
    one_by_one = table()
    assert counts() == [3, 3, 2, 3]
    ground.ruleset.load([WEB], ALL)
    assert table() == one_by_one
    expel(ALL)
    assert table() == empty


def test_members_go_and_who_is_none_is_no_error(ground: Ground, members: Members) -> None:
    ground.ruleset.load([WEB], [ONE, TWO, FOUR_ONLY])
    expel([ONE])
    assert counts() == [2, 2, 1, 2]
    expel([ONE, TWO])
    expel([ONE, TWO])
    assert counts() == [1, 1, 0, 1]
    expel([])


def test_who_is_half_a_member_is_wholly_expelled(ground: Ground, members: Members) -> None:
    ground.ruleset.load([WEB], [ONE, TWO])
    sh(f"nft delete element bridge vethd guests {{ {ONE[0]} }}")
    expel([TWO, ONE])
    assert counts() == [0, 0, 0, 0]


def test_without_the_table_nobody_can_be_admitted(ground: Ground, members: Members) -> None:
    ground.ruleset.remove()
    with pytest.raises(KernelError, match="change the set members4 of our nftables table: the kernel said ENOENT"):
        members.admit(ONE)
    expel([ONE])


def test_several_threads_take_turns(ground: Ground) -> None:
    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(ground.ruleset.load, [WEB], [ONE, TWO]) for _ in range(12)]
        looks = [pool.submit(ground.ruleset.is_loaded) for _ in range(12)]
    assert not [each.exception() for each in loads if each.exception()]
    assert all(look.result() for look in looks)
    assert counts() == [2, 2, 2, 2]


IP, DB_IP = "172.27.0.2", "172.27.0.3"


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


def test_what_is_missing_costs_no_more_than_what_is_there(ground: Ground) -> None:
    """An aborted transaction waits for RCU, 15 ms: removals of what is not there must not fail."""
    netlink = Netlink(NETLINK_NETFILTER)
    with contextlib.closing(netlink):
        keys = [address.to_bytes(4) for address in range(0x0A000000, 0x0A000040)]
        for key in keys:
            netlink.transact([elements.add_element("inet", "plain4", key)])
        there = timed(netlink, keys)
        missing = timed(netlink, keys)
    assert elements._kernel.destroys, "since Linux 6.3"
    assert missing < 10 * there


def timed(netlink: Netlink, keys: list[bytes]) -> float:
    started = time.monotonic()
    for key in keys:
        elements.delete_all(netlink, [elements.delete_element("inet", "plain4", key)])
    return time.monotonic() - started


def test_a_kernel_that_cannot_destroy_is_asked_to_delete(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "_DESTROY", (10 << 8) | 99)
    monkeypatch.setattr(elements, "_kernel", elements._Kernel())
    with contextlib.closing(Netlink(NETLINK_NETFILTER)) as netlink:
        key = b"\x0a\0\0\1"
        netlink.transact([elements.add_element("inet", "plain4", key)])
        for _ in range(2):
            elements.delete_all(netlink, [elements.delete_element("inet", "plain4", key)])
    assert not elements._kernel.destroys
    sets = [item["set"] for item in observe.nft_json() if "set" in item]
    assert [each.get("elem") for each in sets if each["name"] == "plain4"] == [None]
