"""Which namespaces are networked, and by which rule."""

from dataclasses import replace

import pytest

from agent.core.identity import alias_of, host_end_name
from agent.core.policy import Verdict, choose
from agent.model import LINK_GROUP, Cookie, Inside, Link, Network, Observed, Route
from tests.unit.worlds import INNER, LOOPBACK, OUTER, link, network

HOST, WEB = Cookie(1), Cookie(7)
DEFAULT, LAB = network("default"), network("lab", subnet="10.9.0.0/24")
EMPTY = Observed(WEB, None, Inside((LOOPBACK,)))


def verdict(
    name: str = "web", seen: Observed = EMPTY, exclude: tuple[str, ...] = (), networks: tuple[Network, ...] = (DEFAULT,)
) -> Verdict:
    return choose(name, seen, HOST, exclude, networks)


def with_device(*links: Link, routed: tuple[int, ...] = (), host_end: Link | None = None) -> Observed:
    routes = frozenset(Route(2, b"\x0a\0\0\0", 8, b"", device, 0) for device in routed)
    return Observed(WEB, host_end, Inside((LOOPBACK, *links), routes=routes))


def test_a_named_namespace_is_networked() -> None:
    assert verdict() == Verdict(DEFAULT, "discovery.directories: network default")


def test_the_default_network_is_chosen_wherever_it_stands() -> None:
    assert verdict(networks=(LAB, DEFAULT)).network is DEFAULT
    assert verdict(networks=(LAB,)).network is LAB


def test_the_host_itself_is_never_networked() -> None:
    found = verdict(seen=replace(EMPTY, cookie=HOST))
    assert found == Verdict(None, "is the host's own network namespace")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("cni-*", "cni-0af3"),
        ("web", "web"),
        ("?", "x"),
        ("[ab]*", "box"),
        ("*", "-x\n"),
        ("qrouter-*", "qrouter-\udcff"),
    ],
)
def test_excluded_names_are_left_alone_by_the_pattern_that_says_so(pattern: str, name: str) -> None:
    assert verdict(name, exclude=("other-*", pattern)) == Verdict(None, f'discovery.exclude: "{pattern}"')


@pytest.mark.parametrize(("pattern", "name"), [("cni-*", "my-cni-1"), ("Web", "web"), ("web", "web2"), ("", "web")])
def test_a_pattern_matches_whole_names_as_they_are_written(pattern: str, name: str) -> None:
    assert verdict(name, exclude=(pattern,)).network is DEFAULT


def test_who_has_a_routed_device_has_a_network_already() -> None:
    found = verdict(seen=with_device(link(2, "wg0", "wireguard"), routed=(2,)))
    assert found == Verdict(None, "has a device with a route already: wg0")


def test_a_device_without_a_route_is_no_network_yet() -> None:
    assert verdict(seen=with_device(link(2, "dummy0", "dummy"))).network is DEFAULT


def test_routes_by_loopback_are_no_network() -> None:
    assert verdict(seen=with_device(routed=(LOOPBACK.index,))).network is DEFAULT


def test_our_own_device_is_no_stranger() -> None:
    ours = link(OUTER, host_end_name(WEB), group=LINK_GROUP, alias=alias_of("web"), peer=INNER)
    eth0 = link(INNER, "eth0", peer=OUTER)
    assert verdict(seen=with_device(eth0, routed=(INNER,), host_end=ours)).network is DEFAULT
    # Once it is networked, another device with a route changes nothing.
    assert verdict(seen=with_device(eth0, link(3, "wg0"), routed=(INNER, 3), host_end=ours)).network is DEFAULT


def test_names_that_a_namespace_chose_are_shown_without_their_control_characters() -> None:
    found = verdict(seen=with_device(link(2, "\x1b[2J\udcff"), routed=(2,)))
    assert found.rule == "has a device with a route already: \\x1b[2J\\xff"
