"""Work that costs the same for one as for fifty who ask at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class Turns(Generic[_Result]):
    """Does a piece of work again and again, one turn at a time, once for all who asked before it began.

    Nobody gets what is older than their question, and who goes away takes nothing from the others.
    """

    def __init__(self, work: Callable[[], Awaitable[_Result]]) -> None:
        self._work = work
        self._at_work = asyncio.Lock()
        self._next: asyncio.Task[_Result] | None = None

    async def take(self) -> _Result:
        """Wait for the next turn and return what came of it. Raises what the work raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._turn())
            self._next.add_done_callback(_look_at)
        return await asyncio.shield(self._next)

    async def _turn(self) -> _Result:
        async with self._at_work:
            self._next = None
            return await self._work()


def _look_at(turn: "asyncio.Task[_Result]") -> None:
    """Keep asyncio from complaining of a failure for which nobody is left to hear."""
    if not turn.cancelled():
        turn.exception()
