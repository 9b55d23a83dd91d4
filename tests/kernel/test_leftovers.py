"""What namespaces leave that went while no agent was there, and what of it is not ours."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.kernel.leftovers import sweep_bridges
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import OpeningsReader
from agent.kernel.reaper import Reaper
from tests.harness import observe
from tests.harness.expect import BRIDGE, address4, address6
from tests.kernel.ground import Ground, sh
from tests.kernel.test_reaper import bridge_neighbours, talk, tracked
from tests.unit.worlds import network


@pytest.fixture
def routed() -> Iterator[Ground]:
    with contextlib.closing(Ground([replace(network(), bridge_ports=0)])) as made:
        yield made


def everything(ground: Ground, *held: bytes) -> int:
    """Sweep as the crew does, of what is not `held`."""
    networks = ground.networks
    bridges = {each.name: ground.bridge(place) for place, each in enumerate(networks)}
    with contextlib.closing(Reaper()) as reaper:
        swept = sweep_bridges(ground.netlink, networks, bridges, set(held).__contains__)
        return swept + reaper.sweep(networks, set(held).__contains__)


def opened() -> set[bytes]:
    with Netlink(NETLINK_NETFILTER) as netfilter:
        openings = OpeningsReader().read(netfilter)
        return {*openings.opened, *openings.accepted}


def test_entries_of_addresses_that_nobody_holds_go(ground: Ground) -> None:
    ground.add("web", "db")
    for name in ("web", "db"):
        talk(name)
    gone, stays = ((address4(name), address6(name)) for name in ("web", "db"))
    held = [ground.desired("db").lease.address.packed, ground.desired("db").lease.address6.packed]  # type: ignore[union-attr]
    assert opened() > set(held)
    assert everything(ground, *held) > 4
    assert bridge_neighbours() == set(stays)
    assert not [line for address in gone for line in tracked(address)]
    assert all(tracked(address) for address in stays)
    assert opened() == set(held)
    assert everything(ground, *held) == 0


def test_proxies_of_addresses_that_nobody_holds_go(private_host: object, routed: Ground) -> None:
    routed.add("web", "db")
    held = routed.desired("db").lease
    assert held.address6 is not None
    assert len(observe.run("ip", "-6", "neigh", "show", "proxy").splitlines()) == 2
    everything(routed, held.address.packed, held.address6.packed)
    assert observe.run("ip", "-6", "neigh", "show", "proxy").split()[0] == str(held.address6)


def test_what_is_not_ours_stays(ground: Ground) -> None:
    sh(f"ip neigh add 172.27.9.9 lladdr 02:00:00:00:00:09 dev {BRIDGE}")
    sh(f"ip neigh add 10.1.1.1 lladdr 02:7e:0a:01:01:01 dev {BRIDGE}")
    assert everything(ground) == 0
    assert bridge_neighbours() == {"172.27.9.9", "10.1.1.1"}
