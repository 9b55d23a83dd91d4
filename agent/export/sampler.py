"""Reading the kernel's counters for those who ask, in threads, so that plumbing never waits."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import add
from typing import Final

import structlog

from agent.core.connections import Flows
from agent.errors import KernelError
from agent.export.residents import Resident, Residents
from agent.export.turns import Turns
from agent.kernel.counters import read_inside, read_traffic
from agent.kernel.flows import Table, count_flows, read_table
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import Openings, count_openings
from agent.model import Cookie, Traffic
from agent.reconciler.world import World

# One question for each namespace, 0.05 ms of processor time each: asked seldom.
_INSIDE_INTERVALS: Final = 6
_NO_CONNECTIONS: Final = (0, 0)

_log = structlog.get_logger()


class Sampler:
    """Refreshes the world's traffic and connections. Many who ask at once cost what one does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turns = Turns(self._read)
        self._flows_due = 0.0
        self._inside_due = 0.0
        self._inside: asyncio.Task[None] | None = None
        self.residents = Residents(world)
        self._counted: Sequence[Resident] = ()
        self._counts: list[tuple[int, int]] = []
        self.table = Table(0, 0, ())

    async def sample(self) -> Mapping[int, Traffic]:
        """Read traffic and opened connections now, and conntrack's table if the last look is old enough.

        What only the ends inside namespaces know of drops comes later, and is not waited for.
        Returns the counters of all devices of the host, by ifindex. Raises KernelError.
        """
        return await self._turns.take()

    async def _read(self) -> Mapping[int, Traffic]:
        (traffic, openings), _ = await asyncio.gather(asyncio.to_thread(_read_counters), self._read_flows_if_due())
        self._world.ledger.note_all(traffic)
        await asyncio.sleep(0)
        self._note_openings(openings)
        self._read_inside_if_due()
        return traffic

    def _note_openings(self, openings: Openings) -> None:
        """Take the counts of both families together; only those that have changed cost anything."""
        residents = self.residents.now()
        if residents is not self._counted:
            self._counted, self._counts = residents, [_NO_CONNECTIONS] * len(residents)
        columns = [*zip(*(each.addresses for each in residents), strict=True)]
        directions = ([map(counts.get, column, repeat(0)) for column in columns] for counts in openings)
        counts = [*zip(*(map(add, *families) for families in directions), strict=True)] if columns else []
        for resident, now, before in zip(residents, counts, self._counts, strict=True):
            # Nothing at all is nothing yet, or the sets were just made anew.
            if now != before and now != _NO_CONNECTIONS:
                self._world.connections.note(resident.cookie, *now)
        self._counts = counts

    async def _read_flows_if_due(self) -> None:
        if time.monotonic() < self._flows_due:
            return
        holders = {address: each.cookie for each in self.residents.now() for address in each.addresses if address}
        flows, self.table = await asyncio.to_thread(_read_flows, holders)
        self._world.connections.note_flows(flows)
        self._flows_due = time.monotonic() + self._world.config.conntrack_interval

    def _read_inside_if_due(self) -> None:
        if time.monotonic() < self._inside_due or not (self._inside is None or self._inside.done()):
            return
        self._inside = asyncio.create_task(self._read_inside(), name="counters inside")

    async def _read_inside(self) -> None:
        try:
            samples = await asyncio.to_thread(read_inside, dict(self._world.inside))
        except KernelError as error:
            _log.warning("counters inside namespaces not read", reason=str(error))
        else:
            self._world.ledger.note_inside(samples)
        self._inside_due = time.monotonic() + _INSIDE_INTERVALS * self._world.config.conntrack_interval


def _read_counters() -> tuple[dict[int, Traffic], Openings]:
    with Netlink(NETLINK_NETFILTER) as netfilter:
        return read_traffic(), count_openings(netfilter)


def _read_flows(holders: Mapping[bytes, Cookie]) -> tuple[Flows, Table]:
    return count_flows(holders), read_table()
