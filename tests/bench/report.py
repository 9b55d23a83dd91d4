"""Results as Markdown."""

from collections.abc import Sequence

from tests.bench.contenders import Vethd
from tests.bench.goals import Goal
from tests.bench.results import SLOW_CONNECT, Connects, Results
from tests.bench.words import milliseconds, table

_OURS = Vethd.title
_NOTES = """\
- Times are medians, behind them the 99th percentile. Every contender has a private host of its own, and those that
  are compared take turns, trial by trial.
- A trial's clock starts when the namespace is there (the mount has returned) and ends when an outside observer finds
  a route to the world inside, and for a peer not before its command has returned. The observer enters once and looks
  every 0.1 ms by one system call, the same for all: one that listens to the kernel's messages inside would slow the
  kernel's work down.
- The floor is a C program that sends the kernel two or three batches of netlink, in vethd's own host and with the
  agent halted meanwhile: a bridge port where vethd makes one, routed where vethd routes. "Its work alone" is by its
  own clock, without the observer and without having to be told.
- vethd makes IPv4 and IPv6 in that time, the peers IPv4 alone. How many times faster is told against vethd in turns
  with each.
- First connects are TCP SYNs to the gateway and beyond the NAT at the instant the namespace is usable; those on the
  way to a level are counted, too.
- Throughput and connections: the median of each turn's ratio."""


def render(results: Results, goals: Sequence[Goal]) -> str:
    """All tables."""
    rows = [[goal.what, goal.told, goal.bound(goal.least), goal.bound(goal.aim), goal.verdict] for goal in goals]
    parts = [
        table(["what", "measured", "at least", "aim", "reached"], rows),
        _NOTES,
        _first_packets(results),
        _removal(results),
        "\n".join(f"- {remark}" for remark in results.remarks),
        "\n".join(f"- FAILED: {failure}" for failure in results.failures),
        "\n".join(f"- MISTAKE: {mistake}" for burst in results.bursts for mistake in burst.mistakes),
    ]
    return "\n\n".join(filter(None, parts))


def _titles(results: Results) -> list[str]:
    """Everybody who was measured, vethd first."""
    return list(dict.fromkeys([_OURS, *(measured.contender for session in results.sessions for measured in session)]))


def _first_packets(results: Results) -> str:
    found: dict[str, list[Connects]] = {}
    for title in _titles(results):
        for measured in sorted(results.measured(title), key=lambda measured: measured.level):
            found.setdefault(f"{title}, {measured.level:,} there", []).extend(measured.connects)
    rows = [[what, *_first_packet_cells(connects)] for what, connects in found.items()]
    slow = f"slower than {SLOW_CONNECT * 1000:g} ms"
    return "### First connects\n\n" + table(["", "namespaces", slow, "to the gateway", "beyond the NAT"], rows)


def _first_packet_cells(connects: Sequence[Connects]) -> list[str]:
    slow = sum(each.slowest > SLOW_CONNECT for each in connects)
    return [
        f"{len(connects):,}",
        f"{slow} ({slow / len(connects):.1%})",
        milliseconds(each.gateway for each in connects),
        milliseconds(each.beyond for each in connects),
    ]


def _removal(results: Results) -> str:
    took = {title: [trial.gone for trial in results.trials(title)] for title in _titles(results)}
    rows = [[title, milliseconds(seconds)] for title, seconds in took.items() if seconds]
    return "### Removal: the peer's own command, if any, and until the host end is gone\n\n" + table(["", ""], rows)
