"""Keeping what namespaces want for themselves in force, and their name servers current."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path

import structlog

from agent.config import Config
from agent.config.wishes import Wishes, load_wishes, runtime_wishes, stamps
from agent.reconciler.world import World

_log = structlog.get_logger()


def have_changed(world: World) -> bool:
    """Tell whether files have come or gone since wishes were read: an event may be on its way still."""
    return stamps(wish_directories(world.config)) != world.wish_stamps


def wish_directories(config: Config) -> tuple[Path, Path]:
    """Return where wishes are read from: the operator's directory, then the one of ``vethd new --network``."""
    return config.wishes, runtime_wishes(config.socket)


class Wishing:
    """Reads files again when they changed, and has those namespaces looked at whom it concerns."""

    def __init__(self, world: World, look_again: Callable[[Iterable[str]], None]) -> None:
        self._world = world
        self._look_again = look_again
        self._directories = wish_directories(world.config)
        self._busy = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def wishes_changed(self) -> None:
        """See WishSink."""
        self._start(self.reload())

    def resolvers_changed(self) -> None:
        """See ResolversSink."""
        self._start(self._refresh())

    def heard(self, source: str, events: int) -> None:
        """See Sink."""
        self._world.heard[source] = self._world.heard.get(source, 0) + events

    def dropped(self, source: str) -> None:
        """See Sink; what was lost can only concern files, so these are read again."""
        self._world.dropped[source] = self._world.dropped.get(source, 0) + 1
        self.wishes_changed()
        self.resolvers_changed()

    async def reload(self) -> None:
        """Read all wishes; those that differ take effect at once."""
        async with self._busy:
            world = self._world
            former = world.wishes or tuple(Wishes() for _ in self._directories)
            networks = world.config.networks
            as_of = stamps(self._directories)
            found = await asyncio.to_thread(
                lambda: tuple(
                    load_wishes(directory, networks, before)
                    for directory, before in zip(self._directories, former, strict=True)
                )
            )
            before = {record.path: world.wish_of(record.origin) for record in world.roster}
            for line in _news(former, found):
                _log.warning("wish not taken", reason=line)
            world.take_wishes(found)
            world.wish_stamps = as_of
            self._look_again(
                record.path for record in list(world.roster) if world.wish_of(record.origin) != before.get(record.path)
            )

    async def _refresh(self) -> None:
        if self._world.resolvers is not None:
            for remark in await asyncio.to_thread(self._world.resolvers.refresh):
                _log.warning("name servers not kept current", reason=remark)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _news(former: tuple[Wishes, ...], found: tuple[Wishes, ...]) -> list[str]:
    known = {line for wishes in former for line in wishes.problems.values()}
    return [line for wishes in found for line in wishes.problems.values() if line not in known]
