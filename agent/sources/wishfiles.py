"""The files of netns.d: told once they are quiet, since a file is rarely written alone or in one go."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from asyncinotify import Event, Inotify, Mask

from agent.sources.directories import WatchedDirectory

SOURCE: Final = "wishes"
_QUIET_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 0.5


class WishSink(Protocol):
    """What this source may say. Every call is cheap and may be repeated or come too late."""

    def wishes_changed(self) -> None:
        """Read the files again: they are other files, say something else, or have other permissions."""

    def heard(self, source: str, events: int) -> None:
        """So many events of a source were taken."""

    def dropped(self, source: str) -> None:
        """Events of a source were lost."""


class WishSource:
    """Watches the directory of wishes. What a symbolic link leads to is not watched, only the link."""

    def __init__(self, directory: Path, sink: WishSink) -> None:
        self._directory = WatchedDirectory(directory, Mask.CLOSE_WRITE | Mask.ATTRIB)
        self._sink = sink
        self._timer: asyncio.TimerHandle | None = None
        self._at_latest = 0.0
        self.watching = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; what is read after ``watching`` is set misses no change."""
        with Inotify(cache_size=64) as self._inotify:
            try:
                self._directory.rearm(self._inotify, self._rearm_soon)
                self.watching.set()
                while True:
                    self._on_event(await self._inotify.get())
            finally:
                if self._timer is not None:
                    self._timer.cancel()

    def _on_event(self, event: Event) -> None:
        self._sink.heard(SOURCE, 1)
        if Mask.Q_OVERFLOW in event.mask:
            self._sink.dropped(SOURCE)
            self._rearm()
            self._tell_soon()
        elif not self._directory.is_watched_by(event.watch):
            self._rearm()
        elif event.name is None:
            # The directory itself: gone, moved, or with other permissions.
            self._rearm()
            self._tell_soon()
        elif Mask.CREATE not in event.mask or not _will_be_closed(self._directory.path / event.name):
            self._tell_soon()

    def _rearm(self) -> None:
        if self._directory.rearm(self._inotify, self._rearm_soon):
            self._tell_soon()

    def _rearm_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._rearm)

    def _tell_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._at_latest = loop.time() + _LONGEST_SECONDS
        else:
            self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + _QUIET_SECONDS, self._at_latest), self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._sink.wishes_changed()


def _will_be_closed(path: Path) -> bool:
    """Tell whether somebody has just opened a new file, which is worth reading once it is written."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
