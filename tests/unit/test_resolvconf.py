"""resolv.conf(5): what is read, which servers a namespace can use, and what is written for it."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.resolvconf import (
    ResolvConf,
    Server,
    answers_namespaces,
    choose,
    for_namespace,
    has_own_directory,
    is_ours,
    parse,
    render,
)

FOUR, SIX = IPv4Address("192.0.2.53"), IPv6Address("2001:db8::53")
STUB = parse(b"nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n")
BEHIND = parse(b"# by systemd-resolved\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch .\n")

WORDS = st.binary(min_size=1, max_size=12).filter(lambda word: word.split() == [word])
TEXTS = WORDS.map(lambda word: word.decode("utf-8", "surrogateescape"))
SERVERS = st.lists(st.ip_addresses(), max_size=4).map(tuple)
FILES = st.builds(ResolvConf, SERVERS, st.lists(TEXTS, max_size=3).map(tuple), st.lists(TEXTS, max_size=3).map(tuple))
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.tuples(st.sampled_from([b"nameserver", b"search", b"domain", b"options", b"sortlist"]), WORDS).map(
            b" ".join
        ),
    )
).map(b"\n".join)


def servers(*texts: str) -> tuple[Server, ...]:
    return tuple(map(ip_address, texts))


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", ResolvConf()),
        (b"nameserver 192.0.2.53", ResolvConf((FOUR,))),
        (b"nameserver\t192.0.2.53   what follows\r\n", ResolvConf((FOUR,))),
        (b"nameserver 192.0.2.53\nnameserver 2001:db8::53\n", ResolvConf((FOUR, SIX))),
        (b"nameserver fe80::1%eth0\n", ResolvConf(servers("fe80::1%eth0"))),
        (b"#nameserver 192.0.2.53\n;nameserver 192.0.2.53\n", ResolvConf()),
        (b" nameserver 192.0.2.53\n", ResolvConf()),
        (b"nameservers 192.0.2.53\nnameserver home\nnameserver\n", ResolvConf()),
        (b"search a b\nsearch c d\n", ResolvConf(search=("c", "d"))),
        (b"search a b\ndomain c d\n", ResolvConf(search=("c",))),
        (b"options ndots:2\noptions rotate edns0\n", ResolvConf(options=("ndots:2", "rotate", "edns0"))),
        (b"sortlist 130.155.160.0\nfamily inet4\n\0\n", ResolvConf()),
    ],
)
def test_what_is_read(raw: bytes, found: ResolvConf) -> None:
    assert parse(raw) == found


@given(LINES)
def test_anything_can_be_read_and_what_is_written_of_it_says_the_same(raw: bytes) -> None:
    found = parse(raw)
    assert parse(render(found, own_directory=True)) == found


@given(FILES, st.booleans())
def test_what_is_written_is_read_again(content: ResolvConf, own_directory: bool) -> None:
    written = render(content, own_directory)
    assert parse(written) == content
    assert is_ours(written)
    assert has_own_directory(written) == own_directory
    assert written.endswith(b"\n")


@given(FILES)
def test_a_file_without_its_first_line_is_not_ours(content: ResolvConf) -> None:
    claimed = render(content, own_directory=True).split(b"\n", 1)[1]
    assert not is_ours(claimed)
    assert not has_own_directory(claimed)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.0.0.53", "127.0.1.1", "0.0.0.0", "224.0.0.251"),
        *("::1", "::", "ff02::fb", "fe80::1", "fe80::1%eth0", "2001:db8::1%eth0", "::ffff:127.0.0.1"),
    ],
)
def test_what_no_namespace_reaches(address: str) -> None:
    assert not answers_namespaces(ip_address(address))


@pytest.mark.parametrize("address", ["192.168.1.1", "8.8.8.8", "169.254.169.253", "2001:db8::1", "fd00::1"])
def test_what_namespaces_reach(address: str) -> None:
    assert answers_namespaces(ip_address(address))


def test_a_stub_gives_way_to_the_servers_behind_it_with_their_own_options() -> None:
    """The stub's trust-ad says something of the way to the stub."""
    assert choose([STUB, BEHIND]) == ResolvConf((FOUR, SIX), search=(".",))


def test_the_first_file_wins_when_it_names_a_server_beyond_the_host() -> None:
    mixed = parse(b"nameserver 127.0.0.1\nnameserver 198.51.100.1\nsearch corp.example\n")
    assert choose([mixed, BEHIND]) == ResolvConf(servers("198.51.100.1"), ("corp.example",))


def test_loopback_alone_is_nothing() -> None:
    assert choose([STUB, ResolvConf(), STUB]) is None


@given(st.lists(FILES))
def test_a_choice_is_all_that_its_file_offers_to_namespaces(files: list[ResolvConf]) -> None:
    found = choose(files)
    offers = [tuple(filter(answers_namespaces, file.servers)) for file in files]
    if found is None:
        assert not any(offers)
    else:
        first = next(number for number, offer in enumerate(offers) if offer)
        assert found.servers == offers[first]
        assert (found.search, found.options) == (files[first].search, files[first].options)


def test_servers_of_a_missing_family_are_left_out() -> None:
    assert for_namespace(BEHIND, None, ipv6=True) == BEHIND
    assert for_namespace(BEHIND, None, ipv6=False) == ResolvConf((FOUR,), (".",))


def test_unless_there_are_no_others() -> None:
    only6 = ResolvConf((SIX,))
    assert for_namespace(only6, None, ipv6=False) == only6


def test_wished_servers_take_the_place_of_the_hosts_and_are_not_trusted_as_those() -> None:
    host = ResolvConf((FOUR,), ("corp.example",), ("ndots:2", "trust-ad"))
    wished = servers("198.51.100.7", "2001:db8::7")
    assert for_namespace(host, wished, ipv6=False) == ResolvConf(wished, ("corp.example",), ("ndots:2",))
    assert for_namespace(None, wished, ipv6=False) == ResolvConf(wished)


@pytest.mark.parametrize("wished", [None, ()])
def test_nothing_known_is_nothing_told(wished: tuple[Server, ...] | None) -> None:
    assert for_namespace(None, wished, ipv6=True) is None
