"""Every call to the kernel fails in turn while a namespace comes and goes: it waits, and heals by itself."""

import itertools
from collections.abc import Callable

from agent.demo.isolation import add_named, delete_named
from tests.harness import observe
from tests.harness.expect import why_not_working
from tests.harness.refusals import Refusals
from tests.harness.remains import remains
from tests.harness.waiting import eventually
from tests.soak.stage import STEADY, Stage

# Besides what the kernel answers: system calls that fail, and an answer that never comes.
CODES = (
    "ENOBUFS", "EBUSY", "ENOMEM", "EEXIST", "ENODEV", "EPERM", "EINTR", "send-ENOBUFS", "receive-ENOBUFS", "SILENCE",
)  # fmt: skip
_MOST_CALLS = 90
_HEALED = 8.0


def sweep(stage: Stage, refusals: Refusals, shift: int, times: int = 1) -> tuple[int, list[str]]:
    """The n-th call fails, and as many of the next as make it ``times``, for each n.

    With one error after the other, from the ``shift``-th on. How many calls there were, and what was wrong.
    """
    wrongs: list[str] = []
    for number in itertools.count():
        assert number < _MOST_CALLS, "it never came to an end"
        code = CODES[(number + shift) % len(CODES)]
        refusals.begin(code, skip=number, count=times)
        wrongs += [f"{code} at call {number}: {line}" for line in _live_and_die(stage, f"x{number}")]
        if not refusals.struck():
            break
    refusals.end()
    return number, wrongs


def _live_and_die(stage: Stage, name: str) -> list[str]:
    agent = stage.agent
    add_named(name)
    found = [] if _becomes(lambda: agent.namespaces().get(name, {}).get("state") == "ready") else ["never ready"]
    if not found and (why := why_not_working(name)):
        found.append(f"does not work: {why}")
    delete_named(name)
    there = len(STEADY)
    if not _becomes(lambda: set(agent.namespaces()) == set(STEADY) and len(observe.host_ends()) == there):
        found.append("never gone")
    if not _becomes(lambda: not remains(agent)):
        found += [f"left over: {line}" for line in remains(agent)]
    return found


def _becomes(predicate: Callable[[], bool]) -> bool:
    try:
        eventually(predicate, _HEALED, "it heals")
    except AssertionError:
        return False
    return True
