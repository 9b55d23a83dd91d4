"""vethd alone, with ever more namespaces, beside the floor; then what the crowd costs while nothing happens."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from tests.bench import crowd
from tests.bench.contenders import Vethd
from tests.bench.floor import Floor
from tests.bench.ground import Ground
from tests.bench.results import Connects, FloorTrial, Growth, Level, Measured, Trial
from tests.bench.side_by_side import Say
from tests.bench.sizes import Sizes

T = TypeVar("T")
# As network.bridge_ports is by default: whoever comes when so many are there is routed.
_PORTS = 1000
_CALM_SECONDS = 3.0


class Attempt(Protocol):
    """Do a part of a measurement; None when it failed, which was told then."""

    def __call__(self, what: str, part: Callable[[], T]) -> T | None: ...


def measure(sizes: Sizes, program: Path | None, say: Say, attempt: Attempt) -> Growth:
    with ExitStack() as stack:
        ground = stack.enter_context(Ground(Vethd()))
        floor = stack.enter_context(Floor(program, ground)) if program else None
        levels = [
            attempt(f"vethd with {level}", partial(_level, ground, floor, level, sizes, say)) for level in sizes.levels
        ]
        found = start = None
        if sizes.rest_seconds:
            say(f"vethd: {sizes.rest_seconds:g} s of rest with {len(ground.names)}, and scrapes")
            found = attempt("rest", partial(crowd.rest, ground, sizes))
        if sizes.adopted:
            ground.delete_and_wait(ground.names[sizes.adopted :])
            say(f"vethd: starts with {len(ground.names)}")
            start = attempt("starts", partial(crowd.starts, ground, sizes.starts))
    return Growth(tuple(level for level in levels if level is not None), found, start)


def _level(ground: Ground[Vethd], floor: Floor | None, level: int, sizes: Sizes, say: Say) -> Level:
    say(f"vethd: making {level} namespaces")
    connects = ground.fill(level, sizes.fill_seconds)
    if len(ground.names) < level:
        say(f"vethd: ONLY {len(ground.names)} of {level} after {sizes.fill_seconds:g} s")
    # What was done so fast leaves work to the kernel and to the agent.
    time.sleep(_CALM_SECONDS)
    say(f"vethd and the floor in turns: {sizes.trials} trials each with {len(ground.names)} there")
    trials, least = _take_turns(ground, floor, sizes, routed=level >= _PORTS)
    connects += _first_packets(ground, sizes.extra)
    measured = Measured(Vethd.title, level, len(ground.names), tuple(trials), tuple(connects))
    return Level(measured, tuple(least), crowd.resident(ground))


def _take_turns(
    ground: Ground[Vethd], floor: Floor | None, sizes: Sizes, *, routed: bool
) -> tuple[list[Trial], list[FloorTrial]]:
    trials, least = [], []
    for number in range(sizes.warm_up + sizes.trials):
        trials.append(ground.trial())
        if floor is not None:
            least.append(floor.trial(routed=routed, connecting=number == 0))
    return trials[sizes.warm_up :], least[sizes.warm_up :]


def _first_packets(ground: Ground[Vethd], count: int) -> list[Connects]:
    """The newest goes again, as a port that is free would go to the next."""
    connects = []
    for _ in range(count):
        connects.append(ground.add())
        ground.delete(ground.names[-1:])
    return connects
