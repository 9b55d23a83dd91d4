"""The directory of wishes is watched: every change is told, once it is done, and nothing else is."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree

import pytest

from agent.sources.wishfiles import SOURCE, WishSource

PATIENCE = 5


class Sink:
    """Keeps what it is told, and wakes who waits for it."""

    def __init__(self) -> None:
        self.changes = 0
        self.events = 0
        self.lost = 0
        self._told = asyncio.Event()

    def wishes_changed(self) -> None:
        self.changes += 1
        self._told.set()

    def heard(self, source: str, events: int) -> None:
        assert source == SOURCE
        self.events += events
        self._told.set()

    def dropped(self, source: str) -> None:
        assert source == SOURCE
        self.lost += 1

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                self._told.clear()
                await self._told.wait()

    async def change(self, cause: Callable[[], object]) -> None:
        """Do something, and wait until a change is told."""
        before = self.changes
        cause()
        await self.until(lambda: self.changes > before)


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[Sink]:
    sink = Sink()
    source = WishSource(directory, sink)
    task = asyncio.create_task(source.run())
    try:
        await asyncio.wait_for(source.watching.wait(), PATIENCE)
        yield sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "netns.d"
    path.mkdir()
    (path / "web.toml").write_text("mtu = 1400\n")
    return path


def _replace_by_rename(directory: Path) -> None:
    (directory / "web.toml.new").write_text("mtu = 1401\n")
    (directory / "web.toml.new").rename(directory / "web.toml")


CHANGES: dict[str, Callable[[Path], object]] = {
    "written anew": lambda directory: (directory / "web.toml").write_text("mtu = 1401\n"),
    "another one": lambda directory: (directory / "db.toml").write_text("mtu = 1401\n"),
    "replaced": _replace_by_rename,
    "removed": lambda directory: (directory / "web.toml").unlink(),
    "renamed": lambda directory: (directory / "web.toml").rename(directory / "db.toml"),
    "moved away": lambda directory: (directory / "web.toml").rename(directory.parent / "web.toml"),
    "a symbolic link": lambda directory: (directory / "db.toml").symlink_to("web.toml"),
    "a hard link": lambda directory: (directory / "db.toml").hardlink_to(directory / "web.toml"),
    "permissions": lambda directory: (directory / "web.toml").chmod(0o600),
    "permissions of the directory": lambda directory: directory.chmod(0o700),
    "the directory renamed": lambda directory: directory.rename(directory.with_name("away")),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_is_told(directory: Path, change: str) -> None:
    async with watching(directory) as sink:
        await sink.change(lambda: CHANGES[change](directory))


async def test_what_changes_together_is_told_once(directory: Path) -> None:
    async with watching(directory) as sink:
        await sink.change(lambda: [(directory / f"n{number}.toml").write_text("") for number in range(50)])
        # Each makes two events; the next change is told after all of them.
        await sink.until(lambda: sink.events >= 100)
        await sink.change((directory / "n0.toml").unlink)
        assert sink.changes == 2


async def test_a_file_is_not_told_of_while_it_is_written(directory: Path) -> None:
    async with watching(directory) as sink:
        with (directory / "db.toml").open("w") as file:
            file.write("mtu =")
            file.flush()
            await sink.until(lambda: sink.events == 1)
            # Longer than it waits for quiet.
            await asyncio.sleep(0.1)
            assert sink.changes == 0
        await sink.until(lambda: sink.changes == 1)


async def test_reading_is_no_change(directory: Path) -> None:
    async with watching(directory) as sink:
        for _ in range(10):
            assert (directory / "web.toml").read_text()
            assert os.listdir(directory)
        await sink.change((directory / "web.toml").unlink)
        assert (sink.events, sink.changes) == (1, 1)


async def test_what_never_rests_is_told_all_the_same(directory: Path) -> None:
    async with watching(directory) as sink:
        async with asyncio.timeout(PATIENCE):
            while not sink.changes:
                (directory / "web.toml").write_text("mtu = 1401\n")
                await asyncio.sleep(0.002)


async def test_a_directory_that_is_made_later_is_watched_then(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b" / "netns.d"
    async with watching(directory) as sink:
        await sink.change(lambda: directory.mkdir(parents=True))
        await sink.change(lambda: (directory / "web.toml").write_text(""))


async def test_neighbours_of_a_missing_directory_are_no_change(tmp_path: Path) -> None:
    async with watching(tmp_path / "netns.d") as sink:
        (tmp_path / "vethd.toml").write_text("")
        (tmp_path / "vethd.toml").unlink()
        await sink.until(lambda: sink.events == 2)
        await sink.change((tmp_path / "netns.d").mkdir)
        assert sink.changes == 1


async def test_a_directory_that_is_replaced_is_watched_anew(directory: Path) -> None:
    other = directory.with_name("other")
    other.mkdir()
    async with watching(directory) as sink:
        await sink.change(lambda: (directory.rename(directory.with_name("old")), other.rename(directory)))
        await sink.change(lambda: (directory / "db.toml").write_text(""))
        # What has been moved away is nobody's any more.
        before = sink.events
        (directory.with_name("old") / "web.toml").unlink()
        await sink.change((directory / "db.toml").unlink)
        assert sink.events == before + 1


async def test_a_directory_that_is_removed_and_made_again_is_watched_anew(directory: Path) -> None:
    async with watching(directory) as sink:
        for _ in range(3):
            await sink.change(lambda: rmtree(directory))
            await sink.change(directory.mkdir)
            await sink.change(lambda: (directory / "web.toml").write_text(""))


async def test_lost_events_are_told_as_a_change(directory: Path) -> None:
    def overflow() -> None:
        # Events of the same kind that follow each other are merged, so two kinds take turns.
        for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())):
            (directory / "web.toml").chmod(0o600)
            (directory / "web.toml").write_text("")

    async with watching(directory) as sink:
        await sink.change(overflow)
        await sink.until(lambda: sink.lost > 0)
