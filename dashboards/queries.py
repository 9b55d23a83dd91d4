"""What the dashboards' queries have in common: selectors by Grafana's variables, and rates."""

from collections.abc import Iterator

from dashboards.panels import AnyPanel, Query, curves

NAMESPACE_UID = "vethd-namespace"
MOST_SERIES = 20  # of a thousand namespaces a panel shows those that matter

HOST = 'instance=~"$instance"'
NETWORK = f'{HOST},network=~"$network"'
MANY = f'{NETWORK},netns=~"$netns"'
ONE = f'{NETWORK},netns="$netns"'
EVERY = "$__rate_interval"

OPENED = "vethd_conntrack_connections_total"


def by_netns(metric: str, selector: str = MANY) -> str:
    """Return the rate of a counter by namespace: what a repaired device's series had goes on in the same one."""
    return f"sum by (netns) (rate({metric}{{{selector}}}[{EVERY}]))"


def top(expr: str) -> str:
    """Return the highest series of all."""
    return f"topk({MOST_SERIES}, {expr})"


def both(metric: str, selector: str = MANY) -> str:
    """Return the rate of a counter of both directions together; ``metric`` has ``*`` for the direction."""
    received, sent = (by_netns(metric.replace("*", way), selector) for way in ("receive", "transmit"))
    return f"{received} + {sent}"


def opened(expr: str, legend: str) -> Iterator[AnyPanel]:
    """Yield two panels of new connections; ``expr`` has ``%s`` for the direction."""
    for direction, says in (("opened", "by a namespace"), ("accepted", "to a namespace")):
        yield curves(
            f"Connections {direction}",
            f"New connections a second {says}, counted by the kernel one by one.",
            "cps",
            Query(expr % direction, legend),
        )
