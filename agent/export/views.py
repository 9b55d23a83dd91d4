"""The agent's knowledge as JSON values, the way the control socket tells it."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from agent import __version__
from agent.core.roster import Record
from agent.model import Network, Traffic
from agent.reconciler.world import World

View = dict[str, Any]
STATES: Final = ("ready", "pending", "left", "failed")
WISH_NOT_TAKEN: Final = "wish not taken: "
"""Begins each of the problems that are about a file of netns.d."""


def namespace(world: World, record: Record) -> View:
    """One name."""
    network = world.network(record.network) if record.network else None
    lease = record.attachment.lease if record.attachment else None
    address6 = lease.address6 if lease else None
    return {
        "name": record.name,
        "path": record.path,
        "source": record.origin.source,
        # What rules may ask, and what runs there by now; None where nobody knows.
        "command": record.origin.command or None,
        "cgroup": record.origin.cgroup or None,
        "user": record.origin.user or None,
        "container": record.origin.container or None,
        "state": record.state,
        "network": record.network,
        "device": record.device,
        "address": f"{lease.address}/{network.subnet.prefixlen}" if lease and network else None,
        "address6": f"{address6}/{network.subnet6.prefixlen}" if address6 and network and network.subnet6 else None,
        "rule": record.rule,
        "reason": record.reason,
        "cookie": record.cookie,
        "plumb_ms": None if record.plumb_seconds is None else round(record.plumb_seconds * 1000, 3),
        "aliases": world.roster.aliases(record),
    }


def attached(world: World) -> Iterator[Record]:
    """Records that own an attachment which stands."""
    return (record for record in world.roster if record.state == "ready" and record.alias_of is None)


def namespaces(world: World) -> list[View]:
    """All names, sorted."""
    return [namespace(world, record) for record in sorted(world.roster, key=lambda record: record.path)]


def traffic(world: World) -> View:
    """What every networked namespace carried by the last sample; ``time`` is Unix time, bytes and packets count up."""
    return {"time": time.time(), "namespaces": [_traffic(world, record) for record in attached(world)]}


def _traffic(world: World, record: Record) -> View:
    carried = (None if record.cookie is None else world.ledger.carried(record.cookie)) or Traffic()
    return {
        "name": record.name,
        "network": record.network,
        "device": record.device,
        "receive_bytes": carried.rx_bytes,
        "transmit_bytes": carried.tx_bytes,
        "receive_packets": carried.rx_packets,
        "transmit_packets": carried.tx_packets,
        "connections": 0 if record.cookie is None else world.connections.total(record.cookie),
    }


def explanation(world: World, name: str) -> View | None:
    """Why a name is or is not networked, and what was done to it; None when it was never seen."""
    record = world.roster.find(name)
    told = record or world.roster.find_former(name)
    if told is None:
        return None
    return {
        "namespace": namespace(world, record) if record else None,
        "history": [
            {"time": incident.time, "event": incident.event, "detail": incident.detail} for incident in told.history
        ],
    }


def status(world: World, started: float, ready: bool) -> View:
    """The agent as a whole; ``started`` is monotonic."""
    states: Counter[str] = Counter(record.state for record in world.roster)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_seconds": round(time.monotonic() - started, 3),
        "ready": ready,
        "networks": [_network(world, network) for network in world.config.networks],
        "namespaces": {state: states.get(state, 0) for state in STATES},
        "uplink": {"device": world.uplink.device, "mtu": world.uplink.mtu} if world.uplink else None,
        "events_dropped": dict(world.dropped),
        "problems": list(problems(world)),
        "process_source": None if world.process_remark is None else world.process_remark(),
    }


def problems(world: World) -> Iterator[str]:
    """What is wrong with the agent, one line each; nothing when all is well."""
    if world.host_problem:
        yield f"host: {world.host_problem}"
    yield from world.troubles.values()
    for wishes in world.wishes:
        yield from (f"{WISH_NOT_TAKEN}{line}" for line in wishes.problems.values())
    failed = [record for record in world.roster if record.state == "failed"]
    if failed:
        yield f"{len(failed)} namespaces failed, first: {failed[0].reason}"


def _network(world: World, network: Network) -> View:
    bridge = world.bridges.get(network.name)
    gateway6 = network.gateway6
    return {
        "name": network.name,
        "subnet": str(network.subnet),
        "subnet6": str(network.subnet6) if network.subnet6 else None,
        "bridge": network.bridge,
        "gateway": str(network.gateway.ip),
        "gateway6": str(gateway6.ip) if gateway6 else None,
        "mtu": bridge.mtu if bridge else None,
        "leases": len(world.leases[network.name]),
        "capacity": network.capacity,
        "ports": sum(1 for record in attached(world) if record.network == network.name),
    }
