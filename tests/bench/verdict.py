"""What must hold on any machine, however slow or busy: ratios with twice the margin, and no lost first packet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.contenders import Vethd
from tests.bench.goals import Goal
from tests.bench.results import LOST_CONNECT, Results

_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    statement: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.statement}"


def verdicts(results: Results, goals: Sequence[Goal]) -> list[Verdict]:
    broken = [Verdict(f"every part comes to its end: {failure}", holds=False) for failure in results.failures]
    return [*broken, *_ratios(goals), _first_packets(results), *_bursts(results)]


def _ratios(goals: Sequence[Goal]) -> Iterator[Verdict]:
    for goal in goals:
        if goal.is_ratio and goal.least is not None:
            bound = goal.least / _MARGIN if goal.higher else goal.least * _MARGIN
            limit = "at least" if goal.higher else "at most"
            statement = f"{goal.what}: {limit} {bound:.3g} {goal.unit}".rstrip() + f" (it is {goal.value:.3g})"
            yield Verdict(statement, goal.reaches(bound))


def _first_packets(results: Results) -> Verdict:
    connects = results.connects(Vethd.title)
    lost = sum(each.slowest > LOST_CONNECT for each in connects)
    return Verdict(f"no first packet is lost ({lost} of {len(connects)} are)", lost == 0)


def _bursts(results: Results) -> Iterator[Verdict]:
    for burst in results.bursts:
        statement = f"of {burst.count} at once none is networked twice, no address given twice"
        yield Verdict(statement, not burst.mistakes)
