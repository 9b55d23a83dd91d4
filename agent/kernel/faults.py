"""Faults on purpose, for tests: off unless the environment asks."""

import os
import signal
from collections.abc import Callable
from typing import Final

from agent.core.steps import Step

KILL_AFTER: Final = "VETHD_FAULT_KILL_AFTER"


def on_step() -> Callable[[Step], None] | None:
    """Return what to call after every kernel step; None when no fault is asked for.

    With VETHD_FAULT_KILL_AFTER=N the process ends by SIGKILL right after its N-th step.
    """
    wanted = os.environ.get(KILL_AFTER)
    if not wanted:
        return None
    left = int(wanted)

    def count(_: Step) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return count
