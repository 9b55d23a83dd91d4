"""What happened, told to everyone who listens: log, watchers, those who wait for a name."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

Notice = Mapping[str, Any]
"""``time`` (seconds since the epoch), ``event``, and what belongs to it; values are JSON's."""

_WAITING_NOTICES: Final = 10_000


class Bulletin:
    """Hands every notice to every listener and subscriber. One that does not read loses the oldest.

    A subscriber may ask for one name alone: a thousand that wait cost no more than one.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[Notice], None]] = []
        self._subscribers: dict[str | None, set[asyncio.Queue[Notice]]] = {}

    def listen(self, listener: Callable[[Notice], None]) -> None:
        """Have ``listener`` called, at once, with every notice."""
        self._listeners.append(listener)

    def count(self, event: str, **details: object) -> None:
        """Tell the listeners alone: for what only matters in sums."""
        notice: Notice = {"time": time.time(), "event": event, **details}
        for listener in self._listeners:
            listener(notice)

    def publish(self, event: str, **details: object) -> None:
        """Tell everyone."""
        notice: Notice = {"time": time.time(), "event": event, **details}
        for listener in self._listeners:
            listener(notice)
        name = details.get("name")
        named = self._subscribers.get(name, ()) if isinstance(name, str) else ()
        for queue in (*self._subscribers.get(None, ()), *named):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(notice)

    @contextmanager
    def subscribe(self, name: str | None = None) -> Iterator[asyncio.Queue[Notice]]:
        """Hear everything, or all about one name, that is published until the block ends."""
        queue: asyncio.Queue[Notice] = asyncio.Queue(_WAITING_NOTICES)
        self._subscribers.setdefault(name, set()).add(queue)
        try:
            yield queue
        finally:
            self._subscribers[name].discard(queue)
            if not self._subscribers[name]:
                del self._subscribers[name]
