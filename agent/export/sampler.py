"""Reading the kernel's counters for those who ask, in threads, so that plumbing never waits."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from agent.core.connections import Flows
from agent.kernel.counters import read_inside, read_traffic
from agent.kernel.flows import Table, count_flows, read_table
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import read_openings
from agent.model import Cookie, Traffic
from agent.reconciler.world import World

# One question for each namespace, 0.1 ms of processor time each: asked seldom.
_INSIDE_INTERVALS: Final = 6


class Sampler:
    """Refreshes the world's traffic and connections. Many who ask at once cost what one does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = asyncio.Lock()
        self._flows_due = 0.0
        self._inside_due = 0.0
        self.table = Table(0, 0, ())

    async def sample(self) -> Mapping[int, Traffic]:
        """Read traffic and opened connections now; conntrack's table, and what only the ends inside
        namespaces know of drops, if the last look is old enough.

        Returns the counters of all devices of the host, by ifindex. Raises KernelError.
        """
        async with self._lock:
            traffic, openings = await asyncio.to_thread(_read_counters)
            self._world.ledger.note_all(traffic)
            self._world.note_openings(openings)
            if time.monotonic() >= self._flows_due:
                flows, self.table = await asyncio.to_thread(_read_flows, self._world.holders())
                self._world.connections.note_flows(flows)
                self._flows_due = time.monotonic() + self._world.config.conntrack_interval
            if time.monotonic() >= self._inside_due:
                self._world.ledger.note_inside(await asyncio.to_thread(read_inside, dict(self._world.inside)))
                self._inside_due = time.monotonic() + _INSIDE_INTERVALS * self._world.config.conntrack_interval
            return traffic


def _read_counters() -> tuple[dict[int, Traffic], dict[bytes, tuple[int, int]]]:
    with Netlink(NETLINK_NETFILTER) as netfilter:
        return read_traffic(), read_openings(netfilter)


def _read_flows(holders: Mapping[bytes, Cookie]) -> tuple[Flows, Table]:
    return count_flows(holders), read_table()
