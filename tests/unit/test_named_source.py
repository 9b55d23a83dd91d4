"""Named namespaces: what a listing says that is out of date by the time it is compared."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from agent.sources import named
from agent.sources.named import NamedSource
from agent.sources.sink import Sink

WITHIN = 5.0


class Told:
    """A sink that notes what it is told, and what a look would find then."""

    def __init__(self, namespaces: set[str]) -> None:
        self.placeholders: list[str] = []
        self.looks: list[tuple[str, bool]] = []
        self._namespaces = namespaces
        self.more = asyncio.Event()

    def placeholder(self, path: str) -> None:
        self.placeholders.append(path)
        self.more.set()

    def look(self, path: str) -> None:
        self.looks.append((path, path in self._namespaces))

    def heard(self, source: str, events: int) -> None:
        pass

    def known_paths(self) -> set[str]:
        return {*self.placeholders, *(path for path, _ in self.looks)}


class Place:
    """A directory that is watched, and which of its files are namespaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.namespaces: set[str] = set()
        self.told = Told(self.namespaces)
        self.source = NamedSource([path], self.namespaces.__contains__, cast(Sink, self.told))

    async def make(self, name: str) -> str:
        """A file that is no namespace yet, and known as such."""
        path = str(self.path / name)
        os.close(os.open(path, os.O_CREAT))
        async with asyncio.timeout(WITHIN):
            while path not in self.told.placeholders:
                await self.told.more.wait()
                self.told.more.clear()
        return path

    async def list_again(self, monkeypatch: pytest.MonkeyPatch, present: set[str]) -> None:
        """List the directory, with an answer from before what happened meanwhile."""
        with monkeypatch.context() as patch:
            patch.setattr(self.source, "_survey", lambda _: (present, present & self.namespaces))
            await self.source._list_aside()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    running = asyncio.create_task(place.source.run())
    await place.source.listed.wait()
    yield place
    running.cancel()
    await asyncio.wait([running])


async def test_a_name_that_was_made_during_a_listing_is_looked_at_once_it_is_a_namespace(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await place.make("web")
    await place.list_again(monkeypatch, present=set())
    place.namespaces.add(path)
    place.source._on_mount()
    assert (path, True) in place.told.looks


async def test_a_name_that_is_gone_is_told_by_a_listing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await place.make("web")
    os.unlink(path)
    await place.list_again(monkeypatch, present=set())
    assert (path, False) in place.told.looks


async def test_a_listing_finds_what_became_a_namespace_unnoticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await place.make("web")
    place.namespaces.add(path)
    await place.list_again(monkeypatch, present={path})
    assert place.told.looks == [(path, True)]


@pytest.fixture
async def surveys(place: Place, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Queue[float]":
    """When the directory was listed; what takes seconds takes a fraction of that."""
    monkeypatch.setattr(named, "_QUIET_SECONDS", 0.2)
    monkeypatch.setattr(named, "_LONGEST_SECONDS", 1.0)
    loop, found = asyncio.get_running_loop(), asyncio.Queue[float]()

    def survey(_: Path) -> tuple[set[str], set[str]]:
        loop.call_soon_threadsafe(found.put_nowait, loop.time())
        return set(), set()

    monkeypatch.setattr(place.source, "_survey", survey)
    return found


async def mounts(place: Place, seconds: float) -> float:
    """Mounts come and go without a pause; when the last did."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        place.source._on_mount()
        await asyncio.sleep(0.01)
    return place.source._last_mount


async def test_what_was_unmounted_is_looked_for_once_it_is_quiet(place: Place, surveys: "asyncio.Queue[float]") -> None:
    last = await mounts(place, 0.5)
    assert surveys.empty()
    async with asyncio.timeout(WITHIN):
        assert await surveys.get() >= last + 0.2


async def test_where_it_is_never_quiet_it_is_looked_for_now_and_then(
    place: Place, surveys: "asyncio.Queue[float]"
) -> None:
    await mounts(place, 2.5)
    assert 1 <= surveys.qsize() <= 2
