"""The benchmark's door."""

import argparse
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.errors import VethdError
from tests.bench import alone, machine, scrapes, side_by_side
from tests.bench.contenders import Contender, Vethd
from tests.bench.ground import Ground
from tests.bench.peers import PEERS, PeerFailed
from tests.bench.report import render
from tests.bench.results import Results
from tests.bench.sizes import FULL, QUICK, Sizes
from tests.bench.verdict import verdicts

_RESULTS = Path(__file__).resolve().parents[2] / "bench-results"
# Three contenders with 900 namespaces each: the kernel frees namespaces one by one, so more make it crawl.
_PEERS_A_SESSION = 2
_WATCHED = 1000
_WATCH_TRIALS = 40
_BEGIN = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure vethd beside its peers.")
    parser.add_argument("--quick", action="store_true", help="in 2 minutes; fails when ratios are off by wide margins")
    quick: bool = parser.parse_args().quick
    # So that whatever was made is taken down then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = machine.load()
    try:
        results = _measure(QUICK if quick else FULL)
        watching = "" if quick else scrapes.render(scrapes.measure(_WATCHED, _WATCH_TRIALS, _say))
    except VethdError as error:
        print(f"cannot be measured here: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    facts = [*machine.describe(), f"load before and after: {load}, {machine.load()}"]
    found = verdicts(results)
    text = "\n\n".join([render(results), watching, "\n".join(f"- {each}" for each in (*found, *facts))])
    print(text)
    _say(f"written to {_write(text)}")
    return int(quick and not all(verdict.holds for verdict in found))


def _measure(sizes: Sizes) -> Results:
    missing = {peer: reason for peer in PEERS if (reason := _why_not(peer))}
    remarks = tuple(f"{peer.title} is not measured: {reason}" for peer, reason in missing.items())
    for remark in remarks:
        _say(remark)
    # First, so that whatever is wrong with the agent shows before the peers have taken their minutes.
    ours = alone.measure(sizes, _say)
    peers = [peer for peer in PEERS if peer not in missing]
    groups = [peers[start : start + _PEERS_A_SESSION] for start in range(0, len(peers), _PEERS_A_SESSION)]
    sessions = [side_by_side.measure((Vethd, *group), sizes.peer_levels, sizes, _say) for group in groups]
    return Results(tuple(sessions), ours, remarks)


def _why_not(peer: type[Contender]) -> str:
    """One trial tells whether a peer works here at all."""
    if peer.program is not None and not peer.program.exists():
        return f"there is no {peer.program}"
    try:
        with Ground(peer()) as ground:
            ground.trial()
    except PeerFailed as failure:
        return str(failure)
    return ""


def _write(text: str) -> Path:
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / ".gitignore").write_text("*\n")
    now = datetime.now(UTC)
    path = _RESULTS / f"{now:%Y-%m-%d-%H%M%S}.md"
    path.write_text(f"# Measured {now:%Y-%m-%d %H:%M} UTC\n\n{text}\n")
    return path


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _BEGIN:4.0f} s] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
