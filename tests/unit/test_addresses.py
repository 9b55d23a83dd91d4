"""Leases: one holder each, the same name the same address, reused as late as can be."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agent.core.addresses import LeaseTable
from agent.errors import NoFreeAddress
from agent.model import Cookie
from tests.unit.worlds import network

SMALL = network(subnet="10.9.0.0/29", subnet6="fd00:9::/125")
INDEXES = range(2, 7)
NAMES = st.sampled_from("abcdefgh")


def table(*names: str) -> LeaseTable:
    """A table in which these names hold addresses, in this order."""
    leases = LeaseTable(SMALL)
    for number, name in enumerate(names, start=1):
        leases.acquire(Cookie(number), name)
    return leases


def test_addresses_come_in_order_after_the_gateway() -> None:
    leases = LeaseTable(network())
    first, second = leases.acquire(Cookie(1), "a"), leases.acquire(Cookie(2), "b")
    assert (str(first.address), str(first.address6)) == ("172.27.0.2", "fd00:7e74:1::2")
    assert (str(second.address), str(second.address6)) == ("172.27.0.3", "fd00:7e74:1::3")


def test_a_network_without_ipv6_leases_ipv4_alone() -> None:
    assert LeaseTable(network(subnet6="")).acquire(Cookie(1), "a").address6 is None


def test_all_but_network_gateway_and_broadcast_are_leased_and_then_none() -> None:
    leases = table(*"abcde")
    assert {str(lease.address) for _, lease in leases.held()} == {f"10.9.0.{index}" for index in INDEXES}
    assert len(leases) == SMALL.capacity == 5
    with pytest.raises(NoFreeAddress, match=r"network default: no free address, all 5 of 10\.9\.0\.0/29 are leased"):
        leases.acquire(Cookie(6), "f")
    # Who has one keeps it, and one that is freed is leased again.
    assert leases.acquire(Cookie(3), "c").index == 4
    leases.release(Cookie(3))
    assert leases.acquire(Cookie(6), "f").index == 4


def test_the_same_name_gets_the_same_address_again_while_it_is_free() -> None:
    leases = table("a", "b")
    leases.release(Cookie(1))
    assert leases.acquire(Cookie(9), "a").index == 2


def test_a_removed_and_remade_name_has_another_address_while_the_old_one_is_held() -> None:
    leases = table("a")
    assert leases.acquire(Cookie(9), "a").index == 3


def test_unused_addresses_come_first_then_the_longest_free() -> None:
    leases = table(*"abc")
    for cookie in (2, 1, 3):
        leases.release(Cookie(cookie))
    found = [leases.acquire(Cookie(10 + number), f"new{number}").index for number in range(5)]
    assert found == [5, 6, 3, 2, 4]


def test_asking_again_changes_nothing() -> None:
    leases = table("a")
    assert leases.acquire(Cookie(1), "a") == leases.acquire(Cookie(1), "a") == leases.get(Cookie(1))
    assert len(leases) == 1


def test_a_new_name_of_the_namespace_is_the_one_remembered() -> None:
    leases = table("a")
    leases.acquire(Cookie(1), "renamed")
    assert leases.name_of(Cookie(1)) == "renamed"
    leases.release(Cookie(1))
    assert leases.acquire(Cookie(2), "renamed").index == 2


def test_what_is_seen_in_the_kernel_is_adopted() -> None:
    leases = LeaseTable(SMALL)
    assert leases.adopt(Cookie(7), "a", 4)
    assert leases.adopt(Cookie(7), "a", 4), "adopting again is no error"
    assert not leases.adopt(Cookie(7), "a", 5), "a namespace has one lease"
    assert not leases.adopt(Cookie(8), "b", 4), "an address has one holder"
    for index in (-1, 0, 1, 7, 2**40):
        assert not leases.adopt(Cookie(9), "c", index), "network, gateway, broadcast and beyond"
    assert [cookie for cookie, _ in leases.held()] == [Cookie(7)]


def test_adopting_does_not_wait_for_the_order_of_memory() -> None:
    leases = LeaseTable(SMALL)
    leases.remember({"a": 2, "b": 3})
    assert leases.adopt(Cookie(7), "a", 3)
    assert leases.name_of(Cookie(7)) == "a"
    assert leases.acquire(Cookie(8), "b").index != 3


def test_who_is_adopted_without_a_name_has_the_one_that_is_remembered() -> None:
    leases = LeaseTable(SMALL)
    leases.remember({"a": 2})
    assert leases.adopt(Cookie(7), "", 2)
    assert leases.adopt(Cookie(8), "", 3)
    assert (leases.name_of(Cookie(7)), leases.name_of(Cookie(8))) == ("a", None)
    assert leases.memory() == {"a": 2}


def routed_in(leases: LeaseTable) -> set[Cookie]:
    return {cookie for cookie, lease in leases.held() if lease.routed}


def test_beyond_the_bridge_s_ports_leases_are_routed_for_as_long_as_they_are_held() -> None:
    leases = LeaseTable(replace(SMALL, bridge_ports=2))
    for number in range(4):
        leases.acquire(Cookie(number), f"n{number}")
    assert routed_in(leases) == {Cookie(2), Cookie(3)}
    leases.release(Cookie(0))
    assert leases.bridged == 1
    assert leases.acquire(Cookie(2), "n2").routed, "nobody moves while he lives"
    assert not leases.acquire(Cookie(9), "n9").routed, "who comes next takes the port that is free"
    released = leases.release(Cookie(3))
    assert released is not None
    assert released.routed
    assert routed_in(leases) == {Cookie(2)}


def test_a_lease_is_adopted_as_it_is_whatever_the_limit() -> None:
    leases = LeaseTable(replace(SMALL, bridge_ports=0))
    assert leases.adopt(Cookie(7), "a", 4)
    assert leases.adopt(Cookie(8), "b", 5, routed=True)
    assert routed_in(leases) == {Cookie(8)}


def test_who_finds_no_room_on_the_bridge_is_routed() -> None:
    leases = LeaseTable(SMALL)
    leases.acquire(Cookie(1), "a")
    leases.route(Cookie(1))
    assert leases.acquire(Cookie(1), "a").routed
    assert leases.bridged == 0


def test_freeing_what_nobody_holds_is_no_error() -> None:
    leases = table("a")
    assert leases.release(Cookie(99)) is None
    assert leases.get(Cookie(99)) is None
    assert leases.name_of(Cookie(99)) is None


@given(st.ip_addresses())
def test_an_address_nobody_leased_has_no_holder(address: IPv4Address | IPv6Address) -> None:
    assert table("a").holder(address.packed) == (Cookie(1) if str(address) in {"10.9.0.2", "fd00:9::2"} else None)


def test_without_ipv6_no_ipv6_address_has_a_holder() -> None:
    leases = LeaseTable(network(subnet6=""))
    leases.acquire(Cookie(1), "a")
    assert leases.holder(bytes(15) + b"\2") is None


@given(st.dictionaries(st.text(max_size=3), st.integers(-2, 9) | st.integers(), max_size=12))
def test_any_memory_can_be_taken_over(memory: dict[str, int]) -> None:
    leases = LeaseTable(SMALL)
    leases.remember(memory)
    kept = leases.memory()
    assert kept.items() <= memory.items()
    assert len(set(kept.values())) == len(kept)
    assert set(kept.values()) == {index for index in memory.values() if index in INDEXES}
    again = LeaseTable(SMALL)
    again.remember(kept)
    assert list(again.memory().items()) == list(kept.items())


def test_memory_holds_the_longest_free_first_and_the_held_last() -> None:
    leases = table(*"abcd")
    leases.release(Cookie(3))
    leases.release(Cookie(1))
    assert list(leases.memory()) == ["c", "a", "b", "d"]


class Leasing(RuleBasedStateMachine):
    """A table against its rules, told naively: a dict, and a list of free addresses by age."""

    cookies = Bundle("cookies")

    def __init__(self) -> None:
        super().__init__()
        self.leases = LeaseTable(SMALL)
        self.held: dict[Cookie, int] = {}
        self.used_before: list[int] = []
        self.last_of: dict[str, int] = {}
        self.fresh = 100

    @rule(target=cookies, name=NAMES)
    def acquire(self, name: str) -> Cookie:
        self.fresh += 1
        self.ask(Cookie(self.fresh), name)
        return Cookie(self.fresh)

    @rule(cookie=cookies, name=NAMES)
    def ask_again(self, cookie: Cookie, name: str) -> None:
        self.ask(cookie, name)

    @rule(cookie=consumes(cookies))
    def release(self, cookie: Cookie) -> None:
        lease = self.leases.release(cookie)
        index = self.held.pop(cookie, None)
        assert (lease.index if lease else None) == index
        if index is not None:
            self.used_before.append(index)

    @rule(target=cookies, name=NAMES, index=st.integers(0, 8))
    def adopt(self, name: str, index: int) -> Cookie:
        self.fresh += 1
        cookie = Cookie(self.fresh)
        fits = index in INDEXES and index not in self.held.values()
        assert self.leases.adopt(cookie, name, index) == fits
        if fits:
            self.hold(cookie, name, index)
        return cookie

    @rule()
    def forget_all_but_memory(self) -> None:
        """The host reboots: every namespace is gone, the file is there."""
        memory = self.leases.memory()
        self.used_before = [*self.used_before, *self.held.values()]
        self.held.clear()
        self.leases = LeaseTable(SMALL)
        self.leases.remember(memory)
        # An address whose name has another one since is no longer in the memory.
        self.used_before = [index for index in self.used_before if index in memory.values()]

    def ask(self, cookie: Cookie, name: str) -> None:
        if cookie in self.held:
            assert self.leases.acquire(cookie, name).index == self.held[cookie]
            self.name(name, self.held[cookie])
            return
        wanted = self.last_of.get(name)
        unused = [index for index in INDEXES if index not in self.held.values() and index not in self.used_before]
        allowed = [wanted] if wanted in self.used_before else unused[:1] or self.used_before[:1]
        if not allowed:
            with pytest.raises(NoFreeAddress):
                self.leases.acquire(cookie, name)
            return
        lease = self.leases.acquire(cookie, name)
        assert [lease.index] == allowed
        self.hold(cookie, name, lease.index)

    def hold(self, cookie: Cookie, name: str, index: int) -> None:
        self.held[cookie] = index
        self.used_before = [each for each in self.used_before if each != index]
        self.name(name, index)

    def name(self, name: str, index: int) -> None:
        self.last_of = {other: each for other, each in self.last_of.items() if each != index and other != name}
        self.last_of[name] = index

    @invariant()
    def every_address_has_one_holder(self) -> None:
        held = {cookie: lease.index for cookie, lease in self.leases.held()}
        assert held == self.held
        assert len(set(held.values())) == len(held) == len(self.leases)
        assert set(held.values()) <= set(INDEXES)
        for cookie, lease in self.leases.held():
            assert lease == self.leases.get(cookie)
            assert lease.address == SMALL.subnet.network_address + lease.index
            assert SMALL.subnet6 is not None
            assert lease.address6 == SMALL.subnet6.network_address + lease.index
            assert self.leases.holder(lease.address.packed) == cookie
            assert self.leases.holder(lease.address6.packed) == cookie

    @invariant()
    def names_are_remembered(self) -> None:
        assert self.leases.memory() == self.last_of


TestLeasing = Leasing.TestCase
