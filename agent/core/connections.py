"""Connections of every namespace: how many it opened and accepted ever, and what is in the table now."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.model import Cookie

Flows = Counter[tuple[Cookie, str, str]]
"""Number of conntrack entries by namespace, protocol and state."""


@dataclass(slots=True)
class _Count:
    """One direction's counter: all that was counted, and the kernel's counter as it was read last."""

    sum: int = 0
    last: int = 0

    def note(self, value: int) -> None:
        # A smaller value is a counter that began anew.
        self.sum += value - self.last if value >= self.last else value
        self.last = value


class Connections:
    """Counters by namespace never go backwards while it lives, whatever becomes of the kernel's sets.

    ``refreshes`` counts how often the table was read.
    """

    def __init__(self) -> None:
        self.refreshes = 0
        self._counts: dict[Cookie, tuple[_Count, _Count]] = {}
        self._now: dict[Cookie, dict[tuple[str, str], int]] = {}

    def note(self, cookie: Cookie, opened: int, accepted: int) -> None:
        """Take the kernel's counters of a namespace."""
        counts = self._counts.get(cookie)
        if counts is None:
            counts = self._counts[cookie] = (_Count(), _Count())
        counts[0].note(opened)
        counts[1].note(accepted)

    def note_flows(self, flows: Flows) -> None:
        """Take what conntrack's table holds, in place of what it held."""
        self.refreshes += 1
        self._now = {}
        for (cookie, protocol, state), count in flows.items():
            self._now.setdefault(cookie, {})[protocol, state] = count

    def counted(self, cookie: Cookie) -> tuple[int, int]:
        """Return how many connections a namespace opened and accepted."""
        counts = self._counts.get(cookie)
        return (0, 0) if counts is None else (counts[0].sum, counts[1].sum)

    def entries(self, cookie: Cookie) -> Mapping[tuple[str, str], int]:
        """Return a namespace's entries by protocol and state, as of the last refresh."""
        return self._now.get(cookie, {})

    def total(self, cookie: Cookie) -> int:
        """Return how many entries a namespace has, as of the last refresh."""
        entries = self._now.get(cookie)
        return sum(entries.values()) if entries else 0

    def close(self, cookie: Cookie, opened: int = 0, accepted: int = 0) -> tuple[int, int]:
        """End a namespace's counting with the kernel's last counters; return the sums."""
        if opened or accepted:
            self.note(cookie, opened, accepted)
        sums = self.counted(cookie)
        self._counts.pop(cookie, None)
        self._now.pop(cookie, None)
        return sums
