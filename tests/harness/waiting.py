"""Waiting for what no event tells of: look again until it is so, but not for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.02


def eventually(predicate: Callable[[], T], timeout: float, what: str) -> T:
    """The first true answer of `predicate`, asked at ever longer intervals of at most 20 ms.

    Fails with `what` (a statement that should have become true) after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what} (last answer: {answer!r})")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return answer


def always(predicate: Callable[[], object], seconds: float, what: str) -> None:
    """Fails with `what` unless `predicate` is true throughout the next `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not predicate():
            raise AssertionError(f"did not stay so for {seconds} s: {what}")
        time.sleep(_LONGEST_PAUSE)
