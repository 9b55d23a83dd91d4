"""Reading the kernel's counters for those who ask, in threads, so that plumbing never waits."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from operator import is_
from typing import Final

import structlog

from agent.core.connections import Flows
from agent.errors import KernelError
from agent.export.residents import Resident, Residents
from agent.export.turns import Turns
from agent.kernel.counters import TrafficReader, read_inside
from agent.kernel.flows import Table, count_flows, read_table
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import Openings, OpeningsReader
from agent.model import Cookie, Traffic
from agent.reconciler.watched import Watch
from agent.reconciler.world import World

# One question for each namespace, 0.05 ms of processor time each: asked seldom.
_INSIDE_INTERVALS: Final = 6
_NO_CONNECTIONS: Final = (0, 0)

_log = structlog.get_logger()


class Sampler:
    """Refreshes the world's traffic and connections. Many who ask at once cost what one does."""

    def __init__(self, world: World, watch: Watch) -> None:
        self._world = world
        self._turns = Turns(self._read)
        self._flows_due = 0.0
        self._inside_due = 0.0
        self._inside: asyncio.Task[None] | None = None
        self.residents = Residents(world, watch)
        self._traffic = TrafficReader()
        self._openings = OpeningsReader()
        self._complaints: dict[str, str] = {}
        self._counted: Sequence[Resident] = ()
        self._counts = Openings({}, {})
        self.table = Table(0, 0, ())

    async def sample(self) -> Mapping[int, Traffic]:
        """Read traffic and opened connections now, and conntrack's table if the last look is old enough.

        What only the ends inside namespaces know of drops comes later, and is not waited for.
        Returns the counters of all devices of the host, by ifindex. Raises KernelError.
        """
        return await self._turns.take()

    async def _read(self) -> Mapping[int, Traffic]:
        residents = self.residents.now()
        (traffic, openings), _ = await asyncio.gather(asyncio.to_thread(self._read_counters), self._read_flows_if_due())
        self._world.ledger.note_all(traffic)
        await asyncio.sleep(0)
        self._note_openings(residents, openings)
        self._read_inside_if_due()
        return traffic

    def _read_counters(self) -> tuple[Mapping[int, Traffic], Openings]:
        with Netlink(NETLINK_NETFILTER) as netfilter:
            return self._traffic.read(), self._openings.read(netfilter)

    def _note_openings(self, residents: Sequence[Resident], openings: Openings) -> None:
        """Take the counts of both families together; what has not changed costs next to nothing.

        ``residents`` were there before the counts were read: who came meanwhile may have the address of
        somebody who went.
        """
        if residents is self._counted and all(map(is_, openings, self._counts)):
            return
        self._counted, self._counts = residents, openings
        there = self.residents.now()
        staying = residents if there is residents else {*residents}.intersection(there)
        opened, accepted = openings.opened.get, openings.accepted.get
        for resident in staying:
            four, six = resident.addresses
            counts = opened(four, 0) + opened(six, 0), accepted(four, 0) + accepted(six, 0)
            # Nothing at all is nothing yet, or the sets were just made anew.
            if counts != _NO_CONNECTIONS:
                self._world.connections.note(resident.cookie, *counts)

    async def _read_flows_if_due(self) -> None:
        if time.monotonic() < self._flows_due:
            return
        holders = {address: each.cookie for each in self.residents.now() for address in each.addresses if address}
        with self._complaining("connections not read"):
            flows, self.table = await asyncio.to_thread(_read_flows, holders)
            self._world.connections.note_flows(flows)
        self._flows_due = time.monotonic() + self._world.config.conntrack_interval

    def _read_inside_if_due(self) -> None:
        if time.monotonic() < self._inside_due or not (self._inside is None or self._inside.done()):
            return
        self._inside = asyncio.create_task(self._read_inside(), name="counters inside")

    async def _read_inside(self) -> None:
        with self._complaining("counters inside namespaces not read"):
            self._world.ledger.note_inside(await asyncio.to_thread(read_inside, dict(self._world.inside)))
        self._inside_due = time.monotonic() + _INSIDE_INTERVALS * self._world.config.conntrack_interval

    @contextlib.contextmanager
    def _complaining(self, what: str) -> Iterator[None]:
        """Go on without what the kernel refuses to tell, and say so once."""
        try:
            yield
        except KernelError as error:
            if self._complaints.get(what) != str(error):
                _log.warning(what, reason=str(error))
            self._complaints[what] = str(error)
        else:
            self._complaints.pop(what, None)


def _read_flows(holders: Mapping[bytes, Cookie]) -> tuple[Flows, Table]:
    return count_flows(holders), read_table()
