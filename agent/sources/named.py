"""Named namespaces: files in watched directories that a namespace is mounted on.

inotify tells of names, mount events tell that a name became a namespace. A directory may
be missing, come later, be unmounted or replaced: after every event that may have done
that, its identity is compared with the one that is watched.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from asyncinotify import Event, Inotify, Mask, Watch

from agent.sources.mounts import MountEvents
from agent.sources.sink import Sink

SOURCE: Final = "inotify"
MOUNTS: Final = "mounts"
_NAMES: Final = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
_SELF: Final = Mask.DELETE_SELF | Mask.MOVE_SELF
_LOOK_AGAIN_SECONDS: Final = 1.0
_Identity = tuple[int, int]


class NamedSource:
    """Watches directories for named namespaces."""

    def __init__(self, directories: Iterable[Path], is_namespace: Callable[[str], bool], sink: Sink) -> None:
        self._directories = {directory: _Directory(directory) for directory in directories}
        self._is_namespace = is_namespace
        self._sink = sink
        self._pending: set[str] = set()
        self._again: asyncio.TimerHandle | None = None
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
        for directory in self._directories.values():
            self._list(directory)

    def _on_event(self, event: Event) -> None:
        self._sink.heard(SOURCE, 1)
        if Mask.Q_OVERFLOW in event.mask:
            self._sink.dropped(SOURCE)
            self._rearm()
            self.list_all()
            return
        directory = self._directory_of(event.watch)
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
            self._pending.discard(path)
            self._sink.look(path)
        self._rearm()
        if not became and self._again is None:
            # A mount went, or came where nothing was expected: perhaps a name of ours lost
            # its namespace. Look once things are quiet, at most once a second.
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(_LOOK_AGAIN_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._looking = asyncio.create_task(self._list_aside(), name="look again")

    async def _list_aside(self) -> None:
        """List everything, with the file system's work done in a thread."""
        for directory in self._directories.values():
            self._compare(directory, *await asyncio.to_thread(self._survey, directory.path))

    def _tell(self, path: str) -> None:
        if self._is_namespace(path):
            self._pending.discard(path)
            self._sink.look(path)
        elif _is_file(path):
            self._pending.add(path)
            self._sink.placeholder(path)

    def _rearm(self) -> None:
        for directory in self._directories.values():
            identity = _identity(directory.path)
            if identity is not None and identity == directory.identity:
                continue
            self._watch(directory, identity)
            self._list(directory)

    def _watch(self, directory: "_Directory", identity: _Identity | None) -> None:
        if directory.watch is not None:
            self._drop(directory.watch)
        directory.identity, directory.watch = identity, None
        if identity is not None:
            try:
                directory.watch = self._inotify.add_watch(directory.path, _NAMES | _SELF | Mask.ONLYDIR)
            except OSError:
                directory.identity = None
        if directory.identity is None:
            self._watch_ancestor(directory)

    def _watch_ancestor(self, directory: "_Directory") -> None:
        """Watch the nearest directory above that is there, so that its coming is seen."""
        for ancestor in directory.path.parents:
            try:
                self._inotify.add_watch(ancestor, _NAMES | _SELF | Mask.ONLYDIR | Mask.MASK_ADD)
            except OSError:
                continue
            if directory.path.is_dir():
                # It came between the look and the watch.
                asyncio.get_running_loop().call_soon(self._rearm)
            return

    def _drop(self, watch: Watch) -> None:
        try:
            self._inotify.rm_watch(watch)
        except OSError:
            # The kernel dropped it already, with the directory.
            return

    def _list(self, directory: "_Directory") -> None:
        self._compare(directory, *self._survey(directory.path))

    def _survey(self, directory: Path) -> tuple[set[str], set[str]]:
        """Return the paths in a directory, and those of them that are namespaces."""
        try:
            present = {os.path.join(directory, name) for name in os.listdir(directory)}
        except OSError:
            return set(), set()
        return present, {path for path in present if self._is_namespace(path)}

    def _compare(self, directory: "_Directory", present: set[str], namespaces: set[str]) -> None:
        """Tell what differs from what is known; what changed since is told by its own events."""
        prefix = f"{directory.path}{os.sep}"
        known = {path for path in self._sink.known_paths() | self._pending if path.startswith(prefix)}
        for path in known - present:
            self._pending.discard(path)
            self._sink.look(path)
        for path in present - known:
            self._tell(path)
        for path in (present & known) - self._pending - namespaces:
            self._pending.add(path)
            self._sink.look(path)

    def _directory_of(self, watch: Watch | None) -> "_Directory | None":
        if watch is None:
            return None
        return next((each for each in self._directories.values() if each.watch is watch), None)


class _Directory:
    """One watched directory; ``identity`` is that of the inode which ``watch`` watches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity: _Identity | None = None
        self.watch: Watch | None = None


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
