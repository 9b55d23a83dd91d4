"""Bringing one name's namespace to where it should be."""

import errno
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from agent.core import steps
from agent.core.identity import is_ours, is_routed, printable
from agent.core.plan import remarks
from agent.core.roster import Incident, Record, State, named
from agent.errors import KernelError, NamespaceGone, NoFreeAddress, VethdError
from agent.kernel.awaiting import NotYet
from agent.kernel.counters import Place
from agent.kernel.crew import Crew
from agent.model import Attachment, Cookie, Link, Network, Observed
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.contest import CONTESTED, is_contested
from agent.reconciler.look import Look, is_young, patience, settled_attachment
from agent.reconciler.outcome import Outcome
from agent.reconciler.removals import Removals
from agent.reconciler.stuck import Stuck, retry_seconds
from agent.reconciler.watched import Watch
from agent.reconciler.world import World

# How often to look at what the kernel is not done with, and how many times before that is a failure.
_NOT_YET_SECONDS: Final = 0.2
_PATIENCE: Final = 20
_WHILE_LOOKED_AT_SECONDS: Final = 0.005
_HELD: Final = "no process is in it any more: a mount or an open file keeps it"

_log = structlog.get_logger()


class Names:
    """Looks at names, decides, acts, and keeps the roster."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin, watch: Watch) -> None:
        self._world = world
        self._watch = watch
        self._crew = crew
        self._bulletin = bulletin
        self._starved: set[str] = set()
        self._stuck = Stuck(world, bulletin)
        self.removals = Removals(world, crew, bulletin)
        self.reload_wishes: Callable[[], Awaitable[None]] = _nothing

    async def settle(self, path: str) -> Outcome:
        """Look at what a name leads to and bring it to where it should be."""
        try:
            return await self._settle(path)
        finally:
            self._world.looking.pop(path, None)

    async def _settle(self, path: str) -> Outcome:
        record = self._world.roster.get(path)
        if record is not None and (record.departed or self._has_gone(record)):
            return await self._vanished(path)
        origin = record.origin if record else named(path)
        look = Look(self._world, origin, settled_attachment(record), record is not None and is_young(record))
        try:
            host_end = await self._crew.settle(origin, self._world.expected, look.decide, look.finish)
        except NamespaceGone:
            return await self._vanished(path)
        except VethdError as error:
            if look.seen is None:
                return self._failed(self._world.roster.enter(path, time.monotonic()), str(error))
            return await self._failed_to_attach(path, look, look.seen, error)
        assert look.seen is not None
        if look.needs_wishes:
            await self.reload_wishes()
            return Outcome("waiting", look=(path,))
        record, orphans = self._lead(path, look.seen)
        if look.origin != origin and record.origin == origin and not record.departed:
            self._world.roster.enter(path, time.monotonic(), look.origin)
        try:
            return await self._note_look(record, orphans, look, look.seen, host_end)
        except VethdError as error:
            return self._failed(record, str(error), orphans)

    def _has_gone(self, record: Record) -> bool:
        """Tell whether the name of a namespace leads to none any more; of one that is new, the look itself tells."""
        return record.cookie is not None and not self._crew.leads_to_namespace(record.origin)

    async def take_down(self, cookie: Cookie) -> Outcome:
        """Remove the attachment of a namespace that nobody names any more."""
        owner = self._world.roster.owner(cookie)
        if owner is not None:
            self._stuck.done(cookie)
            return Outcome("unchanged", look=(owner.path,))
        # Marked before it is asked, as a look is noted before it asks: one of the two sees the other.
        self._world.leaving.add(cookie)
        try:
            if cookie in self._world.looking.values():
                return Outcome("waiting", retry=_WHILE_LOOKED_AT_SECONDS)
            return await self._take_down(cookie)
        finally:
            self._world.leaving.discard(cookie)

    async def _take_down(self, cookie: Cookie) -> Outcome:
        former = self._world.roster.last_record(cookie)
        if self._is_to_be_removed(cookie):
            try:
                await self.removals.withdraw(cookie, former)
            except VethdError as error:
                return Outcome("failed", retry=self._stuck.failed(cookie, former, error))
            self._stuck.done(cookie)
        elif former is not None:
            self.removals.forget_wish(former.name)
        self._watch.forget(cookie)
        self._world.roster.forget(cookie)
        owner = self._world.roster.owner(cookie)
        starved, self._starved = self._starved, set()
        return Outcome("gone", look=(*starved, *((owner.path,) if owner else ())))

    def _is_to_be_removed(self, cookie: Cookie) -> bool:
        world = self._world
        return world.config.mode == "manage" and (world.lease_of(cookie) is not None or cookie in world.strays)

    async def _vanished(self, path: str) -> Outcome:
        roster = self._world.roster
        former = roster.get(path)
        if former is not None and await self._is_held_without_process(former):
            return Outcome("unchanged")
        others = roster.aliases(former) if former else []
        is_placeholder = former is not None and former.origin.source == "named" and _has_file(path)
        orphan = roster.part(path, time.monotonic()) if is_placeholder else roster.leave(path)
        self._starved.discard(path)
        if former is not None and former.state != "ready":
            self._note(former, "gone", "")
        return Outcome("gone", (orphan,) if orphan is not None else (), tuple(others))

    async def _is_held_without_process(self, record: Record) -> bool:
        """Tell whether a namespace lives on that has lost its last process: something holds it open.

        Its host end goes when it does, and that is an event.
        """
        if record.origin.source != "process" or record.attachment is None or record.alias_of is not None:
            return False
        if self._world.roster.aliases(record):
            return False
        host_end = await self._crew.host_end(record.attachment.cookie)
        if host_end is None:
            return False
        self._sample(record.attachment.cookie, record.attachment.network, host_end)
        record.reason = _HELD
        return True

    async def _note_look(
        self, record: Record, orphans: tuple[Cookie, ...], look: Look, seen: Observed, host_end: Link | None
    ) -> Outcome:
        path = record.path
        owner = self._world.roster.owner(seen.cookie)
        if owner is not None and owner is not record:
            self._follow(record, owner)
            # A process that is not there any more makes room for whoever is.
            return Outcome("unchanged", orphans, (owner.path,) if owner.departed else ())
        record.alias_of = None
        if look.is_being_removed:
            # Taking it down ends with a look at whoever names it then, but may have ended before it was named.
            return Outcome("waiting", orphans, retry=_WHILE_LOOKED_AT_SECONDS)
        if look.verdict is None:
            return Outcome("waiting", orphans)
        if look.must_start_over:
            await self.removals.detach(seen.cookie)
            return Outcome("waiting", orphans, (path,))
        verdict = look.verdict
        if verdict.network is None:
            if seen.host_end is not None and is_ours(seen.host_end) and self._world.config.mode == "manage":
                await self.removals.withdraw(seen.cookie, record)
            if self._world.config.mode == "observe":
                self._watch.note(record, seen)
            if not verdict.is_final:
                self._become(record, "pending", reason=verdict.rule)
                return Outcome("waiting", orphans, retry=patience(record))
            self._become(record, "left", rule=verdict.rule)
            return Outcome("left", orphans)
        record.rule, record.network = verdict.rule, verdict.network.name
        if look.desired is None:
            self._become(record, "pending", reason=self._world.host_problem)
            return Outcome("waiting", orphans)
        record.failures = 0
        self._note_attached(record, look, look.desired, seen, host_end)
        again = (path,) if look.has_company or self._world.has_company(seen.cookie) else ()
        return Outcome("changed" if look.todo else "unchanged", orphans, (*self._world.roster.aliases(record), *again))

    async def _failed_to_attach(self, path: str, look: Look, seen: Observed, error: VethdError) -> Outcome:
        record, orphans = self._lead(path, seen)
        record.alias_of = None
        if look.verdict is not None and look.verdict.network is not None:
            record.rule, record.network = look.verdict.rule, look.verdict.network.name
        if look.desired is not None or record.ready_since is None:
            record.attachment = look.desired
        if isinstance(error, NoFreeAddress):
            self._starved.add(path)
            self._become(record, "failed", reason=str(error))
            return Outcome("failed", orphans)
        if not self._crew.leads_to_namespace(record.origin):
            return Outcome("gone", orphans, (path,))
        code = error.code if isinstance(error, KernelError) else 0
        if code == errno.EXFULL and look.desired is not None:
            await self._route(look.desired)
            return Outcome("waiting", orphans, (path,))
        if code == errno.EEXIST and not record.failures:
            # Somebody was at work at the same time: what is there now?
            record.failures = 1
            return Outcome("waiting", orphans, (path,))
        if isinstance(error, NotYet) and record.failures < _PATIENCE:
            # Others wait no longer for this one than a moment at a time.
            record.failures += 1
            record.reason = str(error)
            return Outcome("waiting", orphans, retry=min(_NOT_YET_SECONDS, retry_seconds(record.failures)))
        return self._failed(record, str(error), orphans)

    def _lead(self, path: str, seen: Observed) -> tuple[Record, tuple[Cookie, ...]]:
        roster = self._world.roster
        orphan = roster.lead(path, seen.cookie, time.monotonic(), seen.inode)
        return roster.enter(path, time.monotonic()), (orphan,) if orphan is not None else ()

    async def _route(self, desired: Attachment) -> None:
        """Have a namespace routed: somebody else's ports fill the bridge."""
        await self.removals.detach(desired.cookie)
        with self._world.lock:
            table = self._world.leases[desired.network.name]
            table.acquire(desired.cookie, desired.name, desired.lease.index)
            table.route(desired.cookie)

    def _follow(self, record: Record, owner: Record) -> None:
        """Have another name of a namespace stand as the one does that owns its attachment."""
        record.alias_of, record.network, record.attachment = owner.path, owner.network, owner.attachment
        self._become(record, owner.state, f"is another name of {printable(owner.path)}", owner.reason)

    def _note_attached(
        self, record: Record, look: Look, attachment: Attachment, seen: Observed, host_end: Link | None
    ) -> None:
        if look.admitted is not None:
            self._world.admitted[seen.cookie] = look.admitted
        is_renamed = record.attachment is not None and record.attachment.name != attachment.name
        record.attachment = attachment
        self._sample(seen.cookie, attachment.network, host_end)
        record.reason = "; ".join((*remarks(attachment, seen), *filter(None, (look.remark,))))
        if record.state == "ready":
            kinds = sorted({step.drift for step in look.todo} - ({"mark"} if is_renamed else set()))
            if kinds:
                self._note_repair(record, kinds)
            return
        now = time.monotonic()
        seconds = now - record.appeared
        adopted = not any(isinstance(step, steps.CreatePair | steps.AddDefaultRoute) for step in look.todo)
        if record.ready_since is None:
            record.ready_since = -math.inf if adopted else now
        record.state = "ready"
        record.plumb_seconds = None if adopted else seconds
        event = "adopted" if adopted else "networked"
        lease = attachment.lease
        self._note(record, event, f"{lease.address} by {record.device}")
        self._bulletin.publish(
            event,
            name=record.name,
            network=record.network,
            address=str(lease.address),
            address6=str(lease.address6) if lease.address6 else None,
            device=record.device,
            seconds=seconds,
        )

    def _note_repair(self, record: Record, kinds: list[str]) -> None:
        was_contested = is_contested(record.repairs)
        record.note_repair(time.monotonic())
        self._note(record, "repaired", ", ".join(kinds))
        self._bulletin.publish("repaired", name=record.name, kinds=kinds)
        if is_contested(record.repairs):
            record.reason = "; ".join(filter(None, (record.reason, CONTESTED)))
            if not was_contested:
                _log.warning("contested", name=printable(record.name), kinds=kinds, reason=CONTESTED)

    def _sample(self, cookie: Cookie, network: Network, host_end: Link | None) -> None:
        if host_end is None:
            return
        self._world.ledger.note(cookie, network.name, host_end.index, host_end.traffic)
        if host_end.peer_nsid is not None:
            self._world.forget_place(cookie)
            self._world.attached[host_end.peer_nsid] = cookie
            self._world.inside[cookie] = Place(host_end.peer_nsid, host_end.peer, host_end.index)
        if is_routed(host_end.mac):
            self._world.routed[host_end.index] = cookie

    def _failed(self, record: Record, reason: str, orphans: tuple[Cookie, ...] = ()) -> Outcome:
        record.failures += 1
        self._become(record, "failed", reason=reason)
        return Outcome("failed", orphans, retry=retry_seconds(record.failures))

    def _become(self, record: Record, state: State, rule: str = "", reason: str = "") -> None:
        if (record.state, record.rule, record.reason) == (state, rule or record.rule, reason):
            return
        record.state, record.reason = state, reason
        record.rule = rule or record.rule
        if state == "left":
            record.network = record.attachment = record.ready_since = None
        self._note(record, state, rule or reason)
        self._bulletin.publish(state, name=record.name, rule=record.rule, reason=reason)

    def _note(self, record: Record, event: str, detail: str) -> None:
        record.tell(Incident(time.time(), event, detail))


async def _nothing() -> None:
    """Read no wishes, where nobody watches them."""


def _has_file(path: str) -> bool:
    return os.path.lexists(path)
