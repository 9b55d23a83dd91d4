"""When somebody keeps undoing our repairs: then there is one a second at most, and it is told."""

import time
from collections.abc import Iterable
from typing import Final

CONTESTED: Final = "somebody keeps undoing what vethd repairs: it is repaired once a second at most"
DELAY_SECONDS: Final = 1.0
_REPAIRS: Final = 5
_WINDOW_SECONDS: Final = 10.0


def is_contested(repairs: Iterable[float]) -> bool:
    """Tell by the times of repairs (monotonic seconds) whether somebody is at work against them."""
    now = time.monotonic()
    return sum(1 for moment in repairs if now - moment < _WINDOW_SECONDS) >= _REPAIRS
