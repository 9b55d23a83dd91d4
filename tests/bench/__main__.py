"""The benchmark's door."""

import argparse
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.errors import VethdError
from tests.bench import machine, plot
from tests.bench.goals import goals
from tests.bench.report import render
from tests.bench.run import Run
from tests.bench.sizes import FULL, QUICK
from tests.bench.verdict import verdicts

_RESULTS = Path(__file__).resolve().parents[2] / "bench-results"
_BEGIN = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure vethd beside its peers.")
    parser.add_argument("--quick", action="store_true", help="in 2 minutes; fails when ratios are off by wide margins")
    quick: bool = parser.parse_args().quick
    # So that whatever was made is taken down then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = machine.load()
    run = Run(QUICK if quick else FULL, _say)
    try:
        results = run.measure()
    except VethdError as error:
        print(f"cannot be measured here: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    took = f"took {time.monotonic() - _BEGIN:.0f} s; load before and after: {load}, {machine.load()}"
    found = goals(results)
    judged = verdicts(results, found) if quick else []
    facts = "\n".join(f"- {fact}" for fact in (*judged, *machine.describe(), took))
    text = "\n\n".join(filter(None, [render(results, found), run.watching, facts]))
    picture = plot.draw(results) if results.growth.levels else ""
    print(text)
    _say(f"written to {_write(text, picture)}")
    return int(bool(results.failures) or not all(verdict.holds for verdict in judged))


def _write(text: str, picture: str) -> Path:
    _RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = _RESULTS / f"{now:%Y-%m-%d-%H%M%S}.md"
    if picture:
        path.with_suffix(".svg").write_text(picture)
    path.write_text(f"# Measured {now:%Y-%m-%d %H:%M} UTC\n\n![usable]({path.stem}.svg)\n\n{text}\n")
    return path


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _BEGIN:4.0f} s] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
