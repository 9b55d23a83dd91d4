"""The loop: takes dirty keys, has each looked at, never gives up on any.

Keys are paths (look at what the name leads to) and cookies (take down what nobody names).
The host's side goes first: while it is dirty, names wait.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from agent.core.queue import DirtySet
from agent.errors import VethdError
from agent.kernel.crew import Crew
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.hearing import Hearing
from agent.reconciler.host import HostSide
from agent.reconciler.keys import Key
from agent.reconciler.names import Names
from agent.reconciler.outcome import Outcome
from agent.reconciler.strays import Strays
from agent.reconciler.watched import Watch
from agent.reconciler.wishing import Wishing
from agent.reconciler.world import World

# The plumber's thread does one look at a time. Those that take down wait elsewhere, and together; what they do when
# they have waited is to keep nobody who asks from his answer.
_AT_ONCE: Final = {"look": 8, "removal": 16}
_FIRST: Final = 0.0
_SETTLE_SECONDS: Final = 0.005
_HOST_LOOK_SECONDS: Final = 30.0
_RESYNC_SECONDS: Final = 300.0
# A look costs a millisecond of a core, needed or not.
_APART_SECONDS: Final = 0.5

_log = structlog.get_logger()


class Reconciler:
    """Works off what was marked; ``hearing`` is what the sources speak to."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin, watch: Watch) -> None:
        self._world = world
        self._bulletin = bulletin
        self._crew = crew
        self._names = Names(world, crew, bulletin, watch)
        self.wishing = Wishing(world, self.look_again)
        self._names.reload_wishes = self.wishing.reload
        self.host = HostSide(world, crew, bulletin)
        self.hearing = Hearing(world, crew, bulletin, self.host, self, watch)
        self._dirty: DirtySet[Key] = DirtySet()
        self._reasons: dict[Key, str] = {}
        self._host_due: float | None = None
        self._host_busy = False
        self._host_failures = 0
        self._strays = Strays(world)
        self._wake = asyncio.Event()
        self.rescan: Callable[[], None] = lambda: None
        """Has all processes looked at; set where processes are watched."""
        self._running = Counter[str]()
        self._group: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()

    def listens_to_devices(self, read: Callable[[], None]) -> None:
        """Be told how what is told of devices can be heard at once."""
        self._names.removals.hear_of_devices = read

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at names of which something else changed: a wish, or the config."""
        for path in paths:
            self.mark(path, reason="policy")

    def resync(self) -> None:
        """Look at everything."""
        self._world.resynced = time.time()
        self.host.adopts = self._strays.is_due = True
        self.mark_host(0.0)
        self.rescan()
        for path in self._world.roster.paths():
            self.mark(path, reason="resync")

    def put_new_first(self) -> None:
        """Have the names looked at first for which nothing stands: the others' namespaces work already."""
        standing = {self._world.name_of(cookie) for cookie in self._world.holding()}
        for record in self._world.roster:
            if record.name not in standing:
                self._dirty.add(record.path, _FIRST)

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_now_and_then(), name="slow look")
            self._group = group
            while True:
                self._start_due()
                self._wake.clear()
                due = self._next_due()
                timer = None if due is None else loop.call_at(due, self._wake.set)
                await self._wake.wait()
                if timer is not None:
                    timer.cancel()

    async def settled(self) -> None:
        """Return once nothing that is due waits: everything known was looked at."""
        while self._host_busy or self._host_due is not None or self._dirty.has_due(time.monotonic()):
            self._idle.clear()
            await self._idle.wait()

    async def take_down_strays(self) -> None:
        """Take down every attachment whose namespace has no name; all names must have been looked at once."""
        strays = self._strays.find()
        for cookie in strays:
            self.mark(cookie, reason="stray")
        unknown = any(self._world.lease_of(cookie) is None for cookie in strays)
        await self.settled()
        if unknown or not self._world.is_swept:
            await self.sweep()

    async def sweep(self) -> None:
        """Have removed what namespaces left that went while no agent was there.

        Of an address that an attachment holds nothing is touched: all that stand must be adopted.
        """
        world = self._world
        if world.config.mode == "observe":
            return
        try:
            await self._crew.sweep(world.config.networks, world.bridges, world.is_held)
            world.is_swept = True
        except VethdError as error:
            _log.warning("leftovers not removed", reason=str(error))

    def _start_due(self) -> None:
        group = self._group
        if group is None:
            return
        now = time.monotonic()
        if self._host_due is not None and self._host_due <= now and not self._host_busy:
            self._host_due = None
            self._host_busy = True
            group.create_task(self._work_on_host(), name="host")
        if self._host_busy:
            return
        for cookie in () if self._running.total() else self._strays.find_due():
            self.mark(cookie, _SETTLE_SECONDS, reason="stray")
        while self._has_room() and (key := self._dirty.take(now)) is not None:
            self._running[_kind(key)] += 1
            group.create_task(self._work_on(key), name=f"look {key!r}")

    async def _work_on_host(self) -> None:
        try:
            again = await self.host.settle()
        except VethdError as error:
            self._host_failed(str(error))
        except Exception as error:  # noqa: BLE001  what stands already must stay looked after
            _log.exception("look at the host failed by a mistake of vethd")
            self._host_failed(f"a mistake of vethd: {error!r}")
        else:
            self._host_failures = 0
            waiting = [record.path for record in self._world.roster if record.state == "pending"]
            for path in self._world.roster.paths() if again else waiting:
                self.mark(path, reason="host")
        finally:
            self._host_busy = False
            self._wake.set()
            self._idle.set()

    def _host_failed(self, reason: str) -> None:
        if self._world.host_problem != reason:
            _log.error("host side failed", reason=reason)
        self._world.host_problem = reason
        self.mark_host(min(30.0, 0.2 * 2 ** min(self._host_failures, 10)))
        self._host_failures += 1

    async def _work_on(self, key: Key) -> None:
        outcome = Outcome("failed", retry=1.0)
        reason = self._reasons.pop(key, "event")
        try:
            outcome = await (self._names.settle(key) if isinstance(key, str) else self._names.take_down(key))
        except VethdError as error:
            _log.warning("look failed", key=key, reason=str(error))
        except Exception:  # noqa: BLE001  one name's trouble must not end the others
            _log.exception("look failed by a mistake of vethd", key=key)
        finally:
            self._running[_kind(key)] -= 1
            self._dirty.done(key)
            self._world.queued = len(self._dirty)
            self._bulletin.count("reconciled", reason=reason, result=outcome.result)
            self._go_on(key, outcome)
            self._wake.set()
            self._idle.set()

    def _go_on(self, key: Key, outcome: Outcome) -> None:
        for cookie in outcome.orphans:
            self.mark(cookie, reason="gone")
        for path in outcome.look:
            self.mark(path, reason="freed")
        if outcome.retry is not None:
            self.mark(key, outcome.retry, reason="retry")

    async def _look_now_and_then(self) -> None:
        """What no event tells of is found here: the host, and what stands without a name, every 30 s.

        Names are looked at every 5 minutes, but two a second at most.
        """
        names_due = time.monotonic() + _RESYNC_SECONDS
        while True:
            await asyncio.sleep(_HOST_LOOK_SECONDS)
            self.mark_host(0.0)
            self._strays.is_due = True
            if time.monotonic() >= names_due:
                self._world.resynced = time.time()
                self.host.adopts = True
                self.rescan()
                paths = self._world.roster.paths()
                apart = max(_APART_SECONDS, _RESYNC_SECONDS / 2 / max(1, len(paths)))
                names_due = time.monotonic() + max(_RESYNC_SECONDS, apart * len(paths))
                for place, path in enumerate(paths):
                    self.mark(path, apart * place, reason="resync")

    def mark(self, key: Key, delay: float = 0.0, *, reason: str) -> None:
        self._reasons[key] = reason
        self._dirty.add(key, time.monotonic() + delay)
        self._world.queued = len(self._dirty)
        if delay:
            self._wake.set()
        else:
            self._start_due()

    def mark_host(self, delay: float) -> None:
        due = time.monotonic() + delay
        self._host_due = due if self._host_due is None else min(self._host_due, due)
        self._wake.set()

    def _has_room(self) -> bool:
        return all(self._running[kind] < most for kind, most in _AT_ONCE.items())

    def _next_due(self) -> float | None:
        if self._host_busy:
            return None
        names_due = self._dirty.next_due() if self._has_room() else None
        return min((due for due in (self._host_due, names_due) if due is not None), default=None)


def _kind(key: Key) -> str:
    return "look" if isinstance(key, str) else "removal"
