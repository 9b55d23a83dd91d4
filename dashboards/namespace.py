"""vethd-namespace.json: one namespace in depth."""

from collections.abc import Iterator

from dashboards.panels import WHOLE, AnyPanel, Query, curves, facts, figure
from dashboards.queries import EVERY, HOST, NETWORK, ONE, OPENED, by_netns, opened


def glance() -> Iterator[AnyPanel]:
    """The namespace, who it is and what it does now."""
    yield facts(
        "$netns",
        "What identifies the namespace.",
        f"vethd_netns_info{{{ONE}}}",
        {
            "netns": "Namespace",
            "network": "Network",
            "address": "Address",
            "address6": "IPv6 address",
            "device": "Host device",
            "source": "Source",
        },
    )
    carried = (f"sum(increase(vethd_network_{way}_bytes_total{{{ONE}}}[$__range]))" for way in ("receive", "transmit"))
    now = (f"8 * {by_netns(f'vethd_network_{way}_bytes_total', ONE)}" for way in ("receive", "transmit"))
    for says, expr in zip(("Receives", "Sends"), now, strict=True):
        yield figure(says, "Now, as the namespace sees it.", "bps", expr)
    for says, expr in zip(("Received", "Sent"), carried, strict=True):
        yield figure(says, "In the time shown.", "bytes", expr)
    yield figure("Connections", "Tracked now.", "short", f"sum(vethd_conntrack_entries{{{ONE}}})")
    dropped = (f"sum(increase(vethd_network_{way}_drop_total{{{ONE}}}[$__range]))" for way in ("receive", "transmit"))
    yield figure("Drops", "Packets dropped in the time shown.", "short", " + ".join(dropped), (1, 1000))


def traffic() -> Iterator[AnyPanel]:
    """Its traffic."""
    for title, kind, unit, says in (
        ("Bandwidth", "bytes", "bps", "Bits a second, as the namespace sees them."),
        ("Packets", "packets", "pps", "Packets a second, as the namespace sees them."),
        ("Drops", "drop", "pps", "Packets that a device had no room for."),
        ("Errors", "errs", "pps", "Packets that were broken."),
    ):
        factor = "8 * " if kind == "bytes" else ""
        ways = (("receive", "received"), ("transmit", "sent"))
        expr = "vethd_network_{}_{}_total"
        yield curves(
            title, says, unit, *(Query(factor + by_netns(expr.format(way, kind), ONE), name) for way, name in ways)
        )
    everyone = f"sum(rate(vethd_network_total_transmit_bytes_total{{{NETWORK}}}[{EVERY}]))"
    yield curves(
        "Share of what its network sends",
        "Its part of all that namespaces of the network send.",
        "percentunit",
        Query(f"sum(rate(vethd_network_transmit_bytes_total{{{ONE}}}[{EVERY}])) / {everyone}", "sent"),
    )
    yield curves(
        "Size of packets",
        "Bytes of an average packet.",
        "bytes",
        *(
            Query(
                f"{by_netns(f'vethd_network_{way}_bytes_total', ONE)}"
                f" / {by_netns(f'vethd_network_{way}_packets_total', ONE)}",
                name,
            )
            for way, name in (("receive", "received"), ("transmit", "sent"))
        ),
    )


def conntrack() -> Iterator[AnyPanel]:
    """Its connections."""
    for protocol, says in (("tcp", "=~"), ("other protocols", "!~")):
        yield curves(
            f"Connections, {protocol}",
            "Tracked connections by state.",
            "short",
            Query(
                f'sum by (protocol, state) (vethd_conntrack_entries{{{ONE},protocol{says}"tcp"}})',
                "{{protocol}} {{state}}",
            ),
            stacked=True,
        )
    yield from opened(f'sum by (netns) (rate({OPENED}{{{ONE},direction="%s"}}[{EVERY}]))', "{{netns}}")
    yield curves(
        "Share of the host's table",
        "Its tracked connections, as a share of the table's limit.",
        "percentunit",
        Query(
            f"sum by (instance, netns) (vethd_conntrack_entries{{{ONE}}})"
            f" / on (instance) group_left () max by (instance) (vethd_conntrack_table_limit{{{HOST}}})",
            "{{netns}}",
        ),
        span=WHOLE,
        limits=(0.1, 0.3),
    )
