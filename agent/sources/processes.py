"""Namespaces of processes, which need no name: found by the kernel's process events.

A thread takes the events. On the first after some quiet it looks at once; then it rests for
some milliseconds and looks at all that came meanwhile in one go. So the cost is bounded in
time, however many processes come and go, and only news reaches the loop. A program that
enters a new namespace by itself and then starts nothing causes no event: it is found when
all processes are looked at, every two seconds or, with thousands of them, less often.
"""

import asyncio
import os
import select
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from agent.errors import HostError
from agent.kernel import cn_proc, procfs
from agent.kernel.connector import BUFFER_BYTES, Connector
from agent.kernel.realm import Realm
from agent.model import Origin
from agent.sources.residents import Residents
from agent.sources.sink import Sink

SOURCE: Final = "connector"

_SHORTEST_REST_MS: Final = 1
_LONGEST_REST_MS: Final = 8
_TOLD_SECONDS: Final = 1.0
# A look at all processes is followed by a pause: that keeps its share of a core below one percent where it is
# wanted, and below a thousandth where nobody asked for it.
_WANTED_FACTOR: Final = 100
_SHORTEST_PAUSE_SECONDS: Final = 0.2
_UNASKED_FACTOR: Final = 1000
_UNASKED_SECONDS: Final = 2.0
_BLIND: Final = "cannot see the namespaces of other users' processes: give the agent CAP_SYS_PTRACE"
UNFILTERED: Final = "the kernel runs no filter of ours (bpf(2), BTF): each new process of the host costs a look"
"""The one remark by which nothing is missed or late."""
_CROWDED: Final = "too many namespaces for the limit of open files (ulimit -n): some are passed over"


class ProcessSource:
    """Watches the processes of the host for namespaces other than its own."""

    def __init__(
        self, sink: Sink, is_known: Callable[[int], bool] = lambda _: False, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        """Subscribe to process events; ``run`` has to follow.

        ``is_known`` tells whether the namespace with this inode was found elsewhere already; it is
        called in the thread. ``buffer_bytes`` of events are kept by the kernel until they are taken.
        """
        self._sink = sink
        self._news: list[Callable[[], None]] = []
        self._poller = select.epoll()
        realm = Realm()
        self._residents = Residents(realm, is_known, self._poller, self._appeared, self._gone)
        self._connector, self._remark = _connect(realm.outside, buffer_bytes)
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._scan_wanted = True
        self._scan_due = 0.0
        self._scan_due_anyway = 0.0
        self._heard = 0
        self._told = 0.0
        self.listed = asyncio.Event()

    @property
    def remark(self) -> str:
        """What the source cannot do here, and why, in one line; empty when it can do everything."""
        return self._remark or (_CROWDED if self._residents.out_of_files else "")

    async def run(self) -> None:
        """Watch until cancelled; ``listed`` is set once everything there at start was told."""
        self._loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, "processes")
        try:
            await self._loop.run_in_executor(thread, self._watch)
        finally:
            self._stopping = True
            self._wake()
            thread.shutdown()
            self._close()

    def rescan(self) -> None:
        """Have all processes looked at soon; returns at once."""
        self._scan_wanted = True
        if not self._stopping:
            self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._waker, 1)

    def _close(self) -> None:
        self._residents.close()
        if self._connector is not None:
            self._connector.close()
        self._poller.close()
        os.close(self._waker)

    # All that follows is done by the thread.

    def _watch(self) -> None:
        self._poller.register(self._waker, select.EPOLLIN)
        if self._connector is not None:
            self._poller.register(self._connector, select.EPOLLIN)
        pause = select.poll()
        pause.register(self._waker, select.POLLIN)
        rest = _SHORTEST_REST_MS
        while not self._stopping:
            before = time.monotonic()
            ready = self._poller.poll(self._patience(before))
            now = time.monotonic()
            was_quiet = now - before > _LONGEST_REST_MS / 1000
            rest = _SHORTEST_REST_MS if was_quiet else min(2 * rest, _LONGEST_REST_MS)
            self._take()
            self._attend(ready)
            if self._patience(now) == 0:
                self._scan(now)
            self._tell(now)
            pause.poll(rest)

    def _patience(self, now: float) -> float:
        """Return in how many seconds all processes have to be looked at."""
        is_wanted = self._scan_wanted or self._residents.some_are_orphans
        return max(0.0, (self._scan_due if is_wanted else self._scan_due_anyway) - now)

    def _take(self) -> None:
        if self._connector is None:
            return
        events, lost = self._connector.take()
        pids: dict[int, None] = {}
        changed: dict[int, None] = {}
        for what, process, child in events:
            pids[process] = None
            if what == cn_proc.FORK:
                pids[child] = None
            else:
                changed[process] = None
        self._residents.look(pids)
        self._residents.refresh(changed)
        self._heard += len(events)
        if lost:
            self._scan_wanted = True
            self._news.append(partial(self._sink.dropped, SOURCE))

    def _attend(self, ready: list[tuple[int, int]]) -> None:
        for descriptor, _ in ready:
            if descriptor == self._waker:
                os.eventfd_read(self._waker)
            else:
                self._residents.ended(descriptor)

    def _scan(self, now: float) -> None:
        begin = time.thread_time()
        self._scan_wanted = False
        found = procfs.processes_by_netns()
        self._residents.compare(found)
        # Who was started meanwhile by the last of a namespace, and behind our back, is told by an event.
        self._take()
        self._residents.bury(found)
        spent = time.thread_time() - begin
        self._scan_due = now + max(_SHORTEST_PAUSE_SECONDS, _WANTED_FACTOR * spent)
        factor = _WANTED_FACTOR if self._connector is None else _UNASKED_FACTOR
        self._scan_due_anyway = now + max(_UNASKED_SECONDS, factor * spent)
        if not self.listed.is_set():
            self._news.append(self.listed.set)

    def _appeared(self, origin: Origin) -> None:
        self._news.append(partial(self._sink.process_appeared, origin))

    def _gone(self, path: str) -> None:
        self._news.append(partial(self._sink.process_gone, path))

    def _tell(self, now: float) -> None:
        """Wake the loop when there is something to do for it, not for the count of events."""
        if not self._news and (not self._heard or now < self._told):
            return
        if self._heard:
            self._news.append(partial(self._sink.heard, SOURCE, self._heard))
        self._loop.call_soon_threadsafe(_say, self._news)
        self._news = []
        self._heard = 0
        self._told = now + _TOLD_SECONDS


def _connect(passed_over: Collection[int], buffer_bytes: int) -> tuple[Connector | None, str]:
    try:
        connector = Connector(passed_over, buffer_bytes)
    except HostError as error:
        return None, f"{error}; all processes are looked at every {_UNASKED_SECONDS:g} s instead"
    # Whoever hears the connector is in the initial pid namespace, where process 2 is the kernel's, and root's.
    if procfs.netns_of(2) is None:
        return connector, _BLIND
    return connector, "" if connector.passes_over else UNFILTERED


def _say(news: list[Callable[[], None]]) -> None:
    for call in news:
        call()
