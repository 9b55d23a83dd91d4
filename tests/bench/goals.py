"""What was aimed at, and what was measured: one line each."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tests.bench.peers import BestScript, Cni, Netavark, Script
from tests.bench.results import SLOW_CONNECT, Level, Results, duel, ratio
from tests.bench.words import milliseconds

Unit = Literal["ms", "s", "times", "", "%", "a second", "MB", "kB"]
_MB = 1e6

# What is asked for at least, and what is aimed at.
_USABLE_MS = {100: (3, 1.5), 1000: (3.5, 1.5), 5000: (4, 1.5)}
_PEERS = {
    (Cni.title, 10): (10, 25),
    (Cni.title, 900): (25, 60),
    (Netavark.title, 10): (12, 30),
    (Netavark.title, 900): (14, 30),
    (Script.title, 10): (5, 12),
    (Script.title, 900): (5, 12),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """``told`` is what was measured in words, ``value`` what is compared with ``least`` and ``aim``.

    Both are None where nothing was asked for. ``is_ratio``: holds on any machine, as both sides of it
    were measured on the same.
    """

    what: str
    told: str
    value: float
    least: float | None = None
    aim: float | None = None
    unit: Unit = ""
    higher: bool = False
    is_ratio: bool = False

    @property
    def verdict(self) -> str:
        if self.least is None or self.aim is None:
            return ""
        if self.reaches(self.aim):
            return "as aimed"
        return "yes" if self.reaches(self.least) else "**NO**"

    def reaches(self, bound: float) -> bool:
        return self.value >= bound if self.higher else self.value <= bound

    def bound(self, bound: float | None) -> str:
        return "-" if bound is None else f"{bound:.3g} {self.unit}".strip()


def goals(results: Results) -> list[Goal]:
    """In the order of the table that they are asked for in; what was not measured is left out."""
    parts: tuple[Callable[[Results], Iterable[Goal]], ...] = (
        _usable,
        _first_packets,
        _floor,
        _peers,
        _bursts,
        _removal,
        _traffic,
        _crowd,
        _start,
        _refresh,
    )
    return [goal for part in parts for goal in part(results)]


def _usable(results: Results) -> Iterator[Goal]:
    levels = results.growth.levels
    for level in levels:
        least, aim = _USABLE_MS.get(level.vethd.level, (None, None))
        what = f"from appearance to usable, {level.vethd.there:,} there already"
        yield Goal(what, milliseconds(level.vethd.usable), median(level.vethd.usable) * 1000, least, aim, "ms")
    if len(levels) < 2:
        return
    first, last = levels[0].vethd, levels[-1].vethd
    growth = ratio(last.usable, first.usable)
    yield Goal(
        f"its growth from {first.there:,} to {last.there:,}", f"{growth:.2f}", growth, 4 / 3, 1, "times", is_ratio=True
    )


def _first_packets(results: Results) -> Iterator[Goal]:
    for level in results.growth.levels:
        slowest = [each.slowest for each in level.vethd.connects]
        slow = sum(each > SLOW_CONNECT for each in slowest)
        yield Goal(
            f"first connects slower than {SLOW_CONNECT * 1000:g} ms, {level.vethd.there:,} there",
            f"{slow} of {len(slowest):,}; {milliseconds(slowest, 2)}",
            slow / len(slowest) * 100,
            0,
            0,
            "%",
        )


def _floor(results: Results) -> Iterator[Goal]:
    for level in results.growth.levels:
        if level.floor:
            yield _above_floor(level)


def _above_floor(level: Level) -> Goal:
    seen = [trial.usable for trial in level.floor]
    above = ratio(level.vethd.usable, seen)
    work = ratio(level.vethd.usable, [trial.work for trial in level.floor])
    told = f"{above:.1f} times {milliseconds(seen, 2)}; {work:.1f} times its work alone"
    return Goal(
        f"against the raw netlink floor, {level.vethd.there:,} there", told, above, 4, 2, "times", is_ratio=True
    )


def _peers(results: Results) -> Iterator[Goal]:
    for title in (Cni.title, Netavark.title, Script.title, BestScript.title):
        for session in results.sessions:
            for level in sorted({measured.level for measured in session}):
                if pair := duel(session, level, title):
                    peer, ours = pair
                    times = ratio(peer.usable, ours.usable)
                    there = f"{level}" if peer.there == level else f"{level} (it has {peer.there})"
                    told = f"{times:.1f} times; {milliseconds(peer.usable)} against {milliseconds(ours.usable)}"
                    least, aim = _PEERS.get((title, level), (None, None))
                    what = f"faster than {title} at {there}"
                    yield Goal(what, told, times, least, aim, "times", higher=True, is_ratio=True)


def _bursts(results: Results) -> Iterator[Goal]:
    bursts = results.bursts
    if not bursts:
        return
    count = bursts[0].count
    rate = median(burst.count / burst.networked for burst in bursts)
    made = median(burst.made for burst in bursts)
    gone, forgotten = median(burst.gone for burst in bursts), median(burst.forgotten for burst in bursts)
    asked = [each for burst in bursts for each in burst.asked]
    yield Goal(
        f"{count:,} made in one go, until all are usable",
        f"{rate:.0f} a second (making them took {made:.2f} s of {count / rate:.2f} s)",
        rate,
        300,
        700,
        "a second",
        higher=True,
    )
    yield Goal(
        "the slowest answer of `status` meanwhile",
        milliseconds(asked) + f", {max(asked) * 1000:.1f} at worst",
        max(asked) * 1000,
        50,
        50,
        "ms",
    )
    told = f"{gone:.2f} s; all else forgotten after {forgotten:.2f} s"
    yield Goal(f"{count:,} removed in one go, until all host ends are gone", told, gone)


def _removal(results: Results) -> Iterator[Goal]:
    trials = [trial for level in results.growth.levels for trial in level.vethd.trials]
    if not trials:
        return
    ways = {
        "removal of the name to the devices gone": [trial.gone for trial in trials],
        "the same to all else forgotten: sets, neighbours, connections, lease": [trial.forgotten for trial in trials],
    }
    for what, took in ways.items():
        yield Goal(what, milliseconds(took), median(took) * 1000, 3, 1.5, "ms")


def _traffic(results: Results) -> Iterator[Goal]:
    for pair in results.throughput:
        told = f"{pair.ratio:.3f}; {median(pair.ours) / 1e9:.2f} against {median(pair.theirs) / 1e9:.2f} Gbit/s"
        what = f"TCP {pair.what}, against the same made by hand"
        yield Goal(what, told, pair.ratio, 0.97, 1, higher=True, is_ratio=True)
    for pair in results.connections:
        told = f"{pair.ratio:.3f}; {median(pair.ours):,.0f} against {median(pair.theirs):,.0f} a second"
        least, aim = (0.95, 1.0) if pair.what.endswith("against one") else (1.05, 1.15)
        yield Goal(f"new connections {pair.what}", told, pair.ratio, least, aim, higher=True, is_ratio=True)


def _crowd(results: Results) -> Iterator[Goal]:
    crowd = results.growth.crowd
    if crowd is None:
        return
    share, there = crowd.cpu_share * 100, f"with {crowd.count:,}"
    yield Goal(f"CPU while idle {there}", f"{share:.2f} % of a core over {crowd.seconds:g} s", share, 0.5, 0.1, "%")
    memory = crowd.resident / _MB
    yield Goal(f"resident memory {there}", f"{memory:.0f} MB", memory, 150, 90, "MB")
    for first in results.growth.levels[:1]:
        each = (crowd.resident - first.resident) / (crowd.count - first.vethd.there) / 1000
        yield Goal(f"of it for each namespace beyond {first.vethd.there:,}", f"{each:.1f} kB", each, 10, 10, "kB")
    yield Goal(f"a whole scrape {there}", milliseconds(crowd.scrapes), median(crowd.scrapes) * 1000, 100, 30, "ms")


def _start(results: Results) -> Iterator[Goal]:
    start = results.growth.start
    if start is None:
        return
    adopted, first = max(start.adopted), max(start.first)
    yield Goal(f"start with {start.count:,}: all adopted", f"{adopted:.2f} s at worst", adopted, 3, 3, "s")
    yield Goal("and a namespace made at that instant usable", f"{first:.2f} s at worst", first, 0.5, 0.5, "s")


def _refresh(results: Results) -> Iterator[Goal]:
    refresh = results.refresh
    if refresh is not None:
        times = refresh.ours / refresh.dump
        told = f"{times:.2f} times; {refresh.ours * 1000:.0f} against {refresh.dump * 1000:.0f} ms"
        what = f"refresh of {refresh.entries:,} connections, against the kernel's dump"
        yield Goal(what, told, times, 1.5, 1.2, "times", is_ratio=True)
