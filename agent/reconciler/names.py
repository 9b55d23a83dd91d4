"""Bringing one name's namespace to where it should be."""

import errno
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agent.core import steps
from agent.core.identity import host_end_name, is_ours, is_routed, printable
from agent.core.plan import our_link, plan, remarks
from agent.core.policy import choose
from agent.core.roster import Incident, Record, State
from agent.core.steps import Step
from agent.errors import KernelError, NamespaceGone, NoFreeAddress, VethdError
from agent.kernel.counters import Place
from agent.kernel.crew import Crew
from agent.kernel.namespaces import Handle
from agent.kernel.reaper import Last, Removal
from agent.model import Attachment, Cookie, Link, Network, Observed, Origin
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.world import World

Result = Literal["changed", "unchanged", "left", "failed", "waiting", "gone"]

_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a look: ``orphans`` are to be taken down, ``look`` are paths to look at,
    ``retry`` is in how many seconds to look at this one again."""

    result: Result
    orphans: tuple[Cookie, ...] = ()
    look: tuple[str, ...] = ()
    retry: float | None = None


class Names:
    """Looks at names, decides, acts, and keeps the roster."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin) -> None:
        self._world = world
        self._crew = crew
        self._bulletin = bulletin
        self._starved: set[str] = set()

    async def settle(self, path: str) -> Outcome:
        """Look at what a name leads to and bring it to where it should be."""
        record = self._world.roster.get(path)
        bridge, lease = None, None
        if record is not None and record.cookie is not None and record.network is not None:
            lease = self._world.lease_of(record.cookie)
            known = self._world.bridges.get(record.network)
            bridge = known.index if known else None
        try:
            handle, seen = await self._crew.observe(path, bridge, lease)
        except NamespaceGone:
            return self._vanished(path)
        except VethdError as error:
            return self._failed(self._world.roster.enter(path, time.monotonic()), str(error))
        with handle:
            return await self._settle(path, handle, seen)

    async def take_down(self, cookie: Cookie) -> Outcome:
        """Remove the attachment of a namespace that nobody names any more."""
        owner = self._world.roster.owner(cookie)
        if owner is not None:
            return Outcome("unchanged", look=(owner.path,))
        started = time.monotonic()
        lease = self._world.lease_of(cookie)
        name = self._world.name_of(cookie)
        last = await self._detach(cookie)
        self._world.strays.discard(cookie)
        place = self._world.inside.pop(cookie, None)
        if place is not None:
            self._world.routed.pop(place.host_end, None)
        carried = self._world.ledger.close(cookie)
        opened, accepted = self._world.connections.close(cookie, last.opened, last.accepted)
        former = self._world.roster.last_record(cookie)
        if former is not None:
            self._note(former, "removed", str(lease.address) if lease else "")
        self._world.roster.forget(cookie)
        self._bulletin.publish(
            "removed",
            name=name,
            address=str(lease.address) if lease else None,
            seconds=time.monotonic() - started,
            lifetime_seconds=None if former is None else round(started - former.appeared, 3),
            receive_bytes=carried.rx_bytes,
            transmit_bytes=carried.tx_bytes,
            receive_packets=carried.rx_packets,
            transmit_packets=carried.tx_packets,
            connections_opened=opened,
            connections_accepted=accepted,
        )
        starved, self._starved = tuple(self._starved), set()
        return Outcome("gone", look=starved)

    def _vanished(self, path: str) -> Outcome:
        roster = self._world.roster
        former = roster.get(path)
        others = roster.aliases(former) if former else []
        orphan = roster.leave(path) if not os.path.lexists(path) else roster.part(path, time.monotonic())
        self._starved.discard(path)
        if former is not None and former.state != "ready":
            self._note(former, "gone", "")
        return Outcome("gone", (orphan,) if orphan is not None else (), tuple(others))

    async def _settle(self, path: str, handle: Handle, seen: Observed) -> Outcome:
        roster = self._world.roster
        orphan = roster.lead(path, seen.cookie, time.monotonic())
        orphans = (orphan,) if orphan is not None else ()
        record = roster.enter(path, time.monotonic())
        owner = roster.owner(seen.cookie)
        if owner is not None and owner is not record:
            self._follow(record, owner)
            return Outcome("unchanged", orphans)
        record.alias_of = None
        config = self._world.config
        origin = Origin("named", record.name, record.path)
        verdict = choose(origin, seen, self._world.host_cookie, config, None, held=our_link(seen) is not None)
        if verdict.network is None:
            if seen.host_end is not None and is_ours(seen.host_end):
                await self._detach(seen.cookie)
            self._become(record, "left", rule=verdict.rule)
            return Outcome("left", orphans)
        record.rule, record.network = verdict.rule, verdict.network.name
        try:
            return await self._attach(record, verdict.network, handle, seen, orphans)
        except NoFreeAddress as error:
            self._starved.add(path)
            self._become(record, "failed", reason=str(error))
            return Outcome("failed", orphans)
        except VethdError as error:
            if not self._crew.is_namespace(path):
                return Outcome("gone", orphans, (path,))
            return self._failed(record, str(error), orphans)

    async def _attach(
        self, record: Record, network: Network, handle: Handle, seen: Observed, orphans: tuple[Cookie, ...]
    ) -> Outcome:
        bridge = self._world.bridges.get(network.name)
        if bridge is None:
            self._become(record, "pending", reason=self._world.host_problem)
            return Outcome("waiting", orphans)
        lease = self._world.leases[network.name].acquire(seen.cookie, record.name)
        desired = Attachment(seen.cookie, record.name, network, lease, bridge)
        record.attachment = desired
        todo = plan(desired, seen)
        try:
            host_end = await self._crew.apply(todo, handle) if todo else seen.host_end
        except KernelError as error:
            if error.code != errno.EXFULL:
                raise
            # Somebody else's ports fill the bridge.
            await self._detach(seen.cookie)
            table = self._world.leases[network.name]
            table.acquire(seen.cookie, record.name)
            table.route(seen.cookie)
            return Outcome("waiting", orphans, (record.path,))
        record.failures = 0
        self._sample(seen.cookie, network, host_end or seen.host_end)
        self._tell_attached(record, desired, todo, remarks(desired, seen))
        return Outcome("changed" if todo else "unchanged", orphans, tuple(self._world.roster.aliases(record)))

    def _follow(self, record: Record, owner: Record) -> None:
        """Have another name of a namespace stand as the one does that owns its attachment."""
        record.alias_of, record.network, record.attachment = owner.path, owner.network, owner.attachment
        self._become(record, owner.state, f"is another name of {printable(owner.path)}", owner.reason)

    def _tell_attached(
        self, record: Record, attachment: Attachment, todo: Sequence[Step], unusual: Sequence[str]
    ) -> None:
        record.reason = "; ".join(unusual)
        if record.state == "ready":
            if todo:
                kinds = sorted({step.drift for step in todo})
                record.repairs.append(time.monotonic())
                self._note(record, "repaired", ", ".join(kinds))
                self._bulletin.publish("repaired", name=record.name, kinds=kinds)
            return
        seconds = time.monotonic() - record.appeared
        adopted = not any(isinstance(step, steps.CreatePair | steps.AddDefaultRoute) for step in todo)
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

    async def _detach(self, cookie: Cookie) -> Last:
        lease = self._world.lease_of(cookie)
        network = self._world.network(lease.network) if lease else None
        bridge = self._world.bridges.get(network.name) if network else None
        last = await self._crew.remove(
            Removal(
                host_end_name(cookie),
                lease,
                bridge.index if bridge else None,
                network is not None and network.anti_spoof,
            )
        )
        if last.traffic is not None and network is not None:
            self._world.ledger.note_last(cookie, network.name, last.traffic)
        for table in self._world.leases.values():
            table.release(cookie)
        return last

    def _sample(self, cookie: Cookie, network: Network, host_end: Link | None) -> None:
        if host_end is None:
            return
        self._world.ledger.note(cookie, network.name, host_end.index, host_end.traffic)
        if host_end.peer_nsid is not None:
            self._world.attached[host_end.peer_nsid] = cookie
            self._world.inside[cookie] = Place(host_end.peer_nsid, host_end.peer, host_end.index)
        if is_routed(host_end.mac):
            self._world.routed[host_end.index] = cookie

    def _failed(self, record: Record, reason: str, orphans: tuple[Cookie, ...] = ()) -> Outcome:
        record.failures += 1
        self._become(record, "failed", reason=reason)
        delay = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(record.failures - 1, 20))
        return Outcome("failed", orphans, retry=delay * random.uniform(0.75, 1.25))

    def _become(self, record: Record, state: State, rule: str = "", reason: str = "") -> None:
        if (record.state, record.rule, record.reason) == (state, rule or record.rule, reason):
            return
        record.state, record.reason = state, reason
        record.rule = rule or record.rule
        if state == "left":
            record.network = record.attachment = None
        self._note(record, state, rule or reason)
        self._bulletin.publish(state, name=record.name, rule=record.rule, reason=reason)

    def _note(self, record: Record, event: str, detail: str) -> None:
        record.history.append(Incident(time.time(), event, detail))
