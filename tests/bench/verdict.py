"""What must hold on any machine, however slow or busy: ratios with a wide margin, and no lost first packet."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.contenders import Vethd
from tests.bench.peers import Cni, Script
from tests.bench.report import duel
from tests.bench.results import SLOW_CONNECT, Results, ratio

_AT_LEAST = {Script.title: 2.0, Cni.title: 5.0}
_LARGEST_GROWTH = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    statement: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.statement}"


def verdicts(results: Results) -> list[Verdict]:
    return [*_faster_than_peers(results), _growth(results), _first_packets(results), _burst(results)]


def _faster_than_peers(results: Results) -> Iterator[Verdict]:
    for session in results.sessions:
        for level in sorted({measured.level for measured in session}):
            for peer, times in _AT_LEAST.items():
                if pair := duel(session, level, peer):
                    found = ratio(pair[0].usable, pair[1].usable)
                    statement = f"at {level}, {peer} takes at least {times:g} times as long (it is {found:.1f})"
                    yield Verdict(statement, found >= times)


def _growth(results: Results) -> Verdict:
    first, last = results.alone.levels[0], results.alone.levels[-1]
    growth = ratio(last.usable, first.usable)
    statement = f"alone, from {first.level} to {last.level} it grows by less than {_LARGEST_GROWTH:g} times"
    return Verdict(f"{statement} (it is {growth:.2f})", growth < _LARGEST_GROWTH)


def _first_packets(results: Results) -> Verdict:
    connects = results.connects(Vethd.title)
    slow = sum(each.slow for each in connects)
    statement = f"no first packet waits more than {SLOW_CONNECT * 1000:.0f} ms ({slow} of {len(connects)} do)"
    return Verdict(statement, slow == 0)


def _burst(results: Results) -> Verdict:
    burst = results.alone.burst
    return Verdict(f"of {burst.count} at once none is networked twice, no address given twice", not burst.mistakes)
