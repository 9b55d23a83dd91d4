"""Changes of the files that name the host's name servers.

They are replaced, links turned to other files, directories made late: so what is watched is every
directory on the way to them, by inotify(7), for the one name that leads on.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from asyncinotify import Event, Inotify, Mask, Watch

SOURCE: Final = "resolvconf"
_ENTRIES: Final = Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.CLOSE_WRITE
_SELF: Final = Mask.DELETE_SELF | Mask.MOVE_SELF
# Whoever writes one file often writes the other too, and a new one is empty at first.
_TOGETHER_SECONDS: Final = 0.1
_MOST_LINKS: Final = 40  # MAXSYMLINKS of the kernel
_ARMINGS: Final = 3


class ResolversSink(Protocol):
    """What this source may say; every call is cheap and may be repeated."""

    def resolvers_changed(self) -> None:
        """Read the files again: one of them may say something else now."""

    def heard(self, source: str, events: int) -> None:
        """So many events of a source were taken."""

    def dropped(self, source: str) -> None:
        """Events of a source were lost."""


class ResolvConfSource:
    """Watches files, whether they are there or not."""

    def __init__(self, paths: Iterable[Path], sink: ResolversSink) -> None:
        self._paths = tuple(paths)
        self._sink = sink
        self._watches: dict[Path, tuple[Watch, frozenset[str]]] = {}
        self._later: asyncio.TimerHandle | None = None
        self.watching = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; ``watching`` is set once no change is missed, and the files are worth a first look."""
        with Inotify(cache_size=64) as self._inotify:
            self._arm()
            self._sink.resolvers_changed()
            self.watching.set()
            try:
                while True:
                    self._on_event(await self._inotify.get())
            finally:
                if self._later is not None:
                    self._later.cancel()

    def _on_event(self, event: Event) -> None:
        if Mask.Q_OVERFLOW in event.mask:
            self._sink.dropped(SOURCE)
        elif Mask.IGNORED in event.mask or not self._concerns(event):
            return
        else:
            self._sink.heard(SOURCE, 1)
        self._arm()
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, self._tell)

    def _tell(self) -> None:
        self._later = None
        self._sink.resolvers_changed()

    def _concerns(self, event: Event) -> bool:
        names = [names for watch, names in self._watches.values() if watch is event.watch]
        # Without a name it is the watched directory itself that went.
        return event.name is None or any(str(event.name) in each for each in names)

    def _arm(self) -> None:
        """Watch what leads to the files now; again when that changed meanwhile."""
        for _ in range(_ARMINGS):
            wanted = self._wanted()
            former, self._watches = self._watches, {}
            for directory, names in wanted.items():
                try:
                    # One that is watched already gives the same watch; one that was replaced a new one.
                    watch = self._inotify.add_watch(directory, _ENTRIES | _SELF | Mask.ONLYDIR)
                except OSError:
                    continue
                self._watches[directory] = (watch, names)
            kept = {watch.wd for watch, _ in self._watches.values()}
            for watch, _ in former.values():
                if watch.wd not in kept:
                    self._drop(watch)
            if self._wanted() == wanted:
                return

    def _drop(self, watch: Watch) -> None:
        try:
            self._inotify.rm_watch(watch)
        except OSError:
            # The kernel dropped it already, with the directory.
            return

    def _wanted(self) -> dict[Path, frozenset[str]]:
        """Return the directories to watch, and the names in each that lead on."""
        wanted: dict[Path, set[str]] = {}
        for path in self._paths:
            for directory, name in _way(path):
                wanted.setdefault(directory, set()).add(name)
        return {directory: frozenset(names) for directory, names in wanted.items()}


def _way(path: Path) -> Iterator[tuple[Path, str]]:
    """Where a path, and every link that it leads to, stands: the nearest directory there is, and the name in it."""
    for _ in range(_MOST_LINKS):
        below = path
        while not below.parent.is_dir():
            below = below.parent
        yield below.parent, below.name
        try:
            path = Path(os.path.normpath(os.path.join(os.path.realpath(path.parent), os.readlink(path))))
        except OSError:
            return
