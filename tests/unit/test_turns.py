"""Many who ask at once share one turn, and nobody gets what is older than their question."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.export.turns import Turns


class Work:
    """Takes as long as the test likes; returns how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return number


def run(story: Callable[[Work, Turns[int]], Awaitable[None]]) -> None:
    async def told() -> None:
        work = Work()
        await story(work, Turns(work))

    asyncio.run(told())


async def ask(turns: Turns[int], times: int) -> list[asyncio.Task[int]]:
    """Have so many ask, and let them get as far as they get."""
    asking = [asyncio.create_task(turns.take()) for _ in range(times)]
    for _ in range(3):
        await asyncio.sleep(0)
    return asking


def test_fifty_at_once_are_one_turn() -> None:
    async def story(work: Work, turns: Turns[int]) -> None:
        asking = await ask(turns, 50)
        work.go_on.set()
        assert await asyncio.gather(*asking) == [1] * 50

    run(story)


def test_who_asks_while_a_turn_is_on_gets_the_next() -> None:
    async def story(work: Work, turns: Turns[int]) -> None:
        first = await ask(turns, 1)
        late = await ask(turns, 50)
        assert work.begun == 1, "one turn at a time"
        work.go_on.set()
        assert await asyncio.gather(*first, *late) == [1] + [2] * 50

    run(story)


def test_who_goes_away_takes_nothing_from_the_others() -> None:
    async def story(work: Work, turns: Turns[int]) -> None:
        gone, stays = await ask(turns, 2)
        gone.cancel()
        work.go_on.set()
        assert await stays == 1
        assert gone.cancelled()

    run(story)


def test_a_failure_is_told_to_all_and_ends_with_its_turn() -> None:
    async def story(work: Work, turns: Turns[int]) -> None:
        asking = await ask(turns, 3)
        work.error = ValueError("no counters")
        work.go_on.set()
        assert await asyncio.gather(*asking, return_exceptions=True) == [work.error] * 3
        work.error = None
        assert await turns.take() == 2

    run(story)


def test_a_failure_that_nobody_waits_for_is_no_mistake() -> None:
    async def story(work: Work, turns: Turns[int]) -> None:
        mistakes: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context))
        (gone,) = await ask(turns, 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        work.error = ValueError("no counters")
        work.go_on.set()
        with pytest.raises(ValueError, match="no counters"):
            await turns.take()
        assert mistakes == []

    run(story)
