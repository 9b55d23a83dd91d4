"""What comes of working on a key."""

from dataclasses import dataclass
from typing import Literal

from agent.model import Cookie

Result = Literal["changed", "unchanged", "left", "failed", "waiting", "gone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a look: ``orphans`` are to be taken down, ``look`` are paths to look at,
    ``retry`` is in how many seconds to look at this one again."""

    result: Result
    orphans: tuple[Cookie, ...] = ()
    look: tuple[str, ...] = ()
    retry: float | None = None
