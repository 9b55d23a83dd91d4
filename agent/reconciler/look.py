"""One look at a namespace: what is decided between reading it and changing it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.core import steps
from agent.core.origin import origin_of
from agent.core.plan import our_link, plan
from agent.core.policy import Verdict, choose, is_named
from agent.core.roster import Record
from agent.core.steps import Step
from agent.core.wanted import attachment, wished_index
from agent.kernel import procfs
from agent.model import Attachment, Cookie, Network, Observed, Origin, Wish
from agent.reconciler.wishing import have_changed
from agent.reconciler.world import World

# Who brings a device into a namespace this soon after it was networked raced with us, and has it.
_YOUNG_SECONDS: Final = 5.0
_SHORTEST_PATIENCE: Final = 0.005
_LONGEST_PATIENCE: Final = 30.0


class Look:
    """Decides on the plumber's thread, so that a namespace is read and changed in one go.

    Of the world it reads what is replaced as a whole, and takes leases; it keeps no books. What
    it found stands in its fields, for the loop to read when the look is over.
    """

    def __init__(self, world: World, origin: Origin, settled: Attachment | None, young: bool) -> None:
        """``settled`` is what the name had when it was ready; ``young`` says that it is so since a moment ago."""
        self._world = world
        self.origin = origin
        self._settled = settled
        self._young = young
        self.seen: Observed | None = None
        self.verdict: Verdict | None = None
        self.desired: Attachment | None = None
        self.admitted: Origin | None = None
        self.todo: tuple[Step, ...] = ()
        self.remark = ""
        self.is_being_removed = False
        self.must_start_over = False
        self.needs_wishes = False
        self.has_company = False

    def decide(self, seen: Observed) -> Sequence[Step]:
        """Return what is to be done. Raises NoFreeAddress or ForeignDevice."""
        self.seen = seen
        world = self._world
        world.looking[self.origin.path] = seen.cookie
        if seen.cookie in world.leaving:
            self.is_being_removed = True
            return ()
        if not self._is_owner(seen.cookie):
            return ()
        if world.lease_of(seen.cookie) is None and have_changed(world):
            self.needs_wishes = True
            return ()
        self.verdict = self._choose(seen)
        if not self.verdict.is_final and self._has_become_another():
            self.verdict = self._choose(seen)
        wish = world.wish_of(self.origin)
        network = self.verdict.network
        if network is not None and world.config.mode == "observe":
            self.verdict = Verdict(None, f"agent.mode is observe, else: {self.verdict.rule}")
            network = None
        bridge = None if network is None else world.bridges.get(network.name)
        if network is None or bridge is None:
            return ()
        if self._has_other_plans(seen.cookie, network, wish):
            self.must_start_over = True
            return ()
        # What could not be swept may be connections of who had its address.
        new = world.is_swept and world.lease_of(seen.cookie) is None
        with world.lock:
            lease = world.leases[network.name].acquire(seen.cookie, self.origin.name, wished_index(network, wish))
        self.desired = attachment(seen.cookie, self.origin.name, network, lease, bridge, wish)
        self.todo = plan(self.desired, replace(seen, exempt=seen.cookie in world.plain, new=new))
        return self.todo

    def finish(self, devices: int) -> None:
        """Write down which name servers the namespace has, before anybody is told that it is ready.

        ``devices`` are how many it has now: more than we made is somebody else at work.
        """
        if self.seen is not None and self.seen.inside is not None:
            made = sum(isinstance(step, steps.CreatePair) for step in self.todo)
            lost = sum(isinstance(step, steps.DeletePair) for step in self.todo)
            self.has_company = devices > len(self.seen.inside.links) + made - lost and made > 0
        if self.desired is not None:
            self._note_exemption(self.desired)
        desired, resolvers = self.desired, self._world.resolvers
        if desired is None or resolvers is None or self.origin.source != "named":
            return
        wish = self._world.wish_of(self.origin)
        has_ipv6 = desired.lease.address6 is not None
        self.remark = resolvers.write(self.origin.name, wish.dns if wish else None, has_ipv6, desired.cookie)

    def _note_exemption(self, desired: Attachment) -> None:
        # Before the rules can be loaded anew, which is done on this thread too.
        if desired.exempt:
            self._world.plain.add(desired.cookie)
        else:
            self._world.plain.discard(desired.cookie)

    def _choose(self, seen: Observed) -> Verdict:
        world = self._world
        wish, held, former = world.wish_of(self.origin), self._is_held(seen), None
        if self.origin.source == "process":
            former = world.admitted.get(seen.cookie)
            self.admitted = self.origin if former is None or is_named(self.origin, seen, world.config) else former
        return choose(self.origin, seen, world.host_cookie, world.config, wish, held=held, admitted=former)

    def _has_become_another(self) -> bool:
        """Tell whether the process calls itself otherwise by now: some do so without running another program."""
        process = None if self.origin.pid is None else procfs.describe(self.origin.pid)
        former = self.origin
        if process is not None:
            self.origin = origin_of(process, former.path)
        return self.origin != former

    def _is_owner(self, cookie: Cookie) -> bool:
        """Tell whether this name owns the namespace's attachment, or takes it over: a file does from a process."""
        owner = self._world.roster.owner(cookie)
        if owner is None or owner.path == self.origin.path:
            return True
        return owner.origin.source == "process" and self.origin.source == "named"

    def _is_held(self, seen: Observed) -> bool:
        """Tell whether the namespace is ours for good: whoever came at the same time as we did has it."""
        if self._young:
            return False
        return our_link(seen) is not None or (self._settled is not None and self._settled.cookie == seen.cookie)

    def _has_other_plans(self, cookie: Cookie, network: Network, wish: Wish | None) -> bool:
        """Tell whether what stands was made for another network, address or device name."""
        lease = self._world.lease_of(cookie)
        if lease is None:
            return False
        index = wished_index(network, wish)
        interface = (wish.interface if wish else None) or network.interface
        former = self._settled
        return (
            lease.network != network.name
            or index not in {None, lease.index}
            or (former is not None and former.cookie == cookie and former.network.interface != interface)
        )


def settled_attachment(record: Record | None) -> Attachment | None:
    """Return what a name has had since it was ready once, None before; that a look fails takes nothing from it."""
    return record.attachment if record is not None and record.ready_since is not None else None


def is_young(record: Record) -> bool:
    """Tell whether a namespace was networked so short a time ago that somebody may have raced with us."""
    return record.ready_since is not None and time.monotonic() - record.ready_since < _YOUNG_SECONDS


def patience(record: Record) -> float:
    """Return in how many seconds to see whether a runtime has set a namespace up by now.

    A program that it runs is an event, that it calls itself otherwise is none; the longer it has taken, the longer
    it will take.
    """
    return min(max(_SHORTEST_PATIENCE, (time.monotonic() - record.appeared) / 2), _LONGEST_PATIENCE)
