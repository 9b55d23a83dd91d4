"""Attachments that cannot be taken down: told once, tried again and again."""

import random
import time
from dataclasses import dataclass
from typing import Final

from agent.core.roster import Incident, Record
from agent.errors import VethdError
from agent.model import Cookie
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.world import Part, World

_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 30.0
_PART: Final[Part] = "removal"


def retry_seconds(failures: int) -> float:
    """Return in how many seconds to try again after so many failures, from 1 on."""
    delay: float = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 20))
    return delay * random.uniform(0.75, 1.25)


@dataclass(slots=True)
class _Failing:
    failures: int
    reason: str


class Stuck:
    """Keeps count of them, and says so where an operator looks."""

    def __init__(self, world: World, bulletin: Bulletin) -> None:
        self._world = world
        self._bulletin = bulletin
        self._failing: dict[Cookie, _Failing] = {}

    def failed(self, cookie: Cookie, record: Record | None, error: VethdError) -> float:
        """Note a failure; return in how many seconds to try again.

        ``record`` is that of the name that the namespace had last, if it had one.
        """
        known = self._failing.setdefault(cookie, _Failing(0, ""))
        known.failures += 1
        if known.reason != str(error):
            known.reason = str(error)
            detail = f"cannot be taken down: {error}"
            for told in self._world.roster.told_of(record):
                told.tell(Incident(time.time(), "failed", detail))
            name = record.name if record is not None else self._world.name_of(cookie)
            self._bulletin.publish("failed", name=name, rule="", reason=detail)
        self._tell()
        return retry_seconds(known.failures)

    def done(self, cookie: Cookie) -> None:
        """Note that it is taken down."""
        if self._failing.pop(cookie, None) is not None:
            self._tell()

    def _tell(self) -> None:
        first = next(iter(self._failing.values()), None)
        if first is None:
            self._world.troubles.pop(_PART, None)
        else:
            self._world.troubles[_PART] = f"{len(self._failing)} cannot be taken down, first: {first.reason}"
