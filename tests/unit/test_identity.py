"""What is written into the kernel to tell whose a device is, and reading it back."""

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.core import identity
from agent.core.identity import (
    alias_of,
    cookie_of,
    host_end_mac,
    host_end_name,
    is_ours,
    is_routed,
    leased_address,
    named_by,
    netns_mac,
    printable,
)
from agent.model import LINK_GROUP, Cookie, Lease
from tests.unit.worlds import lease_in, link, network

COOKIES = st.integers(0, 2**64 - 1).map(Cookie)
ADDRESSES = st.ip_addresses(v=4).map(lambda address: IPv4Address(int(address)))
FILE_NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & {0, ord("/")}).map(os.fsdecode)


@given(COOKIES)
@example(Cookie(0))
@example(Cookie(2**64 - 1))
def test_host_end_s_name_holds_the_cookie(cookie: Cookie) -> None:
    name = host_end_name(cookie)
    assert len(name.encode()) == 15
    assert name.startswith("vh")
    assert cookie_of(name) == cookie


@given(COOKIES, COOKIES)
def test_no_two_namespaces_share_a_host_end(one: Cookie, two: Cookie) -> None:
    assert (host_end_name(one) == host_end_name(two)) == (one == two)


@given(COOKIES)
def test_neighbours_in_time_differ_at_a_glance(cookie: Cookie) -> None:
    assert host_end_name(cookie)[:6] != host_end_name(Cookie((cookie + 1) % 2**64))[:6]


@given(st.text(max_size=16) | st.text("vh0123456789abcdefghjkmnpqrstvwxyz", max_size=16))
@example("")
@example("vh")
@example("vhvh00000000000")
@example("vhzzzzzzzzzzzzz")  # beyond 64 bits
@example("vh0000000000000\n")
@example("VH0000000000000")
def test_other_names_hold_no_cookie(name: str) -> None:
    cookie = cookie_of(name)
    assert cookie is None or host_end_name(cookie) == name


def test_ours_is_a_veth_of_our_name_with_any_mark_of_ours() -> None:
    ours = link(9, host_end_name(Cookie(1)), group=LINK_GROUP, alias="vethd:web")
    assert is_ours(ours)
    assert is_ours(replace(ours, alias="renamed by somebody"))
    assert is_ours(replace(ours, group=0))
    assert is_ours(replace(ours, group=1 << 30, alias="vethd:"))
    assert not is_ours(replace(ours, group=0, alias=""))
    assert not is_ours(replace(ours, group=0, alias="a vethd:web"))
    assert is_ours(replace(ours, group=0, alias="", mac=host_end_mac(lease_in(network()))))
    assert not is_ours(replace(ours, group=0, alias="", mac=netns_mac(lease_in(network()).address)))
    assert not is_ours(replace(ours, kind="dummy"))
    assert not is_ours(replace(ours, name="vhost0"))


@given(FILE_NAMES)
@example("web")
@example("a\nb\x1b[31m")
@example("\u202eevil")
@example("\\x0a")
@example(os.fsdecode(b"\xff\xfe"))
@example("é" * 120)
def test_printable_names_hold_no_control_characters(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()
    if name.isprintable() and "\\" not in name:
        assert shown == name


@given(FILE_NAMES, FILE_NAMES)
@example("\n", "\\x0a")
@example("\\", "\\\\")
@example(os.fsdecode(b"\xc2\x85"), os.fsdecode(b"\xc2") + os.fsdecode(b"\x85"))
def test_different_names_stay_different(one: str, two: str) -> None:
    assume(os.fsencode(one) != os.fsencode(two))
    assert printable(one) != printable(two)


@given(st.text(st.characters(codec=None, exclude_categories=())))
@example("\ud800")
def test_any_text_of_a_user_can_be_printed(text: str) -> None:
    assert printable(text).isprintable()


@given(FILE_NAMES)
@example("é" * 127)
@example("x" + "é" * 127)
@example("n" * 255)
@example("\x01" * 255)
def test_alias_fits_and_is_cut_between_characters(name: str) -> None:
    alias = alias_of(name)
    whole = f"vethd:{printable(name)}"
    assert len(alias.encode()) <= 255
    assert whole.startswith(alias)
    assert alias == whole or len(alias.encode()) > 255 - 4


@given(ADDRESSES)
def test_macs_hold_the_address_and_whether_it_is_routed(address: IPv4Address) -> None:
    port = identity.host_end_mac(Lease("default", 2, address, None))
    routed = identity.host_end_mac(Lease("default", 2, address, None, routed=True))
    inside = identity.netns_mac(address)
    assert leased_address(port) == leased_address(routed) == address
    assert (is_routed(port), is_routed(routed), is_routed(inside)) == (False, True, False)
    assert leased_address(inside) is None
    assert len({port, routed, inside}) == 3
    for mac in (port, routed, inside):
        assert len(mac) == 6
        assert mac[0] & 3 == 2, "locally administered, and of one station: IEEE 802"


@pytest.mark.parametrize("mac", [b"", b"\x06\x7e", b"\x06\x7e\x01\x02\x03", b"\x06\x7e\x01\x02\x03\x04\x05", bytes(6)])
def test_other_macs_hold_no_address(mac: bytes) -> None:
    assert leased_address(mac) is None


@given(st.integers(2, 1000))
def test_bridge_and_namespaces_never_share_a_mac(index: int) -> None:
    subnet = IPv4Network("172.27.0.0/16")
    assert identity.bridge_mac(subnet) != identity.netns_mac(subnet.network_address + index)


def test_addresses_of_both_families_go_together() -> None:
    assert str(identity.address6_of(IPv6Network("fd00:1::/64"), 258)) == "fd00:1::102"
    assert identity.address6_of(None, 258) is None


@given(FILE_NAMES.filter(lambda name: len(printable(name).encode()) < 200))
def test_an_alias_tells_the_name_unless_others_have_written_it(name: str) -> None:
    assert named_by(alias_of(name)) == printable(name)
    assert named_by(printable(name).replace("vethd:", "")) == ""
