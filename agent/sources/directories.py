"""Watching a directory that may be missing, come later, be unmounted or replaced.

After every event that may have done that, the identity of what its path leads to is compared
with the one that is watched (inotify(7) watches inodes, not paths).
"""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from asyncinotify import Inotify, Mask, Watch

_NAMES: Final = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
_SELF: Final = Mask.DELETE_SELF | Mask.MOVE_SELF
_Identity = tuple[int, int]


class WatchedDirectory:
    """One directory, watched for names that come and go, and for what else ``more`` says."""

    def __init__(self, path: Path, more: Mask = Mask.ZERO) -> None:
        self.path = path
        self._mask = _NAMES | _SELF | Mask.ONLYDIR | more
        self._identity: _Identity | None = None
        self._watch: Watch | None = None

    def is_watched_by(self, watch: Watch | None) -> bool:
        """Tell whether an event of this watch is one of the directory, not of what is above it."""
        return watch is not None and watch is self._watch

    def rearm(self, inotify: Inotify, later: Callable[[], None]) -> bool:
        """Watch what the path leads to now; return whether that may be another directory than before.

        While it is missing, the nearest directory above that is there is watched. ``later`` is
        called when one of those calls came too late to be seen by its watch.
        """
        identity = _identity(self.path)
        former = self._identity
        if identity is not None and identity == former:
            return False
        if self._watch is not None:
            _drop(inotify, self._watch)
        self._identity, self._watch = identity, None
        if identity is not None:
            try:
                self._watch = inotify.add_watch(self.path, self._mask)
            except OSError:
                self._identity = None
        if self._identity is None:
            self._watch_ancestor(inotify, later)
        return identity is not None or former is not None

    def _watch_ancestor(self, inotify: Inotify, later: Callable[[], None]) -> None:
        for ancestor in self.path.parents:
            try:
                inotify.add_watch(ancestor, _NAMES | _SELF | Mask.ONLYDIR | Mask.MASK_ADD)
            except OSError:
                continue
            if self.path.is_dir():
                # It came between the look and the watch.
                later()
            return


def _drop(inotify: Inotify, watch: Watch) -> None:
    try:
        inotify.rm_watch(watch)
    except OSError:
        # The kernel dropped it already, with the directory.
        return


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
