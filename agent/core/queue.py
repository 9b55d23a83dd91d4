"""The dirty set: which keys are to be looked at, and when.

A key is taken by one worker at a time; marked again meanwhile, it comes again afterwards,
so no wake-up is lost and no key is worked on twice at once. Time is an argument.
"""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class DirtySet(Generic[_Key]):
    """Keys with the time (seconds of any monotonic clock) from which on each is due."""

    def __init__(self) -> None:
        self._due: dict[_Key, float] = {}
        self._heap: list[tuple[float, int, _Key]] = []
        self._order = 0
        self._taken: set[_Key] = set()
        self._again: dict[_Key, float] = {}

    def __len__(self) -> int:
        return len(self._due) + len(self._taken)

    def __contains__(self, key: _Key) -> bool:
        return key in self._due or key in self._taken

    def add(self, key: _Key, due: float) -> None:
        """Mark a key; the earliest due time counts."""
        waiting = self._again if key in self._taken else self._due
        if key in waiting and waiting[key] <= due:
            return
        waiting[key] = due
        if waiting is self._due:
            self._order += 1
            heapq.heappush(self._heap, (due, self._order, key))

    def take(self, now: float) -> _Key | None:
        """Take the key that is due for longest, None when none is due; ``done`` must follow."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._taken.add(key)
                return key
        return None

    def done(self, key: _Key) -> None:
        """Give a taken key back."""
        self._taken.discard(key)
        if key in self._again:
            self.add(key, self._again.pop(key))

    def has_due(self, now: float) -> bool:
        """Tell whether a key is being worked on or due."""
        due = self.next_due()
        return bool(self._taken) or (due is not None and due <= now)

    def next_due(self) -> float | None:
        """Return when the next key is due, None when none waits."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
