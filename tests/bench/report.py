"""Results as markdown."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from tests.bench.contenders import Vethd
from tests.bench.results import SLOW_CONNECT, Alone, Connects, Measured, Results, Session, p99, ratio

_MIB = 2**20
_OURS = Vethd.title


def render(results: Results) -> str:
    """All tables; times are in milliseconds unless they say otherwise."""
    parts = [_usable(results), _first_packets(results), _removal(results), _alone(results.alone)]
    if results.remarks:
        parts.append("\n".join(f"- {remark}" for remark in results.remarks))
    return "\n\n".join(parts)


def titles(results: Results) -> list[str]:
    """Everybody who was measured, vethd first."""
    return list(dict.fromkeys([_OURS, *(measured.contender for session in results.sessions for measured in session)]))


def duel(session: Session, level: int, peer: str) -> tuple[Measured, Measured] | None:
    """A peer and vethd when they took turns at `level`."""
    at_level = {measured.contender: measured for measured in session if measured.level == level}
    return (at_level[peer], at_level[_OURS]) if peer in at_level else None


def _usable(results: Results) -> str:
    peers = titles(results)[1:]
    rows = []
    for alone in results.alone.levels:
        cells = [_usable_cell(results, alone.level, peer) for peer in peers]
        rows.append([f"{alone.level}", _median_and_p99(alone.usable), *cells])
    return (
        "### From `ip netns add` returned to usable: median (p99) in ms\n\n"
        + _table(["namespaces there", f"{_OURS}, alone", *peers], rows)
        + f"\n\nBehind each peer: how many times the median that {_OURS} had in turns with it."
    )


def _usable_cell(results: Results, level: int, title: str) -> str:
    for session in results.sessions:
        if pair := duel(session, level, title):
            peer, ours = pair
            where = "" if peer.there == level else f" with {peer.there}"
            times = f"{ratio(peer.usable, ours.usable):.1f} x {median(ours.usable) * 1000:.1f}"
            return f"{_median_and_p99(peer.usable)}{where} = {times}"
    return "-"


def _first_packets(results: Results) -> str:
    rows = [[title, *_first_packet_cells(results.connects(title))] for title in titles(results)]
    limit = f"{SLOW_CONNECT * 1000:.0f} ms"
    return "### First packets: TCP connects sent the instant a namespace is usable\n\n" + _table(
        ["", "namespaces", f"slower than {limit}", "to the gateway, ms", "beyond the NAT, ms"], rows
    )


def _first_packet_cells(connects: Sequence[Connects]) -> list[str]:
    slow = sum(each.slow for each in connects)
    return [
        f"{len(connects)}",
        f"{slow} ({slow / len(connects):.1%})",
        _median_and_p99((each.gateway for each in connects), digits=2),
        _median_and_p99((each.beyond for each in connects), digits=2),
    ]


def _removal(results: Results) -> str:
    rows = [[title, _median_and_p99(trial.removal for trial in results.trials(title))] for title in titles(results)]
    return (
        "### Removal: the peer's own command, if any, and from `ip netns del` returned to the host end gone\n\n"
        + _table(["", "median (p99), ms"], rows)
    )


def _alone(alone: Alone) -> str:
    burst, rest = alone.burst, alone.rest
    rate = burst.count / burst.networked
    burst_took = f"all networked {burst.networked:.2f} s after the first was begun, {rate:.0f} a second"
    removal_took = f"all host ends gone {alone.removal:.2f} s after the first deletion was begun"
    rows = [
        [f"{burst.count} made at once", f"{burst_took} (making them took {burst.made:.2f} s)"],
        [f"{alone.removed} removed at once", f"{removal_took}, {alone.removal / alone.removed * 1000:.1f} ms each"],
        [f"CPU with {rest.count}, nothing happening", f"{rest.cpu_share:.2%} of a core, over {rest.seconds:g} s"],
        [f"resident memory with {rest.count}", f"{rest.resident / _MIB:.0f} MiB"],
        [f"restart with {rest.count}", f"ready {rest.restart:.2f} s after the start of the process"],
    ]
    return "### vethd\n\n" + _table(["", ""], rows) + "".join(f"\n- {mistake}" for mistake in burst.mistakes)


def _median_and_p99(seconds: Iterable[float], digits: int = 1) -> str:
    values = [each * 1000 for each in seconds]
    return f"{median(values):.{digits}f} ({p99(values):.{digits}f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        for cells in (head, ["---"] * len(head), *rows):
            yield "| " + " | ".join(cells) + " |"

    return "\n".join(lines())
