"""What is made of figures: what was reached, what must hold anywhere, and the picture. Nothing is measured here."""

from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.bench.contenders import Vethd
from tests.bench.goals import Goal, goals
from tests.bench.peers import Cni
from tests.bench.plot import draw
from tests.bench.report import render
from tests.bench.results import Burst, Connects, FloorTrial, Growth, Level, Measured, Pair, Results, Trial, p99
from tests.bench.verdict import verdicts

QUICK = Connects(0.0001, 0.0001)


def measured(contender: str, level: int, usable: float, connects: Connects = QUICK) -> Measured:
    return Measured(contender, level, level, (Trial(usable, connects, 0.001, 0.002),) * 3, (QUICK,))


def results(ours: float = 0.002, theirs: float = 0.040, floor: float = 0.001, connects: Connects = QUICK) -> Results:
    levels = tuple(
        Level(measured(Vethd.title, level, ours, connects), (FloorTrial(floor, floor),) * 3, 1 << 26)
        for level in (100, 1000)
    )
    session = (measured(Vethd.title, 10, ours), measured(Cni.title, 10, theirs))
    streams = (Pair("from here to there", (9e9, 9e9), (1e10, 1e10)),)
    burst = Burst(10, 0.1, 0.2, 0.1, 0.1, (0.001,), ())
    return Results((session,), Growth(levels, None, None), (burst,), streams, (), None, (), ())


def goal(found: Results, what: str) -> Goal:
    (wanted,) = [each for each in goals(found) if what in each.what]
    return wanted


def broken(found: Results) -> list[str]:
    return [verdict.statement for verdict in verdicts(found, goals(found)) if not verdict.holds]


@pytest.mark.parametrize(("theirs", "told"), [(0.010, "**NO**"), (0.030, "yes"), (0.060, "as aimed")])
def test_a_goal_says_how_far_it_was_reached(theirs: float, told: str) -> None:
    assert goal(results(theirs=theirs), "CNI").verdict == told


def test_lower_is_better_for_times_and_higher_for_rates() -> None:
    found = results(ours=0.0032)
    assert goal(found, "usable, 100 there").verdict == "**NO**"
    assert goal(found, "usable, 1,000 there").verdict == "yes"
    assert goal(found, "TCP").verdict == "**NO**"


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (results(), 0),
        (results(ours=1.0, theirs=20.0, floor=0.2), 0),
        (results(theirs=0.011), 0),
        (results(theirs=0.009), 1),
        (results(floor=0.0002), 2),
        (results(connects=Connects(1.01, 1.01)), 1),
        (replace(results(), bursts=(Burst(10, 0.1, 0.2, 0.1, 0.1, (9.0,), ("n1 has 2 devices",)),)), 1),
        (replace(results(), throughput=(Pair("", (4e9,), (1e10,)),)), 1),
        (replace(results(), failures=("bursts: TimeoutError()",)), 1),
    ],
    ids=[
        "good",
        "slow machine",
        "in the margin",
        "CNI",
        "floor",
        "lost packets",
        "mistakes",
        "throughput",
        "broke off",
    ],
)
def test_ratios_must_hold_anywhere_by_twice_the_margin_and_no_time_must(found: Results, count: int) -> None:
    assert len(broken(found)) == count


def test_what_is_missing_is_left_out_and_said() -> None:
    remark = "CNI bridge is not measured: it is not there"
    found = replace(results(), sessions=(), growth=Growth((), None, None), throughput=(), remarks=(remark,))
    text = render(found, goals(found))
    assert "faster than" not in text
    assert "usable, " not in text
    assert f"- {remark}" in text


def test_the_picture_shows_everybody() -> None:
    root = ElementTree.fromstring(draw(results()))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for title in (Vethd.title, "raw netlink in C", Cni.title):
        assert [text for text in texts if text.startswith(f"{title}: ")]


@pytest.mark.parametrize(("values", "expected"), [([3.0, 1.0, 2.0], 3.0), ([*map(float, range(1, 201))], 198.0)])
def test_the_99th_percentile_is_by_nearest_rank(values: Sequence[float], expected: float) -> None:
    assert p99(values) == expected
