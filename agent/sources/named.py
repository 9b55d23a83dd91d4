"""Named namespaces: files in watched directories that a namespace is mounted on.

inotify tells of names, mount events tell that a name became a namespace.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from asyncinotify import Event, Inotify, Mask

from agent.sources.directories import WatchedDirectory
from agent.sources.mounts import MountEvents
from agent.sources.sink import Sink

SOURCE: Final = "inotify"
MOUNTS: Final = "mounts"
_QUIET_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 30.0


class NamedSource:
    """Watches directories for named namespaces."""

    def __init__(self, directories: Iterable[Path], is_namespace: Callable[[str], bool], sink: Sink) -> None:
        self._directories = [WatchedDirectory(directory) for directory in dict.fromkeys(directories)]
        self._is_namespace = is_namespace
        self._sink = sink
        self._pending: set[str] = set()
        self._again: asyncio.TimerHandle | None = None
        self._last_mount = 0.0
        self._looking: asyncio.Task[None] | None = None
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; ``listed`` is set once everything there at start was told."""
        loop = asyncio.get_running_loop()
        with Inotify(cache_size=256) as self._inotify:
            mounts = MountEvents(self._on_mount)
            mounts.start(loop)
            try:
                self._rearm()
                self.listed.set()
                while True:
                    self._on_event(await self._inotify.get())
            finally:
                mounts.close(loop)
                if self._again is not None:
                    self._again.cancel()
                if self._looking is not None:
                    self._looking.cancel()

    def list_all(self) -> None:
        """Tell of everything that is there, and of everything known that is not."""
        for directory in self._directories:
            self._list(directory)

    def _on_event(self, event: Event) -> None:
        self._sink.heard(SOURCE, 1)
        if Mask.Q_OVERFLOW in event.mask:
            self._sink.dropped(SOURCE)
            self._rearm()
            self.list_all()
            return
        directory = next((each for each in self._directories if each.is_watched_by(event.watch)), None)
        if directory is None or event.name is None:
            self._rearm()
            return
        path = os.path.join(directory.path, event.name)
        if event.mask & (Mask.DELETE | Mask.MOVED_FROM):
            self._pending.discard(path)
            self._sink.look(path)
        else:
            self._tell(path)

    def _on_mount(self) -> None:
        self._sink.heard(MOUNTS, 1)
        became = [path for path in self._pending if self._is_namespace(path)]
        for path in became:
            self._tell_of_namespace(path)
        self._rearm()
        loop = asyncio.get_running_loop()
        self._last_mount = loop.time()
        if not became and self._again is None:
            # A mount went, or came where nothing was expected: perhaps a name of ours lost its namespace.
            self._again = loop.call_later(_QUIET_SECONDS, self._look_when_quiet, self._last_mount + _LONGEST_SECONDS)

    def _look_when_quiet(self, at_last: float) -> None:
        """List everything, which takes the longer the more there is, once no mount comes or goes any more."""
        loop = asyncio.get_running_loop()
        quiet = min(self._last_mount + _QUIET_SECONDS, at_last)
        if loop.time() < quiet:
            self._again = loop.call_at(quiet, self._look_when_quiet, at_last)
            return
        self._again = None
        self._looking = asyncio.create_task(self._list_aside(), name="look again")

    async def _list_aside(self) -> None:
        """List everything, with the file system's work done in a thread."""
        for directory in self._directories:
            self._compare(directory, *await asyncio.to_thread(self._survey, directory.path))

    def _tell(self, path: str) -> None:
        if self._is_namespace(path):
            self._tell_of_namespace(path)
        elif _is_file(path):
            self._pending.add(path)
            self._sink.placeholder(path)

    def _tell_of_namespace(self, path: str) -> None:
        self._pending.discard(path)
        self._sink.look(path)

    def _rearm(self) -> None:
        for directory in self._directories:
            if directory.rearm(self._inotify, self._rearm_soon):
                self._list(directory)

    def _rearm_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._rearm)

    def _list(self, directory: WatchedDirectory) -> None:
        self._compare(directory, *self._survey(directory.path))

    def _survey(self, directory: Path) -> tuple[set[str], set[str]]:
        """Return the paths in a directory, and those of them that are namespaces."""
        try:
            present = {os.path.join(directory, name) for name in os.listdir(directory)}
        except OSError:
            return set(), set()
        return present, {path for path in present if self._is_namespace(path)}

    def _compare(self, directory: WatchedDirectory, present: set[str], namespaces: set[str]) -> None:
        """Tell what differs from what is known; what changed since is told by its own events."""
        prefix = f"{directory.path}{os.sep}"
        known = {path for path in self._sink.known_paths() | self._pending if path.startswith(prefix)}
        for path in known - present:
            # One that was made since is waited for.
            if not os.path.lexists(path):
                self._pending.discard(path)
                self._sink.look(path)
        for path in namespaces - known | namespaces & self._pending:
            self._tell_of_namespace(path)
        for path in present - known - namespaces:
            self._tell(path)
        for path in (present & known) - self._pending - namespaces:
            self._pending.add(path)
            self._sink.look(path)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
