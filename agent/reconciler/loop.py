"""The loop: takes dirty keys, has each looked at, never gives up on any.

Keys are paths (look at what the name leads to) and cookies (take down what nobody names).
The host's side goes first: while it is dirty, names wait.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from agent.core.fits import device_fits, host_end_fits
from agent.core.identity import cookie_of
from agent.core.queue import DirtySet
from agent.core.roster import Record, named
from agent.errors import VethdError
from agent.kernel.crew import Crew
from agent.model import Cookie, Link, Origin
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.host import HostSide
from agent.reconciler.names import Names, Outcome, is_young
from agent.reconciler.wishing import Wishing
from agent.reconciler.world import World

Key = str | Cookie

_AT_ONCE: Final = 8
_SETTLE_SECONDS: Final = 0.005
_HOST_LOOK_SECONDS: Final = 30.0
_RESYNC_SECONDS: Final = 300.0
_CONTESTED_REPAIRS: Final = 5
_CONTESTED_WINDOW: Final = 10.0
_CONTESTED_DELAY: Final = 1.0

_log = structlog.get_logger()


class Reconciler:
    """Hears the sources (it is their Sink) and works off what they say."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin) -> None:
        self._world = world
        self._bulletin = bulletin
        self._crew = crew
        self._names = Names(world, crew, bulletin)
        self.wishing = Wishing(world, self.look_again)
        self._names.reload_wishes = self.wishing.reload
        self.host = HostSide(world, crew, bulletin)
        self._dirty: DirtySet[Key] = DirtySet()
        self._reasons: dict[Key, str] = {}
        self._host_due: float | None = None
        self._host_busy = False
        self._host_failures = 0
        self._wake = asyncio.Event()
        self.rescan: Callable[[], None] = lambda: None
        """Has all processes looked at; set where processes are watched."""
        self._running = 0
        self._group: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()

    def look(self, path: str) -> None:
        """See Sink."""
        if not self._crew.leads_to_namespace(named(path)):
            record = self._world.roster.get(path)
            if record is None:
                return
        else:
            record = self._world.roster.enter(path, time.monotonic())
            record.stirred = time.monotonic()
            if record.cookie is None:
                # A placeholder was known by name; as a namespace it appears now.
                record.appeared = time.monotonic()
        self._mark(path, reason="event")

    def placeholder(self, path: str) -> None:
        """See Sink."""
        record = self._world.roster.enter(path, time.monotonic())
        record.reason = "is no network namespace yet"
        if record.cookie is not None:
            self._mark(path, reason="event")

    def process_appeared(self, origin: Origin) -> None:
        """See Sink."""
        self._world.roster.enter(origin.path, time.monotonic(), origin)
        self._mark(origin.path, reason="event")

    def process_gone(self, path: str) -> None:
        """See Sink."""
        if self._world.roster.get(path) is not None:
            self._mark(path, reason="event")

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at names of which something else changed: a wish, or the config."""
        for path in paths:
            self._mark(path, reason="policy")

    def known_paths(self) -> set[str]:
        """See Sink."""
        return self._world.roster.paths()

    def look_attachment(self, cookie: Cookie) -> None:
        """See Sink."""
        owner = self._world.roster.owner(cookie)
        if owner is not None:
            self._mark_drift(owner)

    def look_inside(self, nsid: int) -> None:
        """See Sink."""
        cookie = self._world.attached.get(nsid)
        if cookie is not None:
            self.look_attachment(cookie)

    def look_host(self, culprit: str) -> None:
        """See Sink."""
        if culprit:
            self.host.suspect(culprit)
        if self._is_contested(self.host.repairs):
            self._mark_host(_CONTESTED_DELAY)
        else:
            self._mark_host(0.0 if culprit else _SETTLE_SECONDS)

    def look_host_device(self, index: int) -> None:
        """See Sink."""
        if self._is_host_device(index):
            self.look_host("")
        elif index in self._world.routed:
            self.look_attachment(self._world.routed[index])

    def check_link(self, nsid: int | None, link: Link) -> None:
        """See Sink."""
        if nsid is None and cookie_of(link.name) is None:
            if self._is_host_device(link.index) and not self.host.fits(link):
                self.look_host("")
            return
        cookie = cookie_of(link.name) if nsid is None else self._world.attached.get(nsid)
        if cookie is None and nsid is not None and not self._is_our_name(link.name):
            self._world.note_company(nsid)
        owner = self._world.roster.owner(cookie) if cookie is not None else None
        if owner is None or owner.attachment is None:
            return
        if nsid is None:
            odd = not host_end_fits(link, owner.attachment)
        elif link.name == "lo":
            odd = not link.up
        elif link.peer == self._world.ledger.device(owner.attachment.cookie):
            odd = not device_fits(link, owner.attachment)
        else:
            # Somebody else's: whoever came at the same time as we did has the namespace.
            odd = is_young(owner)
        if odd:
            self._mark_drift(owner)

    def neighbour_gone(self, nsid: int | None, index: int, address: bytes) -> None:
        """See Sink."""
        world = self._world
        if nsid is not None:
            if any(address in bridge.gateways for bridge in world.bridges.values()):
                self.look_inside(nsid)
            return
        if index in world.routed:
            self.look_attachment(world.routed[index])
        for name, bridge in world.bridges.items():
            if bridge.index == index:
                cookie = world.leases[name].holder(address)
                if cookie is not None:
                    self.look_attachment(cookie)

    def heard(self, source: str, events: int) -> None:
        """See Sink."""
        self._world.heard[source] = self._world.heard.get(source, 0) + events

    def dropped(self, source: str) -> None:
        """See Sink."""
        self._world.dropped[source] = self._world.dropped.get(source, 0) + 1
        self._bulletin.publish("dropped", source=source)
        if source == "nftables":
            self.host.suspect("unknown: events were lost")
        self.resync()

    def resync(self) -> None:
        """Look at everything."""
        self._world.resynced = time.time()
        self._mark_host(0.0)
        self.rescan()
        for path in self._world.roster.paths():
            self._mark(path, reason="resync")

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

    def take_down_strays(self) -> None:
        """Have every attachment taken down whose namespace has no name."""
        if self._world.config.mode == "observe":
            return
        for cookie in {*self._world.holding(), *self._world.strays}:
            if self._world.roster.owner(cookie) is None:
                self._mark(cookie, reason="stray")

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
        while self._running < _AT_ONCE and (key := self._dirty.take(now)) is not None:
            self._running += 1
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
                self._mark(path, reason="host")
        finally:
            self._host_busy = False
            self._wake.set()
            self._idle.set()

    def _host_failed(self, reason: str) -> None:
        if self._world.host_problem != reason:
            _log.error("host side failed", reason=reason)
        self._world.host_problem = reason
        self._mark_host(min(30.0, 0.2 * 2 ** min(self._host_failures, 10)))
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
            self._running -= 1
            self._dirty.done(key)
            self._world.queued = len(self._dirty)
            self._bulletin.count("reconciled", reason=reason, result=outcome.result)
            self._go_on(key, outcome)
            self._wake.set()
            self._idle.set()

    def _go_on(self, key: Key, outcome: Outcome) -> None:
        for cookie in outcome.orphans:
            self._mark(cookie, reason="gone")
        for path in outcome.look:
            self._mark(path, reason="freed")
        if outcome.retry is not None:
            self._mark(key, outcome.retry, reason="retry")

    async def _look_now_and_then(self) -> None:
        """What no event tells of is found here: the host every 30 s, names every 5 minutes."""
        names_due = time.monotonic() + _RESYNC_SECONDS
        while True:
            await asyncio.sleep(_HOST_LOOK_SECONDS)
            self._mark_host(0.0)
            if time.monotonic() >= names_due:
                names_due = time.monotonic() + _RESYNC_SECONDS
                self._world.resynced = time.time()
                self.rescan()
                paths = self._world.roster.paths()
                for place, path in enumerate(paths):
                    self._mark(path, _RESYNC_SECONDS / 2 * place / len(paths), reason="resync")

    def _mark(self, key: Key, delay: float = 0.0, *, reason: str) -> None:
        self._reasons[key] = reason
        self._dirty.add(key, time.monotonic() + delay)
        self._world.queued = len(self._dirty)
        if delay:
            self._wake.set()
        else:
            self._start_due()

    def _mark_drift(self, record: Record) -> None:
        delay = _CONTESTED_DELAY if self._is_contested(record.repairs) else _SETTLE_SECONDS
        self._mark(record.path, delay, reason="drift")

    def _is_contested(self, repairs: Iterable[float]) -> bool:
        """Tell whether somebody keeps undoing our repairs: then there is one a second at most."""
        now = time.monotonic()
        return sum(1 for moment in repairs if now - moment < _CONTESTED_WINDOW) >= _CONTESTED_REPAIRS

    def _mark_host(self, delay: float) -> None:
        due = time.monotonic() + delay
        self._host_due = due if self._host_due is None else min(self._host_due, due)
        self._wake.set()

    def _is_host_device(self, index: int) -> bool:
        world = self._world
        if world.uplink is not None and index == world.uplink.index:
            return True
        return any(bridge.index == index for bridge in world.bridges.values())

    def _is_our_name(self, device: str) -> bool:
        return device == "lo" or any(network.interface == device for network in self._world.config.networks)

    def _next_due(self) -> float | None:
        if self._host_busy:
            return None
        names_due = None if self._running >= _AT_ONCE else self._dirty.next_due()
        return min((due for due in (self._host_due, names_due) if due is not None), default=None)
