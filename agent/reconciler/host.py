"""Bringing the host's side to where it should be: bridges, forwarding, the ruleset."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from agent.core.hostplan import (
    HostSeen,
    bridge_of,
    conflicts,
    find_originals,
    host_plan,
    is_our_bridge,
)
from agent.core.roster import Incident
from agent.errors import ConfigError, VethdError
from agent.kernel.crew import Crew
from agent.kernel.host import device_name
from agent.model import Link
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.contest import CONTESTED, is_contested
from agent.reconciler.world import Part, World

_PART: Final[Part] = "host"
_TRACKING: Final[Part] = "conntrack"
_FULL: Final = 0.95

_log = structlog.get_logger()


class HostSide:
    """Looks at the host and repairs it; one look at a time."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin) -> None:
        self._world = world
        self._crew = crew
        self._bulletin = bulletin
        self._originals: dict[str, str] | None = None
        self._culprit: str | None = None
        self._stands = False
        self.adopts = True
        """Whether the next look takes in which attachments there are."""
        self.repairs: deque[float] = deque(maxlen=8)

    def suspect(self, culprit: str) -> None:
        """Have the ruleset loaded anew at the next look: somebody else changed it."""
        self._culprit = culprit

    def fits(self, link: Link) -> bool:
        """Tell whether a bridge of ours or the uplink is as the last look at the host left it."""
        world = self._world
        if world.uplink is not None and link.index == world.uplink.index:
            return link.mtu == world.uplink.mtu
        bridge = next((each for each in world.bridges.values() if each.index == link.index), None)
        if bridge is None:
            return True
        return link.up and (link.mac, link.mtu) == (bridge.mac, bridge.mtu) and is_our_bridge(link)

    async def begin(self, listen: Callable[[], None]) -> None:
        """Settle for the first time, and from then on `listen` to who changes the rules.

        Not before: the kernel holds a message for each element of a transaction until it is done, of some kilobytes,
        if anybody listens. Raises as `settle`, and ConfigError when the host uses a network's subnet otherwise.
        """
        before = await self._crew.rules_generation()
        seen = await self._crew.observe_host(self._world.config.networks)
        self._refuse_conflicts(seen)
        await self.settle(seen)
        listen()
        loads = 0 if self._world.config.mode == "observe" else 1
        if before is not None and await self._crew.rules_generation() != before + loads:
            self.suspect("somebody, while vethd started")
            await self.settle()

    async def settle(self, seen: HostSeen | None = None) -> bool:
        """Bring the host's side to where it should be; True when namespaces must be looked at again.

        ``seen`` is what it is, if that was read just now. Raises KernelError or HostError.
        """
        if self._world.config.mode == "observe":
            return await self._observe()
        started = time.monotonic()
        networks, accounting = self._world.config.networks, self._world.config.conntrack_accounting
        culprit, self._culprit = self._culprit, None
        reloaded = culprit is not None
        if culprit is not None:
            # First of all: without the rules every packet counts.
            await self._put_rules_back(culprit)
        seen = seen or await self._crew.observe_host(networks)
        if self._originals is None:
            self._originals = find_originals(networks, seen, accounting)
        steps = host_plan(networks, seen, self._originals, accounting)
        if steps:
            await self._crew.apply_host(steps)
            seen = await self._crew.observe_host(networks)
        if self.adopts:
            await self._adopt()
            self.adopts = False
        if not self._stands:
            await self._load_rules()
        elif not reloaded and not await self._crew.rules_loaded():
            reloaded = True
            await self._put_rules_back("")
        changed = self._note(seen)
        kinds = sorted({step.drift for step in steps} | ({"ruleset"} if reloaded else set()))
        if self._stands and kinds:
            self._note_repair(kinds, culprit or "", time.monotonic() - started)
        elif not is_contested(self.repairs):
            self._world.troubles.pop(_PART, None)
        self._stands = True
        self._note_tracking(await self._crew.tracked_connections())
        return changed or bool(steps)

    def _refuse_conflicts(self, seen: HostSeen) -> None:
        for network in self._world.config.networks if self._world.config.mode == "manage" else ():
            conflict = conflicts(network, seen)
            if conflict is not None:
                where = self._world.config.source or "built-in config"
                subnet, device = conflict
                raise ConfigError(
                    f"{where}: network.{network.name}: {subnet} is routed on this host already, by device"
                    f" {device_name(device)}; choose a subnet that is free"
                )

    async def _adopt(self) -> None:
        world = self._world
        world.gone = set()
        try:
            world.adopt(await self._crew.host_links())
        finally:
            world.gone = None

    async def _observe(self) -> bool:
        """Read, and change nothing."""
        seen = await self._crew.observe_host(self._world.config.networks)
        self._world.uplink, self._world.host_problem = seen.uplink, ""
        return False

    async def _load_rules(self) -> None:
        await self._crew.load_rules(self._world.config.networks, self._world.members, self._world.plain_leases)

    async def _put_rules_back(self, culprit: str) -> None:
        try:
            await self._load_rules()
            await self._crew.forget_untranslated(self._world.config.networks, self._world.plain_leases())
        except VethdError:
            # Tables that are there, but not as they should be, are not missed by anybody else.
            self._culprit = culprit if self._culprit is None else self._culprit
            raise

    def _note_tracking(self, tracked: tuple[int, int] | None) -> None:
        self._world.troubles.pop(_TRACKING, None)
        if tracked is not None and tracked[0] > _FULL * tracked[1]:
            count, limit = tracked
            self._world.troubles[_TRACKING] = (
                f"{count} of {limit} tracked connections: the host drops new ones; raise net.netfilter.nf_conntrack_max"
            )

    def _note_repair(self, kinds: list[str], culprit: str, seconds: float) -> None:
        was_contested = is_contested(self.repairs)
        self.repairs.append(time.monotonic())
        self._bulletin.publish("host-repaired", kinds=kinds, culprit=culprit, seconds=seconds)
        what = ", ".join(kinds) + (f", changed by {culprit}" if culprit else "")
        for record in self._world.roster:
            if record.state == "ready":
                record.tell_again(Incident(time.time(), "host repaired", what))
        if is_contested(self.repairs):
            self._world.troubles[_PART] = f"the host's side ({what}): {CONTESTED}"
            if not was_contested:
                _log.warning("contested", kinds=kinds, culprit=culprit, reason=CONTESTED)

    def _note(self, seen: HostSeen) -> bool:
        world = self._world
        bridges = {
            network.name: bridge
            for network in world.config.networks
            if (bridge := bridge_of(network, seen)) is not None
        }
        changed = bridges != world.bridges
        world.bridges, world.uplink, world.host_problem = bridges, seen.uplink, ""
        return changed
