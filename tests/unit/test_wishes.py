"""A file of netns.d: what is taken, and one line for each thing that is refused."""

import tomllib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from agent.config.wishes import parse_wish
from agent.errors import ConfigError
from agent.model import ExtraRoute, Wish
from tests.unit.worlds import network

NETWORKS = (network("default"), network("lab", subnet="10.9.0.0/24", subnet6=""))


def of(text: str, name: str = "web") -> Wish:
    return parse_wish(tomllib.loads(text), Path(f"/etc/vethd/netns.d/{name}.toml"), NETWORKS)


def test_everything_can_be_wished_for() -> None:
    wish = of(
        """
        network = "default"
        address = "172.27.0.9"
        mtu = 1400
        interface = "net0"
        nat = false
        routes = ["10.8.0.0/16 via 172.27.0.7", "10.9.9.0/24", "fd01::/48 via fd00:7e74:1::7"]
        dns = ["9.9.9.9", "2620:fe::fe"]
        """
    )
    assert wish == Wish(
        "netns.d/web.toml",
        network="default",
        address=IPv4Address("172.27.0.9"),
        mtu=1400,
        interface="net0",
        nat=False,
        routes=(
            ExtraRoute(IPv4Network("10.8.0.0/16"), IPv4Address("172.27.0.7")),
            ExtraRoute(IPv4Network("10.9.9.0/24"), None),
            ExtraRoute(IPv6Network("fd01::/48"), IPv6Address("fd00:7e74:1::7")),
        ),
        dns=(IPv4Address("9.9.9.9"), IPv6Address("2620:fe::fe")),
    )


def test_what_is_not_said_is_left_open() -> None:
    assert of("") == Wish("netns.d/web.toml")
    assert of("dns = []\nroutes = []").dns == (), "no name servers is not the same as nothing said"


def test_an_address_tells_its_network() -> None:
    assert of('address = "10.9.0.7"').network == "lab"
    assert of('address = "172.27.3.7"').network == "default"


WRONG = [
    ('network = "ci"', "network: 'ci' is not allowed: must be a network of the config: default, lab"),
    ("network = 7", "network: 7 is not allowed: must be a network of the config: default, lab"),
    ('address = "web"', "address: 'web' is not allowed: must be an IPv4 address"),
    ('address = "fd00:7e74:1::9"', "address: 'fd00:7e74:1::9' is not allowed: must be an IPv4 address"),
    ("address = 9", "address: 9 is not allowed: must be an IPv4 address"),
    (
        'address = "192.168.0.9"',
        "address: 192.168.0.9 is not allowed: must lie in 172.27.0.0/16 of network default, 10.9.0.0/24 of network lab",
    ),
    (
        'network = "lab"\naddress = "172.27.0.9"',
        "address: 172.27.0.9 is not allowed: must lie in 10.9.0.0/24 of network lab",
    ),
    *(
        (
            f'address = "{address}"',
            f"address: {address} is not allowed: is the first, the bridge's or the last address of 10.9.0.0/24",
        )
        for address in ("10.9.0.0", "10.9.0.1", "10.9.0.255")
    ),
    ("mtu = 1279", "mtu: 1279 is not allowed: must be 1280 to 65535"),
    ("mtu = 0", "mtu: 0 is not allowed: must be 1280 to 65535"),
    ("mtu = true", "mtu: True is not allowed: must be 1280 to 65535"),
    ('interface = "lo"', "interface: 'lo' is not allowed: must be a device name of at most 15 bytes"),
    ("nat = 0", "nat: 0 is not allowed: must be true or false"),
    ("routes = '10.8.0.0/16'", "routes: '10.8.0.0/16' is not allowed: must be a list of routes such as"),
    *(
        (f"routes = ['{route}']", f"routes: ['{route}'] is not allowed: must be a list of routes such as")
        for route in (
            "0.0.0.0/0",
            "::/0 via fd00:7e74:1::7",
            "default via 172.27.0.7",
            "10.8.0.1/16",
            "10.8.0.0/16 via fd00:7e74:1::7",
            "10.8.0.0/16 via",
            "10.8.0.0/16 dev eth0",
            "10.8.0.0/16 via 172.27.0.7 metric 5",
            "fd01::/48 via fd00:7e74:1::7%eth0",
            " ",
        )
    ),
    ('routes = ["10.8.0.0/16", "10.8.0.0/16 via 172.27.0.7"]', "routes: ['10.8.0.0/16', '10.8.0.0/16 via 172.27.0.7']"),
    (
        'routes = ["10.8.0.0/16 via 192.168.0.1"]',
        "routes: 192.168.0.1 is not allowed: must lie in a subnet of network default, lab",
    ),
    (
        'network = "lab"\nroutes = ["10.8.0.0/16 via 172.27.0.7"]',
        "routes: 172.27.0.7 is not allowed: must lie in a subnet of network lab",
    ),
    ('dns = "9.9.9.9"', "dns: '9.9.9.9' is not allowed: must be a list of addresses of name servers"),
    ('dns = ["dns.quad9.net"]', "dns: ['dns.quad9.net'] is not allowed: must be a list of addresses"),
    ('dns = ["0.0.0.0"]', "dns: ['0.0.0.0'] is not allowed"),
    ('dns = ["224.0.0.1"]', "dns: ['224.0.0.1'] is not allowed"),
    ('dns = ["fe80::1%eth0"]', "dns: ['fe80::1%eth0'] is not allowed"),
    ('adress = "10.9.0.7"', "adress: unknown; known here: address, dns, interface, mtu, nat, network, routes"),
    ("[network]", "network: {} is not allowed: must be a network of the config"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_wishes_are_refused_by_key_and_by_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(text)
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(f"/etc/vethd/netns.d/web.toml: {message}"), line


@pytest.mark.parametrize("pattern", ["ci-*", "ci-?", "ci-[0-9]"])
def test_a_pattern_cannot_have_one_address(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of('address = "10.9.0.7"', pattern)
    assert str(caught.value) == (
        f"/etc/vethd/netns.d/{pattern}.toml: address: is for one namespace, not for all that a pattern names"
    )
