"""Every metric of vethd, in one registry."""

import platform
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import __version__
from agent.core.identity import printable
from agent.core.roster import Record
from agent.export.views import STATES, attached
from agent.model import Traffic
from agent.reconciler.world import World

_PLUMB_BUCKETS = (0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_DIRECTIONS = (("receive", "rx"), ("transmit", "tx"))
_KINDS = (("bytes", "bytes"), ("packets", "packets"), ("errs", "errors"), ("drop", "dropped"))
_LABELS = ("netns", "network", "device")


class Metrics:
    """The registry, and the counters that notices drive."""

    def __init__(self, world: World) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
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
        self._dropped = Counter(
            "vethd_events_dropped", "Times that events of a source were lost.", ("source",), registry=self.registry
        )
        for source in ("inotify", "rtnetlink", "nftables"):
            self._dropped.labels(source)
        self.registry.register(_WorldCollector(world))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

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
            case "dropped":
                self._dropped.labels(notice["source"]).inc()


class _WorldCollector(Collector):
    """What is read at every scrape, from the agent's memory alone."""

    def __init__(self, world: World) -> None:
        self._world = world

    def collect(self) -> Iterator[Metric]:
        yield from self._build()
        yield from self._namespaces()
        yield from self._networks()
        yield from self._traffic()
        yield from self._totals()

    def _build(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("vethd_build_info", "Version of vethd and of Python.", labels=("version", "python"))
        info.add_metric((__version__, platform.python_version()), 1)
        yield info

    def _namespaces(self) -> Iterator[Metric]:
        counts = GaugeMetricFamily("vethd_namespaces", "Namespaces by network and state.", labels=("network", "state"))
        tally: Tally[tuple[str, str]] = Tally((record.network or "", record.state) for record in self._world.roster)
        for network in self._world.config.networks:
            for state in STATES:
                tally.setdefault((network.name, state), 0)
        for labels, count in sorted(tally.items()):
            counts.add_metric(labels, count)
        yield counts
        info = GaugeMetricFamily(
            "vethd_netns_info",
            "What identifies a networked namespace.",
            labels=("netns", "network", "source", "device", "address", "address6"),
        )
        for record in self._ready():
            if record.attachment is None:
                continue
            lease = record.attachment.lease
            addresses = (str(lease.address), str(lease.address6 or ""))
            info.add_metric((printable(record.name), record.network or "", "named", record.device or "", *addresses), 1)
        yield info

    def _networks(self) -> Iterator[Metric]:
        leases = GaugeMetricFamily("vethd_leases", "Addresses in use.", labels=("network",))
        capacity = GaugeMetricFamily("vethd_lease_capacity", "Addresses that can be in use.", labels=("network",))
        ports = GaugeMetricFamily("vethd_bridge_ports", "Namespaces on a bridge.", labels=("device",))
        on_bridge = Tally(record.network for record in self._ready())
        for network in self._world.config.networks:
            leases.add_metric((network.name,), len(self._world.leases[network.name]))
            capacity.add_metric((network.name,), network.capacity)
            ports.add_metric((network.bridge,), on_bridge[network.name])
        yield from (leases, capacity, ports)

    def _traffic(self) -> Iterator[Metric]:
        carried = [
            ((printable(record.name), record.network or "", record.device or ""), traffic)
            for record in self._ready()
            if record.cookie is not None and (traffic := self._world.ledger.carried(record.cookie)) is not None
        ]
        for direction, side in _DIRECTIONS:
            for kind, counter in _KINDS:
                family = CounterMetricFamily(
                    f"vethd_network_{direction}_{kind}",
                    f"{kind} that namespaces {direction}, as they see it.",
                    labels=_LABELS,
                )
                for labels, traffic in carried:
                    family.add_metric(labels, getattr(traffic, f"{side}_{counter}"))
                yield family

    def _totals(self) -> Iterator[Metric]:
        totals = dict(self._world.ledger.totals())
        for direction, side in _DIRECTIONS:
            for kind in ("bytes", "packets"):
                family = CounterMetricFamily(
                    f"vethd_network_total_{direction}_{kind}",
                    f"{kind} that all namespaces of a network {direction}, those that are gone included.",
                    labels=("network",),
                )
                for network in self._world.config.networks:
                    traffic = totals.get(network.name, Traffic())
                    family.add_metric((network.name,), getattr(traffic, f"{side}_{kind}"))
                yield family

    def _ready(self) -> Iterator[Record]:
        return attached(self._world)
