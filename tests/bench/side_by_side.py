"""Contenders that take turns, trial by trial."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.bench.contenders import Contender, Vethd
from tests.bench.ground import Apart, Ground
from tests.bench.results import Measured, Trial
from tests.bench.sizes import Sizes

Say = Callable[[str], None]


def measure(contenders: Sequence[type[Contender]], sizes: Sizes, say: Say) -> list[Measured]:
    """Every contender at every level that it is measured at, in one go."""
    measured = []
    with ExitStack() as stack:
        grounds = [stack.enter_context(Apart(contender())) for contender in contenders]
        for level in sizes.levels:
            taking_part = [
                apart for apart in grounds if level in sizes.peer_levels or isinstance(apart.ground.contender, Vethd)
            ]
            say(f"{_titles(taking_part)}: making {level} namespaces each")
            filling = [apart.start(Ground.fill, level, sizes.fill_seconds) for apart in taking_part]
            there = [future.result() for future in filling]
            say(f"{_titles(taking_part)}: {sizes.trials} trials each with {', '.join(map(str, there))} there")
            trials = _take_turns(taking_part, sizes.warm_up + sizes.trials)
            measured += [
                Measured(apart.ground.contender.title, level, count, tuple(own[sizes.warm_up :]))
                for apart, count, own in zip(taking_part, there, trials, strict=True)
            ]
    return measured


def _take_turns(grounds: Sequence[Apart[Contender]], rounds: int) -> list[list[Trial]]:
    trials: list[list[Trial]] = [[] for _ in grounds]
    for number in range(rounds):
        # Who goes first changes, as whoever follows may feel what the one before has left to the kernel.
        for place in range(len(grounds)):
            turn = (number + place) % len(grounds)
            trials[turn].append(grounds[turn].start(Ground.trial).result())
    return trials


def _titles(grounds: Sequence[Apart[Contender]]) -> str:
    return ", ".join(apart.ground.contender.title for apart in grounds)
