"""Contenders that take turns, trial by trial."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.bench.contenders import Contender
from tests.bench.ground import Apart, Ground
from tests.bench.results import Measured, Trial
from tests.bench.sizes import Sizes

Say = Callable[[str], None]


def measure(
    contenders: Sequence[type[Contender]], levels: Sequence[int], sizes: Sizes, say: Say
) -> tuple[Measured, ...]:
    """Every contender at every level."""
    measured: list[Measured] = []
    titles = ", ".join(contender.title for contender in contenders)
    with ExitStack() as stack:
        grounds = [stack.enter_context(Apart(contender())) for contender in contenders]
        for level in levels:
            say(f"{titles}: making {level} namespaces each")
            filling = [apart.start(Ground.fill, level, sizes.fill_seconds) for apart in grounds]
            there = [future.result() for future in filling]
            say(f"{titles}: {sizes.trials} trials each with {', '.join(map(str, there))} there")
            trials = _take_turns(grounds, sizes.warm_up + sizes.trials)
            measured += [
                Measured(contender.title, level, count, tuple(own[sizes.warm_up :]))
                for contender, count, own in zip(contenders, there, trials, strict=True)
            ]
    return tuple(measured)


def _take_turns(grounds: Sequence[Apart[Contender]], rounds: int) -> list[list[Trial]]:
    trials: list[list[Trial]] = [[] for _ in grounds]
    for number in range(rounds):
        # Who goes first changes, as whoever follows may feel what the one before has left to the kernel.
        for place in range(len(grounds)):
            turn = (number + place) % len(grounds)
            trials[turn].append(grounds[turn].start(Ground.trial).result())
    return trials
