"""Which of the kernel's own messages a filtered socket gets: real changes, made by `ip` and by the agent's layer."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from agent.demo.private_host import PrivateHost
from agent.kernel import eventfilter
from agent.kernel import rtnetlink as rt
from agent.kernel.elements import delete_all
from agent.kernel.members import Members, member_elements
from agent.kernel.netlink import NETLINK_ADD_MEMBERSHIP, NETLINK_NETFILTER, NETLINK_ROUTE, SOL_NETLINK, Netlink
from agent.kernel.wire import messages
from agent.sources.links import _GROUPS
from tests.harness import netns
from tests.kernel.ground import Ground, sh
from tests.unit.worlds import lease_in, network

PROTOCOL = "proto 126"
_NFNLGRP_NFTABLES = 7
_MADE, _GONE = "ip link add one type veth peer name two; ip link set two up", "ip link del one"


@contextlib.contextmanager
def listening(protocol: int, groups: list[int], attach: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol) as listener:
        attach(listener)
        listener.bind((0, 0))
        for group in groups:
            listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        yield listener


def heard(listener: socket.socket) -> list[int]:
    """The kinds of what has come; the kernel has queued it by the time a change returns."""
    kinds: list[int] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            kinds += [message.kind for message in messages(listener.recv(1 << 17))]
    return kinds


@pytest.fixture
def losses(private_host: PrivateHost) -> Iterator[socket.socket]:
    attach = partial(eventfilter.pass_losses, interfaces=("eth0", "lan"))
    with listening(NETLINK_ROUTE, list(_GROUPS.values()), attach) as listener:
        yield listener


def after(listener: socket.socket, preparation: str, change: str) -> set[int]:
    sh(preparation)
    heard(listener)
    sh(change)
    return set(heard(listener))


UP = f"{_MADE}; ip link set one up addrgenmode none; ip address add 10.0.0.2/24 dev one; "

PASSES = {
    "device made by somebody else": (":", "ip link add one type bridge", rt.RTM_NEWLINK),
    "device made whose name begins like ours": (":", "ip link add lan0 type bridge", rt.RTM_NEWLINK),
    "device deleted": (_MADE, _GONE, rt.RTM_DELLINK),
    "device down": (UP, "ip link set one down", rt.RTM_NEWLINK),
    "MTU": (UP, "ip link set one mtu 1400", rt.RTM_NEWLINK),
    "MAC": (UP, "ip link set one address 02:00:00:00:00:09", rt.RTM_NEWLINK),
    "alias": (UP, "ip link set one alias x", rt.RTM_NEWLINK),
    "group": (UP, "ip link set one group 5", rt.RTM_NEWLINK),
    "renamed": (UP, "ip link set one name three", rt.RTM_NEWLINK),
    "taken off the bridge": (
        UP + "ip link add br9 type bridge; ip link set one master br9",
        "ip link set one nomaster",
        rt.RTM_NEWLINK,
    ),
    "moved away": (UP + "ip netns add away", "ip link set one netns away", rt.RTM_DELLINK),
    "IPv4 address removed": (UP, "ip address del 10.0.0.2/24 dev one", rt.RTM_DELADDR),
    "IPv6 address removed": (
        UP + "ip address add fd00::2/64 dev one nodad",
        "ip address del fd00::2/64 dev one",
        rt.RTM_DELADDR,
    ),
    "IPv4 route removed": (UP, "ip route del 10.0.0.0/24", rt.RTM_DELROUTE),
    "IPv6 route removed": (UP + "ip route add fd09::/64 dev one", "ip -6 route del fd09::/64", rt.RTM_DELROUTE),
    "default route removed": (UP, "ip route del default", rt.RTM_DELROUTE),
    "default route of somebody else": (UP, "ip route add default via 10.0.0.9 metric 9", rt.RTM_NEWROUTE),
    "default route replaced": (UP, "ip route replace default via 10.0.0.9", rt.RTM_NEWROUTE),
    "neighbour removed": (
        UP + "ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 nud permanent dev one",
        "ip neigh del 10.0.0.7 dev one",
        rt.RTM_DELNEIGH,
    ),
    "IPv4 forwarding switched": (":", "echo 1 > /proc/sys/net/ipv4/ip_forward", eventfilter.RTM_NEWNETCONF),
    "IPv6 forwarding switched": (":", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding", eventfilter.RTM_NEWNETCONF),
}

IS_KEPT_BACK = {
    "pair of ours made": (":", "ip link add vhone type veth peer name eth0", rt.RTM_NEWLINK),
    "pair made whose name inside is short": (":", "ip link add vhone type veth peer name lan", rt.RTM_NEWLINK),
    "IPv4 address added": (UP, "ip address add 10.0.0.3/24 dev one", rt.RTM_NEWADDR),
    "IPv6 address added": (UP, "ip address add fd00::2/64 dev one nodad", rt.RTM_NEWADDR),
    "route added": (UP, "ip route add 10.7.0.0/24 dev one", rt.RTM_NEWROUTE),
    "default route of ours": (UP, f"ip route add default via 10.0.0.9 metric 9 {PROTOCOL}", rt.RTM_NEWROUTE),
    "neighbour added": (
        UP,
        "ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 nud permanent dev one",
        rt.RTM_NEWNEIGH,
    ),
}


@pytest.mark.parametrize("what", PASSES)
def test_what_takes_away_or_changes_is_heard(losses: socket.socket, what: str) -> None:
    preparation, change, kind = PASSES[what]
    assert kind in after(losses, preparation, change)


@pytest.mark.parametrize("what", IS_KEPT_BACK)
def test_what_only_adds_is_kept_back(losses: socket.socket, what: str) -> None:
    preparation, change, kind = IS_KEPT_BACK[what]
    assert kind not in after(losses, preparation, change)


def test_setting_a_device_up_is_kept_back(losses: socket.socket) -> None:
    # Its carrier is told of later, as a change of another kind.
    sh("ip link add lone type bridge")
    heard(losses)
    sh("ip link set lone up addrgenmode none")
    assert rt.RTM_DELLINK not in heard(losses)


def test_of_a_whole_plumb_only_changes_of_devices_are_heard(ground: Ground) -> None:
    netns.add_many(["web", "db"])
    ground.settle("web")
    with (
        listening(
            NETLINK_ROUTE, list(_GROUPS.values()), partial(eventfilter.pass_losses, interfaces=("eth0",))
        ) as filtered,
        listening(NETLINK_ROUTE, list(_GROUPS.values()), lambda _: None) as all_of_it,
    ):
        ground.settle("db")
        few, many = heard(filtered), heard(all_of_it)
    # Carrier comes as a change of the device.
    assert set(few) == {rt.RTM_NEWLINK}
    assert {rt.RTM_NEWNEIGH, *few} <= set(many)
    assert len(few) < len(many)


def test_ends_of_devices_are_heard_and_nothing_else(private_host: PrivateHost) -> None:
    """A port that leaves its bridge is told of as deleted, too: by the bridge."""
    sh(UP + "ip link add br9 type bridge; ip link set br9 up addrgenmode none; ip link set one master br9")
    with (
        listening(NETLINK_ROUTE, [_GROUPS["link"]], eventfilter.pass_ends) as ends,
        listening(NETLINK_ROUTE, [_GROUPS["link"]], lambda _: None) as all_of_it,
    ):
        sh("ip link set one alias x; ip link set one mtu 1400; ip link set one nomaster; ip link set one up")
        sh("ip link add three type bridge; ip link set three up")
        assert heard(ends) == []
        assert rt.RTM_DELLINK in heard(all_of_it)
        sh("ip link set one down; ip link set one alias y")
        assert heard(ends) == [rt.RTM_NEWLINK]
        sh("ip link del three")
        assert heard(ends) == [rt.RTM_NEWLINK, rt.RTM_DELLINK], "down before it is gone"


def test_changes_of_the_ruleset_by_others_are_heard_our_own_are_not(ground: Ground) -> None:
    member = ("vh1", lease_in(network()))
    with Netlink(NETLINK_NETFILTER) as ours, Netlink(NETLINK_NETFILTER) as others:

        def attach(listener: socket.socket) -> None:
            eventfilter.pass_foreign(listener, (ours.port, 4711))

        with listening(NETLINK_NETFILTER, [_NFNLGRP_NFTABLES], attach) as listener:
            Members(ours).admit(member)
            delete_all(ours, member_elements(member))
            assert heard(listener) == []
            Members(others).admit(member)
            assert heard(listener)
            sh("nft add table inet theirs")
            assert heard(listener)


def test_loading_the_rules_is_not_heard(ground: Ground) -> None:
    """With thousands of members it would tell of tens of thousands of elements."""
    ports = ground.ruleset.netfilter_ports
    assert ports
    member = ("vh1", lease_in(network()))
    with listening(NETLINK_NETFILTER, [_NFNLGRP_NFTABLES], lambda it: eventfilter.pass_foreign(it, ports)) as listener:
        ground.ruleset.load(ground.networks, [member])
        ground.ruleset.load(ground.networks, [])
        assert heard(listener) == []
        sh("nft flush table inet vethd")
        assert heard(listener)


def test_without_own_ports_everything_is_heard(ground: Ground) -> None:
    with (
        listening(NETLINK_NETFILTER, [_NFNLGRP_NFTABLES], lambda it: eventfilter.pass_foreign(it, ())) as listener,
        Netlink(NETLINK_NETFILTER) as netlink,
    ):
        Members(netlink).admit(("vh1", lease_in(network())))
        assert heard(listener)
