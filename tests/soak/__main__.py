"""`make soak`: all of it, one after the other, with a fixed seed; a table at the end."""

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness.refusals import Refusals
from tests.soak.crowd import gather
from tests.soak.deaths import die
from tests.soak.lives import resident
from tests.soak.stage import Stage
from tests.soak.storm import rage
from tests.soak.sweep import CODES, sweep
from tests.soak.table import Row, render

_LIVES, _DEATHS, _CROWD = 10_000, 300, 3000
_A_FEW = 250
_MOST_GROWTH = 0.05
# Of the time that there is; what is done sooner leaves its rest to the storm.
_CHURN, _DEATH, _REFUSAL, _STORM = 0.3, 0.35, 0.6, 0.9
_BEGIN = time.monotonic()


class Soak:
    """The rows of the table, as they come; ``minutes`` for all of it."""

    def __init__(self, minutes: float, seed: int) -> None:
        self._seconds = minutes * 60
        self._seed = seed
        self._wrongs: list[str] = []
        self.rows: list[Row] = []

    def run(self) -> None:
        for part in (self._churn, self._deaths, self._refusals, self._crowd, self._storm):
            part()

    def _churn(self) -> None:
        goes_on = self._until(_CHURN)
        with self._stage() as stage:
            sizes: list[tuple[int, int]] = []
            while stage.lives.made < _LIVES and goes_on():
                stage.lives.live(_A_FEW)
                self._note("churn", stage.wrongs())
                sizes.append((stage.lives.made, resident(stage.agent)))
                _say(f"{stage.lives.made} namespaces have come, {len(stage.lives.names)} are there; {sizes[-1][1]} kB")
            stage.lives.end()
            wrongs = self._note("churn", stage.wrongs() + stage.leaks() + stage.unexplained())
            self._add("namespaces that came and went", stage.lives.made, wrongs)
            for way, count in stage.lives.ways.most_common():
                self._add(f"- {way}", count, 0)
            self._add("packets of those that stayed", stage.beats(), stage.lost(), "of 4 streams")
            self._add_growth(sizes)

    def _add_growth(self, sizes: list[tuple[int, int]]) -> None:
        """Memory of the second half: what is remembered of names that are gone has an end before."""
        half = [size for made, size in sizes if made >= sizes[-1][0] / 2]
        growth = half[-1] / half[0] - 1
        wrong = growth > _MOST_GROWTH and sizes[-1][0] >= _LIVES
        self._add("memory in the second half", len(half), int(wrong), f"{half[0]} to {half[-1]} kB, {growth:+.1%}")

    def _deaths(self) -> None:
        goes_on = self._until(_DEATH)
        seconds: list[float] = []
        with self._stage() as stage:
            while len(seconds) < _DEATHS and goes_on():
                deaths = die(stage, min(10, _DEATHS - len(seconds)), self._seed + len(seconds))
                self._note("death", deaths.wrongs)
                seconds += deaths.seconds
                _say(f"{len(seconds)} deaths")
            wrongs = self._note("death", stage.wrongs() + stage.unexplained())
            told = f"all is right again after {statistics.median(seconds):.2f} s, {max(seconds):.2f} s at the longest"
            self._add("deaths by SIGKILL under churn", len(seconds), wrongs, told)
            self._add("packets of those that stayed", stage.beats(), stage.lost(), "of 4 streams")

    def _refusals(self) -> None:
        goes_on = self._until(_REFUSAL)
        calls = 0
        with tempfile.TemporaryDirectory() as directory:
            refusals = Refusals(Path(directory))
            with self._stage(refusals) as stage:
                for times in (1, 2):
                    for shift in range(len(CODES)):
                        if not goes_on():
                            break
                        count, wrongs = sweep(stage, refusals, shift, times)
                        self._note("refusal", wrongs)
                        calls += count
                        _say(f"{calls} calls refused")
                wrongs_left = self._note("refusal", stage.wrongs() + stage.leaks() + stage.mistakes())
                self._add("calls that the kernel refused", calls, wrongs_left, f"by {len(CODES)} errors in turn")
                self._add("packets of those that stayed", stage.beats(), stage.lost(), "of 4 streams")

    def _crowd(self) -> None:
        count = _CROWD if self._seconds >= 1200 else _CROWD // 10
        with tempfile.TemporaryDirectory() as directory:
            crowd = gather(Path(directory), count)
        wrongs = self._note("crowd", crowd.wrongs)
        told = f"networked in {crowd.networked_seconds:.1f} s, adopted in {crowd.adopted_seconds:.1f} s"
        self._add("namespaces there at the start", count, wrongs, told)

    def _storm(self) -> None:
        with self._stage() as stage:
            storm = rage(stage, self._seed, self._until(_STORM, _tell_now_and_then("storm")))
            stage.lives.end()
            wrongs = self._note("storm", storm.wrongs + stage.wrongs() + stage.leaks() + stage.mistakes())
            self._add("others' hands on it, and deaths, at once", storm.deeds.total(), wrongs)
            for deed, count in storm.deeds.most_common():
                self._add(f"- {deed}", count, 0)
            self._add("namespaces that came and went meanwhile", stage.lives.made, 0)
            self._add("packets of those that nobody touched", stage.beats(), storm.lost, "of 4 streams")

    @contextlib.contextmanager
    def _stage(self, refusals: Refusals | None = None) -> Iterator[Stage]:
        environment = refusals.environment if refusals else None
        with tempfile.TemporaryDirectory() as directory, Stage(Path(directory), self._seed, environment) as stage:
            yield stage

    def _until(self, share: float, tell: Callable[[], None] = lambda: None) -> Callable[[], bool]:
        deadline = _BEGIN + share * self._seconds

        def goes_on() -> bool:
            tell()
            return time.monotonic() < deadline

        return goes_on

    def _note(self, part: str, wrongs: list[str]) -> int:
        for line in wrongs:
            _say(f"WRONG: {part}: {line}")
        self._wrongs += [f"{part}: {line}" for line in wrongs]
        return sum(line.startswith(f"{part}: ") for line in self._wrongs)

    def _add(self, what: str, tried: int, wrong: int, remark: str = "") -> None:
        self.rows.append(Row(what, tried, wrong, remark))

    def holds(self) -> bool:
        """Whether nothing at all was wrong."""
        return not self._wrongs and not any(row.wrong for row in self.rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Nothing lost, nothing leaked.")
    parser.add_argument("--minutes", type=float, default=30.0, help="for all of it (30); shorter, less is tried")
    parser.add_argument("--seed", type=int, default=20, help="of all chance (20)")
    options = parser.parse_args()
    # So that whatever was made is taken down then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    soak = Soak(options.minutes, options.seed)
    try:
        soak.run()
    except KeyboardInterrupt:
        return 130
    finally:
        print(render(soak.rows))
    verdict = "nothing lost" if soak.holds() else "NOT as it should be"
    print(f"\nseed {options.seed}, {(time.monotonic() - _BEGIN) / 60:.1f} minutes: {verdict}")
    return 0 if soak.holds() else 1


def _tell_now_and_then(what: str) -> Callable[[], None]:
    told = [0]

    def tell() -> None:
        told[0] += 1
        if told[0] % 10 == 0:
            _say(f"{what}: {told[0]} rounds")

    return tell


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _BEGIN:4.0f} s] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
