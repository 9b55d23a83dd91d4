"""Two ways to do the same, in turns."""

from collections.abc import Callable

from tests.bench.results import Pair


def pair(what: str, runs: int, ours: Callable[[], float], theirs: Callable[[], float]) -> Pair:
    """After one run of each that does not count; who goes first changes."""
    found: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        for place in (0, 1) if run % 2 else (1, 0):
            rate = (ours, theirs)[place]()
            if run > 0:
                found[place].append(rate)
    return Pair(what, tuple(found[0]), tuple(found[1]))
