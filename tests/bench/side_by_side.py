"""Contenders that take turns, trial by trial."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.bench.contenders import Contender
from tests.bench.ground import Apart, Ground
from tests.bench.results import Measured, Session, Trial
from tests.bench.sizes import Sizes

Say = Callable[[str], None]


def measure(
    contenders: Sequence[type[Contender]],
    sizes: Sizes,
    say: Say,
    at_last: Callable[[Sequence[Apart[Contender]]], None],
) -> Session:
    """Every contender at every level; `at_last` is called while all are at the last one."""
    measured: list[Measured] = []
    with ExitStack() as stack:
        grounds = [stack.enter_context(Apart(contender())) for contender in contenders]
        for level in sizes.peer_levels:
            measured += _level(grounds, level, sizes, say)
        at_last(grounds)
    return tuple(measured)


def _level(grounds: Sequence[Apart[Contender]], level: int, sizes: Sizes, say: Say) -> list[Measured]:
    titles = [apart.ground.contender.title for apart in grounds]
    say(f"{', '.join(titles)}: making {level} namespaces each")
    filling = [apart.start(Ground.fill, level, sizes.fill_seconds) for apart in grounds]
    on_the_way = [future.result() for future in filling]
    there = [len(apart.ground.names) for apart in grounds]
    say(f"{', '.join(titles)}: {sizes.peer_trials} trials each with {', '.join(map(str, there))} there")
    trials = _take_turns(grounds, sizes.warm_up + sizes.peer_trials)
    return [
        Measured(title, level, count, tuple(own[sizes.warm_up :]), tuple(first))
        for title, count, own, first in zip(titles, there, trials, on_the_way, strict=True)
    ]


def _take_turns(grounds: Sequence[Apart[Contender]], rounds: int) -> list[list[Trial]]:
    trials: list[list[Trial]] = [[] for _ in grounds]
    for number in range(rounds):
        # Who goes first changes, as whoever follows may feel what the one before has left to the kernel.
        for place in range(len(grounds)):
            turn = (number + place) % len(grounds)
            trials[turn].append(grounds[turn].start(Ground.trial).result())
    return trials
