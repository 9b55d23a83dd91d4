"""What a networked namespace looks like from outside, and whether it works, by the default config."""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.demo import internet, probe, uplink
from tests.harness import observe
from tests.harness.netns import Name
from tests.harness.waiting import eventually

GATEWAY4, GATEWAY6 = "172.27.0.1", "fd00:7e74:1::1"
SUBNET4, SUBNET6 = "172.27.0.0/16", "fd00:7e74:1::/64"
BRIDGE, DEVICE = "vethd0", "eth0"
DEFAULT_ROUTES = {(GATEWAY4, DEVICE), (GATEWAY6, DEVICE)}
# By how many ports a bridge may have, all namespaces are of the one kind or of the other.
KINDS = {"port": 1000, "routed": 0}
_ports = itertools.count(20000)


def why_not_working(netns: Name, *, timeout: float = 0.5, v6: bool = True, nat: bool = True) -> str:
    """Send real packets: to the gateway, beyond the NAT, both families. Empty when all were answered."""
    gateways = [GATEWAY4, *([GATEWAY6] if v6 else [])]
    beyond = [uplink.BEYOND4, *([uplink.BEYOND6] if v6 else [])] if nat else []
    attempts = [(f"ping {address}", partial(probe.icmp_echo, netns, address, timeout)) for address in gateways + beyond]
    for address in beyond:
        connect = partial(probe.tcp_connect, netns, address, internet.ECHO_PORT, timeout)
        attempts.append((f"tcp {address}", connect))
    for what, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            return f"{what}: {error!r}"
    return ""


def assert_works(netns: Name, **options: Any) -> None:
    why = why_not_working(netns, **options)
    assert not why, f"{netns!r}: {why}"


def eventually_works(netns: Name, timeout: float = 5.0) -> None:
    why = ["not tried"]

    def works() -> bool:
        why[0] = why_not_working(netns, timeout=0.2)
        return not why[0]

    try:
        eventually(works, timeout, f"{netns!r} works")
    except AssertionError as error:
        raise AssertionError(f"{error}: {why[0]}") from None


def connects(source: Name, target: Name, timeout: float = 1.0) -> bool:
    """Whether a TCP connection from one namespace to the other's IPv4 address stands within `timeout` seconds."""
    address, port = address4(target), next(_ports)
    with probe.listen(target, address, port):
        try:
            probe.tcp_connect(source, address, port, timeout)
        except OSError:
            return False
    return True


def address4(netns: Name) -> str:
    """The IPv4 address of the namespace's device, without its prefix length."""
    found = [address for address in observe.addresses(DEVICE, netns) if ":" not in address]
    assert len(found) == 1, found
    return found[0].partition("/")[0]


def address6(netns: Name) -> str:
    found = [address for address in observe.addresses(DEVICE, netns) if ":" in address]
    assert len(found) == 1, found
    return found[0].partition("/")[0]


def host_end(name: str) -> dict[str, Any]:
    """The one device of the host whose alias says that it belongs to `name`."""
    found = [link for link in observe.links().values() if link.get("ifalias") == f"vethd:{name}"]
    assert len(found) == 1, found
    return found[0]


@dataclass(frozen=True)
class Shape:
    """All of one namespace's network that damage can change, as `ip` tells it."""

    inside: dict[str, Any]
    routes: list[str]
    neighbours: list[str]
    port: dict[str, Any]


def shape(name: str) -> Shape:
    """Two shapes are equal when the namespace's network is the same, devices made anew included."""
    routes = [
        (route["dst"], route.get("gateway"), route["dev"], route.get("prefsrc"), route.get("scope"))
        for family in ("-4", "-6")
        for route in observe.ip_json(family, "route", netns=name)
    ]
    neighbours = observe.ip_json("neighbour", "show", "nud", "permanent", netns=name)
    port = host_end(name)
    return Shape(
        inside={
            link: {
                "up": "UP" in found["flags"],
                "mtu": found["mtu"],
                "address": found["address"],
                "addresses": sorted(observe.addresses(link, name)),
            }
            for link, found in observe.links(name).items()
        },
        routes=sorted(map(repr, routes)),
        neighbours=sorted(f"{found['dst']} {found['lladdr']}" for found in neighbours),
        port={key: port.get(key) for key in ("ifname", "master", "mtu", "address", "group", "operstate")},
    )
