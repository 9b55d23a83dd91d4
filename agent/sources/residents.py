"""Who lives in which network namespace: one representative for each, and whoever may follow it.

A namespace without a name is reached through a process that is in it. That process is watched
by a pidfd (pidfd_open(2)); when it ends, another one of the same namespace takes its place.
Everything here runs on one thread.
"""

import errno
import os
import select
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.origin import origin_of
from agent.kernel import procfs
from agent.kernel.realm import Realm
from agent.model import Origin

_MOST_OTHERS: Final = 64
# Enough of the processes of one namespace to tell whether they are our business.
_ASKED: Final = 8


@dataclass(slots=True)
class _Space:
    """A namespace: ``pidfd`` watches its representative, and is None once that has ended.

    ``others`` are processes that were seen in it, the earliest first.
    """

    inode: int
    origin: Origin
    pid: int
    pidfd: int | None
    others: dict[int, None]


class Residents:
    """Finds out from process ids what is new; says it through the two callbacks.

    ``gone`` gets the path of an Origin that ``appeared`` got before, once nobody is known who
    could follow. ``poller`` is given the pidfds; who polls it hands them to ``ended``.
    """

    def __init__(
        self,
        realm: Realm,
        is_known: Callable[[int], bool],
        poller: select.epoll,
        appeared: Callable[[Origin], None],
        gone: Callable[[str], None],
    ) -> None:
        self._realm = realm
        self._is_known = is_known
        self._poller = poller
        self._appeared = appeared
        self._gone = gone
        self._self = os.getpid()
        self._spaces: dict[int, _Space] = {}
        self._by_pid: dict[int, _Space] = {}
        self._by_pidfd: dict[int, _Space] = {}
        self.out_of_files = False
        """Whether a namespace was passed over since the process may open no more files."""

    @property
    def some_are_orphans(self) -> bool:
        """Whether the representative of a namespace has ended, and only a look at all processes tells who follows."""
        return len(self._by_pidfd) < len(self._spaces)

    def look(self, pids: Iterable[int]) -> None:
        """Look where these processes are: what every event costs."""
        outside = self._realm.outside
        standing = []
        for pid in pids:
            if pid in self._by_pid:
                standing.append(pid)
                continue
            inode = procfs.netns_of(pid)
            if inode is not None and inode not in outside:
                self._place(pid, inode)
        # Last, as its child may be among them: a daemon's first process ends once that is made.
        for pid in standing:
            self._check(pid)

    def refresh(self, pids: Iterable[int]) -> None:
        """Look again at what is known of these processes: they run another program, or are called otherwise."""
        for pid in pids:
            space = self._by_pid.get(pid)
            if space is None:
                continue
            process = procfs.describe(pid)
            if process is None or _ended(space.pidfd):
                continue
            origin = origin_of(process, space.origin.path)
            if origin != space.origin:
                space.origin = origin
                self._appeared(origin)

    def ended(self, pidfd: int) -> None:
        """Look for who follows a representative that has ended."""
        space = self._by_pidfd.get(pidfd)
        # The number of a pidfd that was closed since may be another one's already.
        if space is not None and _ended(pidfd):
            self._bereave(space)

    def compare(self, found: dict[int, list[int]]) -> None:
        """Take in what a look at all processes has found."""
        there = {
            inode: [pid for pid in found[inode] if pid != self._self] for inode in found.keys() - self._realm.outside
        }
        # First of all who could follow whom, and then who has moved: that is given up at once.
        for inode in there.keys() & self._spaces.keys():
            self._spaces[inode].others = dict.fromkeys(there[inode][:_MOST_OTHERS])
        for pid in list(self._by_pid):
            self._check(pid)
        for inode, pids in there.items():
            space = self._spaces.get(inode)
            if space is None:
                self._welcome(inode, pids)
            elif space.pidfd is None:
                self._succeed(space)

    def bury(self, found: dict[int, list[int]]) -> None:
        """Give up what a look at all processes has not found, unless somebody was seen there since."""
        for inode in self._spaces.keys() - found.keys():
            space = self._spaces.get(inode)
            if space is not None and not _stands(space):
                self._give_up(space)

    def close(self) -> None:
        """Close all pidfds."""
        for pidfd in self._by_pidfd:
            os.close(pidfd)
        self._by_pidfd.clear()

    def _check(self, pid: int) -> None:
        """Look where a representative is; or who has its number now, if it has ended."""
        inode = procfs.netns_of(pid)
        space = self._by_pid.get(pid)
        if inode is not None:
            self._place(pid, inode)
        elif space is not None and space.pidfd is not None:
            self._bereave(space)

    def _place(self, pid: int, inode: int) -> None:
        self._part(pid, inode)
        # Threads of our own that are inside somewhere come back.
        if inode in self._realm.outside or pid == self._self:
            return
        space = self._spaces.get(inode)
        if space is None:
            self._welcome(inode, (pid,))
        elif space.pid != pid or space.pidfd is None:
            self._note(space, pid)

    def _part(self, pid: int, inode: int) -> None:
        """Give up what this process stood for, if that is not where it is."""
        former = self._by_pid.get(pid)
        if former is not None and former.inode != inode:
            self._give_up(former)

    def _welcome(self, inode: int, pids: Sequence[int]) -> None:
        if not self._is_known(inode) and any(self._realm.includes(pid, inode) for pid in pids[:_ASKED]):
            self._settle(inode, pids, dict.fromkeys(pids[:_MOST_OTHERS]))

    def _note(self, space: _Space, pid: int) -> None:
        space.others[pid] = None
        if space.pidfd is None:
            self._succeed(space)
        elif len(space.others) > _MOST_OTHERS:
            there = [other for other in space.others if procfs.netns_of(other) == space.inode]
            space.others = dict.fromkeys(there[: _MOST_OTHERS // 2])

    def _settle(self, inode: int, candidates: Iterable[int], others: dict[int, None]) -> bool:
        """Make the first that can be had the representative."""
        for pid in candidates:
            former = self._by_pid.get(pid)
            if former is not None and former.inode != inode:
                # It has moved here, and has to be given up there first.
                continue
            pidfd = self._open(pid)
            if pidfd is None:
                continue
            process = procfs.describe(pid)
            # Still watched by the pidfd: so all this was about one process.
            if process is None or procfs.netns_of(pid) != inode or _ended(pidfd):
                os.close(pidfd)
                continue
            space = _Space(inode, origin_of(process, procfs.netns_path(pid)), pid, pidfd, others)
            self._spaces[inode] = self._by_pid[pid] = self._by_pidfd[pidfd] = space
            self._poller.register(pidfd, select.EPOLLIN)
            self._appeared(space.origin)
            return True
        return False

    def _open(self, pid: int) -> int | None:
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            self.out_of_files |= error.errno in (errno.EMFILE, errno.ENFILE)
            return None

    def _bereave(self, space: _Space) -> None:
        if space.pidfd is not None:
            self._poller.unregister(space.pidfd)
            del self._by_pidfd[space.pidfd]
            os.close(space.pidfd)
            space.pidfd = None
        self._succeed(space)

    def _succeed(self, space: _Space) -> bool:
        """Have another one represent the namespace; the new is told before the old is taken back."""
        if not self._settle(space.inode, list(space.others), space.others):
            return False
        self._forget(space)
        if self._spaces[space.inode].pid != space.pid:
            self._gone(space.origin.path)
        return True

    def _give_up(self, space: _Space) -> None:
        """Take a path back at once: it leads elsewhere, or nowhere."""
        self._bereave(space)
        if self._spaces.get(space.inode) is space:
            del self._spaces[space.inode]
            self._forget(space)
            self._gone(space.origin.path)

    def _forget(self, space: _Space) -> None:
        if self._by_pid.get(space.pid) is space:
            del self._by_pid[space.pid]


def _stands(space: _Space) -> bool:
    # A main thread that has ended before the others is in no namespace, and its process goes on.
    return space.pidfd is not None and procfs.netns_of(space.pid) == space.inode


def _ended(pidfd: int | None) -> bool:
    if pidfd is None:
        return True
    watched = select.poll()
    watched.register(pidfd, select.POLLIN)
    return bool(watched.poll(0))
