"""The book of who stands for which namespace, against a world in which processes do what they like.

Processes fork, move, end, and their numbers and their namespaces' inodes are used again; events
come late, or not at all. What is told has to make sense at every moment, and be right in the end.
"""

import os
import select
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from agent.core.origin import Process
from agent.kernel.realm import Realm
from agent.model import Origin
from agent.sources import residents
from agent.sources.residents import Residents

HOST, MACHINE, KNOWN = 1, 2, 3
PASSED_OVER = {HOST, MACHINE, KNOWN, None}
INODES = st.integers(HOST, 5)
PIDS = st.integers(100, 103)


def _pid_in(path: str) -> int:
    return int(path.split("/")[2])


class World(RuleBasedStateMachine):
    """Some processes, and a book that is told of them now and then.

    ``inodes``: where processes are; one whose main thread has ended is nowhere, and goes on. ``seen``:
    where the book has seen them since they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inodes: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.seen: dict[int, int] = {}
        self.events: list[int] = []
        self.standing: dict[str, int] = {}
        self.poller = select.epoll()
        realm = SimpleNamespace(outside=frozenset({HOST, MACHINE}), includes=lambda *_: True)
        self.book = Residents(
            cast(Realm, realm), lambda inode: inode == KNOWN, self.poller, self.on_appeared, self.on_gone
        )

    def teardown(self) -> None:
        self.book.close()
        self.poller.close()
        for end in self.ends.values():
            os.close(end)

    def on_appeared(self, origin: Origin) -> None:
        assert origin.pid is not None
        assert origin.path == f"/proc/{origin.pid}/ns/net"
        self.standing[origin.path] = self.inodes[origin.pid]

    def on_gone(self, path: str) -> None:
        # Only what stands is taken back, and not while somebody is known to be there who could follow.
        inode = self.standing.pop(path)
        assert inode in self.standing.values() or not self.heirs(inode)

    @rule(pid=PIDS, inode=INODES, is_heard=st.booleans())
    def start(self, pid: int, inode: int, is_heard: bool) -> None:
        if pid not in self.ends:
            self.inodes[pid] = inode
            self.ends[pid] = os.eventfd(0, os.EFD_NONBLOCK)
        self.tell(pid, is_heard)

    @rule(pid=PIDS, inode=INODES, is_heard=st.booleans())
    def move(self, pid: int, inode: int, is_heard: bool) -> None:
        if pid in self.inodes and self.inodes[pid] != inode:
            self.inodes[pid] = inode
            self.seen.pop(pid, None)
        self.tell(pid, is_heard)

    @rule(pid=PIDS)
    def end_main_thread(self, pid: int) -> None:
        self.inodes.pop(pid, None)
        self.seen.pop(pid, None)

    @rule(pid=PIDS)
    def end(self, pid: int) -> None:
        self.end_main_thread(pid)
        if pid in self.ends:
            end = self.ends.pop(pid)
            os.eventfd_write(end, 1)
            os.close(end)

    @rule()
    def take_events(self) -> None:
        pids, self.events = dict.fromkeys(self.events), []
        self.see(pids)
        with self.eyes():
            self.book.look(pids)
            self.book.refresh(pids)
        for pid in pids:
            inode = self.inodes.get(pid)
            assert inode in PASSED_OVER or inode in self.standing.values()
            assert self.standing.get(f"/proc/{pid}/ns/net", inode) == inode or inode is None

    @rule()
    def notice_ends(self) -> None:
        with self.eyes():
            for descriptor, _ in self.poller.poll(0):
                self.book.ended(descriptor)
        for path, inode in self.standing.items():
            assert _pid_in(path) in self.ends or not self.heirs(inode)

    @rule()
    def look_at_all(self) -> None:
        found: dict[int, list[int]] = {}
        for pid, inode in self.inodes.items():
            found.setdefault(inode, []).append(pid)
        self.see(self.inodes)
        with self.eyes():
            self.book.compare(found)
        self.take_events()
        with self.eyes():
            self.book.bury(found)

    @rule()
    def settle(self) -> None:
        """Once everything was noticed, each namespace has one path, and that leads there."""
        self.notice_ends()
        self.look_at_all()
        for path, inode in self.standing.items():
            assert self.inodes[_pid_in(path)] == inode
        assert sorted(self.standing.values()) == sorted(set(self.inodes.values()) - PASSED_OVER)
        assert not self.book.some_are_orphans

    def expect(self, inode: int) -> None:
        assert inode in self.standing.values()

    def heirs(self, inode: int) -> set[int]:
        """Who was seen in a namespace, is still there, and does not stand for another one."""
        return {pid for pid, where in self.seen.items() if where == inode} - {_pid_in(path) for path in self.standing}

    def tell(self, pid: int, is_heard: bool) -> None:
        if is_heard:
            self.events.append(pid)

    def see(self, pids: Iterable[int]) -> None:
        self.seen.update({pid: self.inodes[pid] for pid in pids if pid in self.inodes})

    @contextmanager
    def eyes(self) -> Iterator[None]:
        """Have the book see this world and not the real one."""

        def pidfd_open(pid: int) -> int:
            if pid not in self.ends:
                raise ProcessLookupError
            return os.dup(self.ends[pid])

        seen = SimpleNamespace(
            netns_of=self.inodes.get,
            netns_path=lambda pid: f"/proc/{pid}/ns/net",
            describe=lambda pid: Process(pid, "name", "command", "/", "root") if pid in self.inodes else None,
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(residents, "procfs", seen)
            patched.setattr(os, "pidfd_open", pidfd_open)
            yield


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=5 * settings().max_examples)

Deed = Callable[[World], object]
STORIES: dict[str, list[Deed]] = {
    "one that nobody has heard of takes over": [
        lambda world: world.start(100, 4, False),
        lambda world: world.look_at_all(),
        lambda world: world.start(101, 4, False),
        lambda world: world.end(100),
        lambda world: world.notice_ends(),
    ],
    "one that was only looked at takes over": [
        lambda world: world.start(100, 4, False),
        lambda world: world.start(101, 4, False),
        lambda world: world.look_at_all(),
        lambda world: world.end(100),
        lambda world: world.notice_ends(),
    ],
    "nobody is given up before all were looked at": [
        lambda world: world.start(100, 4, True),
        lambda world: world.take_events(),
        lambda world: world.start(101, 4, False),
        lambda world: world.end(100),
        lambda world: world.tell(100, True),
        lambda world: world.take_events(),
        lambda world: world.expect(4),
    ],
    "two change places": [
        lambda world: world.start(100, 4, True),
        lambda world: world.start(101, 5, True),
        lambda world: world.take_events(),
        lambda world: world.move(100, 5, False),
        lambda world: world.move(101, 4, False),
    ],
    "a daemon is made": [
        lambda world: world.start(100, 4, True),
        lambda world: world.take_events(),
        lambda world: world.tell(100, True),
        lambda world: world.start(101, 4, True),
        lambda world: world.end(100),
        lambda world: world.take_events(),
    ],
    "one moves on and leaves a child": [
        lambda world: world.start(100, 4, True),
        lambda world: world.take_events(),
        lambda world: world.move(100, 5, True),
        lambda world: world.start(101, 4, True),
        lambda world: world.take_events(),
    ],
    "a main thread ends before its process": [
        lambda world: world.start(100, 4, True),
        lambda world: world.start(101, 4, True),
        lambda world: world.take_events(),
        lambda world: world.end_main_thread(100),
    ],
    "a number and an inode are used again": [
        lambda world: world.start(100, 4, True),
        lambda world: world.take_events(),
        lambda world: world.end(100),
        lambda world: world.start(100, 5, True),
        lambda world: world.start(101, 4, True),
        lambda world: world.take_events(),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_what_is_told_makes_sense(story: str) -> None:
    world = World()
    try:
        for deed in STORIES[story]:
            deed(world)
        world.settle()
    finally:
        world.teardown()
