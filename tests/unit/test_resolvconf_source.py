"""Changes of the host's resolver files, however they are made: in place, by a new file, by a link, with a directory."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.sources.resolvconf import SOURCE, ResolvConfSource

TIMEOUT = 5.0


class Ear:
    """A sink that counts."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.changes = 0
        self.events = 0

    def resolvers_changed(self) -> None:
        self.changes += 1
        self.told.set()

    def heard(self, source: str, events: int) -> None:
        assert source == SOURCE
        self.events += events

    def dropped(self, source: str) -> None:
        raise AssertionError(f"events of {source} were lost")

    async def hears(self) -> None:
        """Wait until a change was told since the last time."""
        async with asyncio.timeout(TIMEOUT):
            await self.told.wait()
        self.told.clear()


class Place:
    """Where the files are: /etc and /run of a host, the latter without its directories."""

    def __init__(self, root: Path) -> None:
        self.etc = root / "etc" / "resolv.conf"
        self.behind = root / "run" / "systemd" / "resolve" / "resolv.conf"
        self.etc.parent.mkdir()
        (root / "run").mkdir()
        self.etc.write_text("nameserver 192.0.2.53\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
async def ear(place: Place) -> AsyncIterator[Ear]:
    ear = Ear()
    source = ResolvConfSource((place.etc, place.behind), ear)
    task = asyncio.create_task(source.run())
    await source.watching.wait()
    await ear.hears()
    yield ear
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def rewrite(place: Place) -> None:
    place.etc.write_text("nameserver 198.51.100.1\n")


def replace(place: Place) -> None:
    draft = place.etc.with_suffix(".new")
    draft.write_text("nameserver 198.51.100.1\n")
    draft.replace(place.etc)


def link(place: Place) -> None:
    draft = place.etc.with_suffix(".new")
    draft.symlink_to("../run/stub.conf")
    draft.replace(place.etc)


def remove(place: Place) -> None:
    place.etc.unlink()


def come_late(place: Place) -> None:
    place.behind.parent.mkdir(parents=True)
    place.behind.touch()


WAYS = [rewrite, replace, link, remove, come_late]


@pytest.mark.parametrize("change", WAYS)
async def test_a_change_is_told(place: Place, ear: Ear, change: Callable[[Place], None]) -> None:
    change(place)
    await ear.hears()
    assert ear.events


async def test_a_burst_is_told_once_it_is_over(place: Place, ear: Ear) -> None:
    for _ in range(50):
        rewrite(place)
        replace(place)
    await ear.hears()
    assert ear.changes < 10


@pytest.mark.parametrize("base", ["", ".."])
async def test_what_a_link_leads_to_is_watched(place: Place, ear: Ear, base: str) -> None:
    """A link to a file that is not there yet, in a directory that is not there yet; whole, or from where it stands."""
    target = place.behind.with_name("stub.conf")
    place.etc.unlink()
    place.etc.symlink_to(base / target.relative_to(place.etc.parent.parent) if base else target)
    await ear.hears()
    target.parent.mkdir(parents=True)
    await ear.hears()
    target.write_text("nameserver 127.0.0.53\n")
    await ear.hears()
    target.write_text("nameserver 127.0.0.54\n")
    await ear.hears()


async def test_a_directory_that_is_replaced_is_watched_again(place: Place, ear: Ear) -> None:
    for _ in range(3):
        come_late(place)
        await ear.hears()
        place.behind.write_text("nameserver 198.51.100.1\n")
        await ear.hears()
        shutil.rmtree(place.behind.parent.parent)
        await ear.hears()


async def test_other_files_are_nothing(place: Place, ear: Ear) -> None:
    for name in ("hosts", "resolv.conf.bak"):
        (place.etc.parent / name).write_text("x")
    (place.etc.parent / "netns").mkdir()
    # What comes after them is heard, so they were heard as well.
    rewrite(place)
    await ear.hears()
    # Written in place, a file is opened, emptied, and closed.
    assert ear.events == 1


async def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    ear = Ear()
    source = ResolvConfSource([tmp_path / "a"], ear)
    task = asyncio.create_task(source.run())
    await source.watching.wait()
    await ear.hears()
    (tmp_path / "b").unlink()
    await ear.hears()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
