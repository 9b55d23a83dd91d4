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
    """Hands every notice to every listener and subscriber. One that does not read loses the oldest."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Notice], None]] = []
        self._subscribers: set[asyncio.Queue[Notice]] = set()

    def listen(self, listener: Callable[[Notice], None]) -> None:
        """Have ``listener`` called, at once, with every notice."""
        self._listeners.append(listener)

    def publish(self, event: str, **details: object) -> None:
        """Tell everyone."""
        notice: Notice = {"time": time.time(), "event": event, **details}
        for listener in self._listeners:
            listener(notice)
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(notice)

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[Notice]]:
        """Hear everything that is published from now on, until the block ends."""
        queue: asyncio.Queue[Notice] = asyncio.Queue(_WAITING_NOTICES)
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)
