"""Every metric that there is not per namespace, in one registry; those are in families.py."""

import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector

from agent import __version__
from agent.export.exposition import Renderer
from agent.export.families import NamespaceFamilies
from agent.export.residents import Resident
from agent.export.views import STATES
from agent.kernel.flows import Table
from agent.model import Traffic
from agent.reconciler.world import Part, World

_PLUMB_BUCKETS = (0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BRIDGE_PORTS = 1023
_STANDING = attrgetter("network", "state", "alias_of")
_EOF = b"# EOF\n"
# What an alert looks at is there before there is trouble.
_PARTS = get_args(Part)
# Those that every agent listens to: what an alert looks at is there before anything is lost.
_SOURCES = ("inotify", "rtnetlink", "nftables")


class Metrics:
    """The registry, the counters that notices drive, and both as text.

    ``table`` returns what was read of conntrack's table last, ``lag`` by how many seconds the
    loop was late last.
    """

    def __init__(self, world: World, table: Callable[[], Table], lag: Callable[[], float]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.families = NamespaceFamilies(world)
        self._renderer = Renderer()
        self.registry = CollectorRegistry()
        self._plumb = Histogram(
            "vethd_plumb_duration_seconds",
            "From a namespace's appearance to its being usable.",
            buckets=_PLUMB_BUCKETS,
            registry=self.registry,
        )
        self._reconciles = Counter(
            "vethd_reconcile",
            "Looks at a namespace, by reason and result.",
            ("reason", "result"),
            registry=self.registry,
        )
        self._repairs = Counter(
            "vethd_drift_repaired", "Repairs of what others changed, by kind.", ("kind",), registry=self.registry
        )
        self.registry.register(_WorldCollector(world, table, lag))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def render(self, openmetrics: bool) -> bytes:
        """Return what there is not per namespace as text, without the end that OpenMetrics has."""
        encode = openmetrics_text if openmetrics else generate_latest
        return encode(self.registry).removesuffix(_EOF)

    def render_namespaces(self, openmetrics: bool, residents: Sequence[Resident]) -> list[bytes]:
        """Return the rest of the text, in pieces; ``residents`` are those who are there now."""
        pieces = [*self._renderer.render(self.families.collect(residents), openmetrics)]
        return [*pieces, _EOF] if openmetrics else pieces

    def on_notice(self, notice: Mapping[str, Any]) -> None:
        """Count what happened."""
        match notice["event"]:
            case "networked":
                self._plumb.observe(notice["seconds"])
            case "reconciled":
                self._reconciles.labels(notice["reason"], notice["result"]).inc()
            case "repaired" | "host-repaired":
                for kind in notice["kinds"]:
                    self._repairs.labels(kind).inc()


class _WorldCollector(Collector):
    """What is read at every scrape from the agent's memory."""

    def __init__(self, world: World, table: Callable[[], Table], lag: Callable[[], float]) -> None:
        self._world = world
        self._table = table
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        yield from self._agent()
        yield from self._networks()
        yield from self._totals()
        yield from self._conntrack()

    def _agent(self) -> Iterator[Metric]:
        world = self._world
        info = GaugeMetricFamily("vethd_build_info", "Version of vethd and of Python.", labels=("version", "python"))
        info.add_metric((__version__, platform.python_version()), 1)
        yield info
        yield _labelled_counter("vethd_events", "Events taken, by source.", "source", world.heard)
        lost = dict.fromkeys((*_SOURCES, *world.heard), 0) | world.dropped
        yield _labelled_counter("vethd_events_dropped", "Times that events of a source were lost.", "source", lost)
        yield GaugeMetricFamily("vethd_queue_length", "Names that wait to be looked at, or are.", world.queued)
        in_force = sum(len(wishes.by_name) for wishes in self._world.wishes)
        yield GaugeMetricFamily("vethd_wishes", "Files of netns.d that are in force.", in_force)
        troubles = GaugeMetricFamily(
            "vethd_trouble", "Whether status tells of a problem with this part of the host.", labels=("part",)
        )
        for part in _PARTS:
            troubles.add_metric((part,), part in world.troubles)
        yield troubles
        yield GaugeMetricFamily("vethd_loop_lag_seconds", "How late the event loop was last.", self._lag())
        yield GaugeMetricFamily(
            "vethd_last_resync_timestamp_seconds", "When everything was looked at last.", world.resynced or time.time()
        )

    def _networks(self) -> Iterator[Metric]:
        counts = GaugeMetricFamily("vethd_namespaces", "Namespaces by network and state.", labels=("network", "state"))
        tally: Tally[tuple[str, str]] = Tally()
        on_bridge: Tally[str | None] = Tally()
        for (of_network, state, alias_of), count in Tally(map(_STANDING, self._world.roster)).items():
            tally[of_network or "", state] += count
            on_bridge[of_network] += count if state == "ready" and alias_of is None else 0
        for owner in map(self._world.roster.owner, self._world.routed.values()):
            on_bridge[owner.network if owner and owner.state == "ready" else None] -= 1
        for network in self._world.config.networks:
            for state in STATES:
                tally.setdefault((network.name, state), 0)
        for labels, count in sorted(tally.items()):
            counts.add_metric(labels, count)
        yield counts
        leases = GaugeMetricFamily("vethd_leases", "Addresses in use.", labels=("network",))
        free = GaugeMetricFamily("vethd_leases_free", "Addresses that are not in use.", labels=("network",))
        capacity = GaugeMetricFamily("vethd_lease_capacity", "Addresses that can be in use.", labels=("network",))
        ports = GaugeMetricFamily("vethd_bridge_ports", "Namespaces that are ports of a bridge.", labels=("device",))
        for network in self._world.config.networks:
            held = len(self._world.leases[network.name])
            leases.add_metric((network.name,), held)
            free.add_metric((network.name,), network.capacity - held)
            capacity.add_metric((network.name,), network.capacity)
            ports.add_metric((network.bridge,), on_bridge[network.name])
        yield from (leases, free, capacity, ports)

    def _totals(self) -> Iterator[Metric]:
        totals = dict(self._world.ledger.totals())
        for direction, side in (("receive", "rx"), ("transmit", "tx")):
            for kind in ("bytes", "packets"):
                sums = {
                    network.name: getattr(totals.get(network.name, Traffic()), f"{side}_{kind}")
                    for network in self._world.config.networks
                }
                yield _labelled_counter(
                    f"vethd_network_total_{direction}_{kind}",
                    f"{kind} that all namespaces of a network {direction}, those that are gone included.",
                    "network",
                    sums,
                )

    def _conntrack(self) -> Iterator[Metric]:
        table = self._table()
        yield GaugeMetricFamily("vethd_conntrack_table_entries", "Entries of the host's table.", table.entries)
        yield GaugeMetricFamily("vethd_conntrack_table_limit", "Entries that the table can hold.", table.limit)
        for name in sorted({name for each in table.statistics for name in each}):
            by_processor = {str(cpu): each.get(name, 0) for cpu, each in enumerate(table.statistics)}
            yield _labelled_counter(
                f"vethd_conntrack_stat_{name}", f"The kernel's own count of {name}.", "cpu", by_processor
            )


def _labelled_counter(name: str, help_text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family
