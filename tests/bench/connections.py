"""New connections a second through NAT: with many namespaces against one, and against a chain for each of them."""

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from agent.demo.uplink import BEYOND4
from tests.bench.contenders import Contender, Vethd
from tests.bench.ground import Apart, Ground
from tests.bench.results import Pair
from tests.bench.side_by_side import Say
from tests.bench.sizes import Sizes
from tests.bench.turns import pair
from tests.harness import observe

_PORT = 7100


def with_many_against_one(sizes: Sizes, program: Path, say: Say) -> Pair:
    with ExitStack() as stack:
        many, one = (stack.enter_context(Apart[Contender](Vethd())) for _ in range(2))
        say(f"connections: making {sizes.connection_level} namespaces, and one")
        for ground, level in ((many, sizes.connection_level), (one, 1)):
            ground.start(Ground.fill, level, sizes.fill_seconds).result()
        what = f"with {len(many.ground.names)} namespaces, against one"
        return _pair(what, (many, one), (-1, -1), sizes, program, say)


def beside_chains(
    ours: Apart[Contender], theirs: Apart[Contender], sizes: Sizes, program: Path, say: Say
) -> tuple[Pair, ...]:
    """vethd against somebody who has a chain for each namespace: from the newest one, and from one in the middle."""
    there = len(theirs.ground.names)
    wheres = {"the newest": (-1, -1), "the middle one": (len(ours.ground.names) // 2, there // 2)}
    title = theirs.ground.contender.title
    return tuple(
        _pair(f"from {where} of {there}, against {title}", (ours, theirs), places, sizes, program, say)
        for where, places in wheres.items()
    )


def _pair(
    what: str, grounds: Sequence[Apart[Contender]], places: Sequence[int], sizes: Sizes, program: Path, say: Say
) -> Pair:
    say(f"connections: {what}")

    def rate(which: int) -> float:
        return grounds[which].start(_rate, program, places[which], sizes.connection_count).result()

    return pair(what, sizes.connection_runs, partial(rate, 0), partial(rate, 1))


def _rate(ground: Ground[Contender], program: Path, place: int, count: int) -> float:
    # Those of the run before would be in the way of new ones with the same ports.
    observe.run("conntrack", "--flush")
    namespace = f"/run/netns/{ground.names[place]}"
    command = [str(program), namespace, str(ground.host.internet), BEYOND4, str(_PORT), str(count)]
    return count / int(subprocess.run(command, check=True, capture_output=True).stdout) * 1e9
