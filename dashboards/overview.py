"""vethd.json: a host and all its namespaces."""

from collections.abc import Iterator

from dashboards.panels import THIRD, WHOLE, AnyPanel, Column, Query, bars, buckets, curves, facts, figure, rows
from dashboards.queries import (
    EVERY,
    HOST,
    MANY,
    MOST_SERIES,
    NAMESPACE_UID,
    NETWORK,
    OPENED,
    both,
    by_netns,
    opened,
    top,
)

TO_NAMESPACE = (
    f"/d/{NAMESPACE_UID}?var-netns=${{__value.text:percentencode}}&${{datasource:queryparam}}&${{instance:queryparam}}"
    "&${network:queryparam}&${__url_time_range}"
)

FULL = f"max(vethd_conntrack_table_entries{{{HOST}}} / vethd_conntrack_table_limit{{{HOST}}})"
TROUBLE = (
    "drop",
    "early_drop",
    "insert_failed",
    "error",
    "invalid",
    "search_restart",
    "clash_resolve",
    "chain_toolong",
)


def glance() -> Iterator[AnyPanel]:
    """Is all well?"""
    ready, failed = (f'sum(vethd_namespaces{{{NETWORK},state="{state}"}})' for state in ("ready", "failed"))
    yield figure("Networked", "Namespaces that have their network.", "short", ready)
    yield figure("Failed", "Namespaces whose network could not be made; they are tried again.", "short", failed, (1, 1))
    yield figure(
        "Plumb, p95",
        "95 of 100 namespaces had their network within this time of their appearance, in the last hour.",
        "s",
        f"histogram_quantile(0.95, sum by (le) (rate(vethd_plumb_duration_seconds_bucket{{{HOST}}}[1h])))",
        (0.1, 0.25),
    )
    yield figure("Connections", "How full the host's table of tracked connections is.", "percentunit", FULL, (0.6, 0.8))
    yield figure(
        "Leases",
        "How full the fullest network's subnet is.",
        "percentunit",
        f"max(vethd_leases{{{NETWORK}}} / vethd_lease_capacity{{{NETWORK}}})",
        (0.75, 0.9),
    )
    yield figure(
        "Repairs, last hour",
        "What others damaged and the agent put right.",
        "short",
        f"sum(increase(vethd_drift_repaired_total{{{HOST}}}[1h])) or vector(0)",
        (1, 20),
    )


def traffic() -> Iterator[AnyPanel]:
    """Who uses the uplink?"""
    for way, does in (("receive", "receive"), ("transmit", "send")):
        yield curves(
            f"Namespaces {does}",
            f"Bits a second, as the namespace sees them; the {MOST_SERIES} busiest.",
            "bps",
            Query(top(f"8 * {by_netns(f'vethd_network_{way}_bytes_total')}"), "{{netns}}"),
        )
    yield rows(
        "Namespaces",
        "What each namespace does now; its name leads to its own dashboard.",
        [
            Column("Receives", f"8 * {by_netns('vethd_network_receive_bytes_total')}", "bps"),
            Column("Sends", f"8 * {by_netns('vethd_network_transmit_bytes_total')}", "bps"),
            Column("Packets in", by_netns("vethd_network_receive_packets_total"), "pps"),
            Column("Packets out", by_netns("vethd_network_transmit_packets_total"), "pps"),
            Column("Drops", both("vethd_network_*_drop_total"), "pps"),
            Column("Connections", f"sum by (netns) (vethd_conntrack_entries{{{MANY}}})", "short"),
        ],
        labels={"netns": "Namespace"},
        sort_by="Receives",
        link=("Namespace", "Show this namespace", TO_NAMESPACE),
    )
    for way, does in (("receive", "received"), ("transmit", "sent")):
        yield curves(
            f"Packets {does}",
            f"Packets a second, as the namespace sees them; the {MOST_SERIES} busiest.",
            "pps",
            Query(top(by_netns(f"vethd_network_{way}_packets_total")), "{{netns}}"),
        )
    yield curves(
        "Networks, namespaces that are gone included",
        "All namespaces of a network together; also those that lived between two scrapes only.",
        "bps",
        *(
            Query(
                f"8 * sum by (network) (rate(vethd_network_total_{way}_bytes_total{{{NETWORK}}}[{EVERY}]))",
                f"{{{{network}}}} {way}",
            )
            for way in ("receive", "transmit")
        ),
        span=WHOLE,
    )


def drops() -> Iterator[AnyPanel]:
    """Who loses packets?"""
    yield curves(
        "Drops",
        "Packets that a device of the namespace had no room for, both directions.",
        "pps",
        Query(top(both("vethd_network_*_drop_total")), "{{netns}}"),
        span=THIRD,
    )
    yield curves(
        "Errors",
        "Packets that were broken, both directions.",
        "pps",
        Query(top(both("vethd_network_*_errs_total")), "{{netns}}"),
        span=THIRD,
    )
    lost = both("vethd_network_*_drop_total").replace("rate(", "increase(").replace(EVERY, "$__range")
    yield bars(
        "Most drops",
        "Packets dropped in the time shown, the ten namespaces with the most.",
        "short",
        Query(f"topk(10, {lost})", "{{netns}}"),
        span=THIRD,
        limits=(1, 1000),
    )


def conntrack() -> Iterator[AnyPanel]:
    """Whose connections fill the table?"""
    yield curves(
        "Tracked connections",
        "The host's table and its limit; when it is full, new connections of the whole host are dropped.",
        "short",
        Query(f"vethd_conntrack_table_entries{{{HOST}}}", "{{instance}} entries"),
        Query(f"vethd_conntrack_table_limit{{{HOST}}}", "{{instance}} limit"),
    )
    yield bars(
        "Share of the table",
        "The ten namespaces with the most tracked connections, as a share of the table's limit.",
        "percentunit",
        Query(
            f"topk(10, sum by (instance, netns) (vethd_conntrack_entries{{{MANY}}})"
            f" / on (instance) group_left () max by (instance) (vethd_conntrack_table_limit{{{HOST}}}))",
            "{{netns}}",
        ),
        limits=(0.1, 0.3),
        full=1,
    )
    yield curves(
        "Connections by namespace",
        f"Tracked connections, the {MOST_SERIES} namespaces with the most.",
        "short",
        Query(top(f"sum by (netns) (vethd_conntrack_entries{{{MANY}}})"), "{{netns}}"),
    )
    yield curves(
        "Connections by protocol and state",
        "Tracked connections of all selected namespaces.",
        "short",
        Query(f"sum by (protocol, state) (vethd_conntrack_entries{{{MANY}}})", "{{protocol}} {{state}}"),
        stacked=True,
    )
    yield from opened(top(f'sum by (netns) (rate({OPENED}{{{MANY},direction="%s"}}[{EVERY}]))'), "{{netns}}")
    yield curves(
        "Trouble of the table",
        "What connection tracking counts, all processors together: drop and early_drop mean a table that is full.",
        "cps",
        *(Query(f"sum(rate(vethd_conntrack_stat_{what}_total{{{HOST}}}[{EVERY}]))", what) for what in TROUBLE),
        span=WHOLE,
    )


def leases() -> Iterator[AnyPanel]:
    """Who is about to hit a limit?"""
    yield bars(
        "Subnets",
        "Addresses in use, as a share of those that can be.",
        "percentunit",
        Query(f"vethd_leases{{{NETWORK}}} / vethd_lease_capacity{{{NETWORK}}}", "{{network}}"),
        span=THIRD,
        limits=(0.75, 0.9),
        full=1,
    )
    yield curves(
        "Free addresses",
        "New namespaces fail when there are none.",
        "short",
        Query(f"vethd_leases_free{{{NETWORK}}}", "{{network}}"),
        span=THIRD,
    )
    yield bars(
        "Bridge ports",
        "Namespaces that are ports of a bridge; beyond 1,000 they are routed.",
        "short",
        Query(f"vethd_bridge_ports{{{HOST}}}", "{{device}}"),
        span=THIRD,
        full=1000,
    )


def latency() -> Iterator[AnyPanel]:
    """How fast is a namespace networked?"""
    bucket = f"vethd_plumb_duration_seconds_bucket{{{HOST}}}"
    yield buckets(
        "Time to plumb",
        "From a namespace's appearance to its being usable; the darker, the more namespaces took so long.",
        "s",
        f"sum by (le) (increase({bucket}[{EVERY}]))",
    )
    yield curves(
        "Time to plumb, quantiles",
        "Half, 95 and 99 of 100 namespaces were usable within this time.",
        "s",
        *(
            Query(f"histogram_quantile({quantile}, sum by (le) (rate({bucket}[{EVERY}])))", f"p{quantile * 100:.0f}")
            for quantile in (0.5, 0.95, 0.99)
        ),
        limits=(0.1, 0.25),
    )


def drift() -> Iterator[AnyPanel]:
    """What did the agent do?"""
    yield curves(
        "Namespaces by state",
        "left: left alone by policy. pending: seen, not networked yet.",
        "short",
        Query(f"sum by (state) (vethd_namespaces{{{NETWORK}}})", "{{state}}"),
        span=THIRD,
    )
    yield curves(
        "Repairs",
        "What others changed and the agent put right, by kind. Steady repairs: another program fights with it.",
        "cps",
        Query(f"sum by (kind) (rate(vethd_drift_repaired_total{{{HOST}}}[{EVERY}]))", "{{kind}}"),
        span=THIRD,
    )
    yield curves(
        "Looks at namespaces",
        "Why the agent looked, and what came of it.",
        "cps",
        Query(f"sum by (reason, result) (rate(vethd_reconcile_total{{{HOST}}}[{EVERY}]))", "{{reason}}: {{result}}"),
        span=THIRD,
    )


def health() -> Iterator[AnyPanel]:
    """Is the agent healthy?"""
    yield from (
        curves("Events", "What the kernel told, by source.", "cps", by_source("vethd_events_total"), span=THIRD),
        curves(
            "Events lost",
            "Each time, everything is looked at anew: it costs time, never truth.",
            "cps",
            by_source("vethd_events_dropped_total"),
            span=THIRD,
        ),
        curves(
            "Queue",
            "Namespaces that wait to be looked at.",
            "short",
            Query(f"vethd_queue_length{{{HOST}}}", "{{instance}}"),
            span=THIRD,
        ),
        curves(
            "Loop lag",
            "By how much the agent's event loop is late.",
            "s",
            Query(f"vethd_loop_lag_seconds{{{HOST}}}", "{{instance}}"),
            span=THIRD,
            limits=(0.05, 0.5),
        ),
        curves(
            "Since everything was looked at",
            "The agent looks at everything every five minutes, whatever it heard.",
            "s",
            Query(f"time() - vethd_last_resync_timestamp_seconds{{{HOST}}}", "{{instance}}"),
            span=THIRD,
        ),
        curves(
            "Processor",
            "Share of one core that the agent takes.",
            "percentunit",
            Query(f"rate(process_cpu_seconds_total{{{HOST}}}[{EVERY}])", "{{instance}}"),
            span=THIRD,
        ),
        curves(
            "Memory",
            "Resident memory of the agent.",
            "bytes",
            Query(f"process_resident_memory_bytes{{{HOST}}}", "{{instance}}"),
        ),
        curves(
            "Open files",
            "Files and sockets that the agent holds, and how many it may.",
            "short",
            Query(f"process_open_fds{{{HOST}}}", "{{instance}}"),
            Query(f"process_max_fds{{{HOST}}}", "{{instance}} limit"),
        ),
        facts(
            "Agents",
            "Versions that run.",
            f"vethd_build_info{{{HOST}}}",
            {"instance": "Host", "version": "vethd", "python": "Python"},
        ),
    )


def by_source(metric: str) -> Query:
    """Return the rate of events of each source."""
    return Query(f"sum by (source) (rate({metric}{{{HOST}}}[{EVERY}]))", "{{source}}")
