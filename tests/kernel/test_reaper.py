"""Taking down: nothing of it is left, nothing of others is touched, and what is gone already is no error."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from agent.core.identity import host_end_name
from agent.demo import internet, probe, uplink
from agent.kernel import conntrack
from agent.kernel.conntrack import Party
from agent.kernel.members import Members
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.reaper import Reaper, Removal
from agent.model import Attachment, Cookie
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, GATEWAY4, address4, address6
from tests.kernel.ground import Ground, remove, sh
from tests.kernel.test_netlink import members_of
from tests.unit.worlds import lease_in, network


@pytest.fixture
def reaper(ground: Ground) -> Iterator[Reaper]:
    with contextlib.closing(Reaper()) as made:
        yield made


def removal(desired: Attachment, *, admitted: bool = True) -> Removal:
    return Removal(host_end_name(desired.cookie), desired.lease, desired.bridge.index, admitted)


def bridge_neighbours() -> set[str]:
    return {entry["dst"] for entry in observe.ip_json("neighbour", "show", "dev", BRIDGE, "nud", "permanent")}


def tracked(address: str) -> list[str]:
    return [line for line in observe.conntrack_list() if f"={address} " in line]


def talk(name: str) -> None:
    """Leave connections behind: some that it opened, of both families, and one that it answered."""
    for beyond in (uplink.BEYOND4, uplink.BEYOND6):
        with netns.socket_in(name, beyond, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (beyond, internet.ECHO_PORT))
            sock.settimeout(3)
            assert sock.recv(9) == b"x"
    with probe.listen(name, address4(name), 4711):
        probe.tcp_connect(None, address4(name), 4711)


def test_nothing_is_left(ground: Ground, reaper: Reaper) -> None:
    ground.add("web")
    talk("web")
    four, six = address4("web"), address6("web")
    assert tracked(four)
    assert tracked(six)
    assert len(tracked(four)) >= 2
    assert bridge_neighbours() == {four, six}
    (last,) = remove(reaper, [removal(ground.desired("web"))])
    assert last.traffic is not None
    assert last.traffic.rx_packets > 0
    assert last.traffic.tx_bytes > 0
    assert observe.host_ends() == {}
    assert set(observe.links("web")) == {"lo"}
    assert bridge_neighbours() == set()
    assert tracked(four) == tracked(six) == []
    for name in ("guests", "members4", "members6", "streams4"):
        assert members_of("bridge", name) == []


def test_a_whole_group_goes_and_the_others_stay_and_work(ground: Ground, reaper: Reaper) -> None:
    names = [f"n{number}" for number in range(12)]
    ground.add(*names)
    for name in ("n0", "n11"):
        talk(name)
    kept = {ground.desired(name).cookie: name for name in names[10:]}
    gone = address4("n0")
    remove(reaper, [removal(ground.desired(name)) for name in names[:10]])
    assert set(observe.host_ends()) == {host_end_name(cookie) for cookie in kept}
    assert bridge_neighbours() == {address(name) for name in kept.values() for address in (address4, address6)}
    assert len(members_of("bridge", "members4")) == len(members_of("bridge", "members6")) == 2
    assert tracked(address4("n11"))
    assert not tracked(gone)
    for name in kept.values():
        assert ground.planned(name) == ()
        assert probe.icmp_echo(name, GATEWAY4) < 0.5


def test_what_is_gone_is_no_error(ground: Ground, reaper: Reaper) -> None:
    ground.add("web", "db", "idle")
    removals = [removal(ground.desired(name)) for name in ("web", "db", "idle")]
    observe.run("ip", "link", "del", removals[0].host_end)
    sh(f"nft delete element bridge vethd guests {{ {removals[1].host_end} }}")
    sh(f"ip neigh del {GATEWAY4[:-1]}3 dev {BRIDGE}")
    assert [last.traffic is None for last in remove(reaper, removals)] == [True, False, False]
    assert [last.traffic is None for last in remove(reaper, removals)] == [True, True, True]
    for name in ("guests", "members4", "members6", "streams4"):
        assert members_of("bridge", name) == []
    assert bridge_neighbours() == set()


def test_without_a_table_of_ours_the_rest_is_removed(ground: Ground, reaper: Reaper) -> None:
    ground.add("web")
    desired = ground.desired("web")
    sh("nft flush ruleset")
    remove(reaper, [removal(desired)])
    assert observe.host_ends() == {}
    assert bridge_neighbours() == set()


def test_a_host_end_whose_lease_nobody_knows(ground: Ground, reaper: Reaper) -> None:
    ground.add("web")
    name = host_end_name(ground.desired("web").cookie)
    (last,) = remove(reaper, [Removal(name, None, None, admitted=False)])
    assert last.traffic is not None
    assert observe.host_ends() == {}


def test_a_device_of_somebody_else_with_such_a_name_stays(ground: Ground, reaper: Reaper) -> None:
    name = host_end_name(Cookie(99))
    sh(f"ip link add {name} type veth peer name theirs")
    remove(reaper, [Removal(name, lease_in(network(), 9), ground.bridge().index, admitted=True)])
    assert name in observe.links()


def test_nothing_to_do(reaper: Reaper) -> None:
    assert remove(reaper, []) == []


def test_connections_are_forgotten_by_any_of_the_addresses(ground: Ground) -> None:
    ground.add("web", "db")
    talk("web")
    talk("db")
    web, db = address4("web"), address4("db")
    before = len(tracked(web))
    assert conntrack.forget([socket.inet_aton(web)]) == before
    assert tracked(web) == []
    assert tracked(db)
    assert conntrack.forget([socket.inet_aton(web)]) == 0
    assert conntrack.forget([]) == 0


@pytest.mark.parametrize("filters", [True, False])
def test_connections_are_flushed_by_address_where_the_kernel_can(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, filters: bool
) -> None:
    """What an older kernel says to the same request: the tuple is incomplete."""
    monkeypatch.setattr(conntrack, "_kernel", conntrack._Kernel())
    if not filters:
        monkeypatch.setattr(conntrack, "_CTA_FILTER", 0)
    ground.add("web", "db")
    talk("web")
    talk("db")
    web = [ground.desired("web").lease.address.packed, socket.inet_pton(socket.AF_INET6, address6("web"))]
    others = len(observe.conntrack_list()) - len(tracked(address4("web"))) - len(tracked(address6("web")))
    with Netlink(NETLINK_NETFILTER) as netlink:
        conntrack.flush(netlink, [Party(address) for address in web])
        assert len(observe.conntrack_list()) == others > 2
        conntrack.flush(netlink, [Party(address) for address in (*web, *(bytes([number]) * 4 for number in range(20)))])
        conntrack.flush(netlink, [])
    assert len(observe.conntrack_list()) == others
    assert conntrack._kernel.filters is filters


def test_connections_in_a_zone_of_their_own_are_forgotten_too(ground: Ground) -> None:
    rules = (
        "add table ip zoned; add chain ip zoned pre { type filter hook prerouting priority raw; };"
        "add rule ip zoned pre iifname vethd0 ct zone set 7"
    )
    observe.run("nft", rules)
    ground.add("web")
    with netns.socket_in("web", GATEWAY4, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (GATEWAY4, 9))
    assert any("zone=7" in line for line in tracked(address4("web")))
    with Netlink(NETLINK_NETFILTER) as netlink:
        conntrack.flush(netlink, [Party(socket.inet_aton(address4("web")))])
    assert tracked(address4("web")) == []


def test_where_nothing_is_tracked_nothing_is_forgotten(ground: Ground) -> None:
    sh("conntrack -F 2>/dev/null")
    assert conntrack.forget([bytes(4)]) == 0


def test_what_a_former_holder_of_another_kind_left_goes_too(ground: Ground, reaper: Reaper) -> None:
    """A routed one has but a proxy there, a port has no proxy; before an agent died it may have been otherwise."""
    ground.add("web")
    desired = ground.desired("web")
    four, six = address4("web"), address6("web")
    sh(f"ip -6 neigh add proxy {six} dev {BRIDGE}")
    assert bridge_neighbours() == {four, six}
    as_routed = replace(removal(desired), lease=replace(desired.lease, routed=True))
    assert remove(reaper, [as_routed])[0].failure is None
    assert bridge_neighbours() == set()
    assert observe.run("ip", "-6", "neigh", "show", "proxy") == ""


def asked_of(monkeypatch: pytest.MonkeyPatch) -> set[Party]:
    """What it is asked to look for from now on."""
    asked: set[Party] = set()
    flush = conntrack.flush

    def ask(netlink: Netlink, parties: Sequence[Party]) -> None:
        asked.update(party for party in parties if party.opened or party.answers)
        flush(netlink, parties)

    monkeypatch.setattr(conntrack, "flush", ask)
    return asked


def addresses_of(desired: Attachment) -> tuple[bytes, bytes]:
    assert desired.lease.address6 is not None
    return desired.lease.address.packed, desired.lease.address6.packed


def left_of(desired: Attachment) -> list[str]:
    return [*tracked(str(desired.lease.address)), *tracked(str(desired.lease.address6))]


def test_connections_are_looked_for_where_there_can_be_any(
    ground: Ground, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look for them takes the kernel up to some ms."""
    asked = asked_of(monkeypatch)
    ground.add("silent", "talks")
    talk("talks")
    four, six = addresses_of(ground.desired("talks"))
    remove(reaper, [removal(ground.desired(name)) for name in ("silent", "talks")])
    assert asked == {Party(four, opened=True, answers=True), Party(six, opened=True, answers=False)}
    assert left_of(ground.desired("talks")) == []


@pytest.mark.parametrize("speaks_again", [False, True])
def test_they_are_looked_for_where_the_rules_were_flushed(
    ground: Ground, reaper: Reaper, monkeypatch: pytest.MonkeyPatch, speaks_again: bool
) -> None:
    """Rules that are loaded anew do not know who opened any."""
    asked = asked_of(monkeypatch)
    ground.add("web")
    talk("web")
    sh("nft flush ruleset")
    ground.ruleset.load(ground.networks, [])
    if speaks_again:
        with netns.socket_in("web", GATEWAY4, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (GATEWAY4, 9))
    remove(reaper, [removal(ground.desired("web"))])
    assert asked == {Party(address) for address in addresses_of(ground.desired("web"))}
    assert left_of(ground.desired("web")) == []


def test_they_are_looked_for_where_it_was_admitted_anew_since(
    ground: Ground, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of(monkeypatch)
    ground.add("web")
    talk("web")
    sh("nft flush ruleset")
    desired = ground.desired("web")
    ground.ruleset.load(ground.networks, [])
    with Netlink(NETLINK_NETFILTER) as netlink:
        Members(netlink).admit((host_end_name(desired.cookie), desired.lease))
    remove(reaper, [removal(desired)])
    assert asked == {Party(address) for address in addresses_of(desired)}
    assert left_of(ground.desired("web")) == []
