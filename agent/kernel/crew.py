"""The threads that do the kernel's work, and what the loop asks of them.

The plumber looks and makes; the reaper takes down. The RTNL lock lets one writer in at a
time, so more plumbers would only wait; but a deletion waits for RCU, not for the lock, and
must not hold the plumber up.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple, TypeVar

from agent.core.hostplan import HostSeen, HostStep
from agent.core.identity import host_end_name
from agent.core.steps import Step
from agent.kernel import faults
from agent.kernel.attachments import Attachments, Expect
from agent.kernel.doom import Deletion
from agent.kernel.flows import tracked_connections
from agent.kernel.host import host_links, observe_host
from agent.kernel.leftovers import IsHeld, forget_untranslated, sweep_bridges
from agent.kernel.members import Member
from agent.kernel.namespaces import Namespaces
from agent.kernel.netlink import Netlink
from agent.kernel.reading import read_link
from agent.kernel.reaper import Last, Reaper, Removal
from agent.kernel.ruleset import Ruleset
from agent.model import Bridge, Cookie, Lease, Link, Network, Observed, Origin

_Result = TypeVar("_Result")


class _Asked(NamedTuple):
    """A removal that was asked for."""

    removal: Removal
    meanwhile: Callable[[], object]
    done: "asyncio.Future[Last]"


_Batch = list[_Asked]


class Crew:
    """Asynchronous doors to blocking kernel work."""

    def __init__(
        self, namespaces: Namespaces, on_step: Callable[[Step], None] | None = None, sees_rivals: bool = False
    ) -> None:
        self._namespaces = namespaces
        self._ruleset = Ruleset()
        self._attachments = Attachments(namespaces, on_step, sees_rivals)
        self._reaper = Reaper()
        self._host = Netlink()
        self._plumber_thread = ThreadPoolExecutor(1, "plumber")
        self._reaper_thread = ThreadPoolExecutor(1, "reaper")
        self._removals: _Batch = []
        self._reaping: asyncio.Task[None] | None = None

    @property
    def own_ports(self) -> frozenset[int]:
        """The netlink port ids from which the rules and the elements of their sets are changed."""
        return self._ruleset.netfilter_ports | {self._attachments.netfilter_port, self._reaper.netfilter_port}

    def leads_to_namespace(self, origin: Origin) -> bool:
        """Tell whether a name leads to a namespace; costs one stat."""
        return self._namespaces.is_namespace(origin.path, of_process=origin.source == "process")

    async def settle(
        self,
        origin: Origin,
        expect: Expect,
        decide: Callable[[Observed], Sequence[Step]],
        finish: Callable[[int], None],
    ) -> Link | None:
        """See Attachments.settle; what it calls is called on the plumber's thread."""
        return await self._plumb(self._attachments.settle, origin, expect, decide, finish)

    async def host_end(self, cookie: Cookie) -> Link | None:
        """Return a namespace's host end, None when it has none."""
        return await self._plumb(read_link, self._host, host_end_name(cookie))

    async def observe_host(self, networks: Sequence[Network]) -> HostSeen:
        """See host.observe_host."""
        return await self._plumb(observe_host, self._host, networks)

    async def apply_host(self, plan: Sequence[HostStep]) -> None:
        """See hostwork.apply_host."""
        await self._plumb(apply_host, plan)

    async def host_links(self) -> list[Link]:
        """Return all devices of the host."""
        links = await self._plumb(host_links, self._host)
        self._attachments.numbers.go_on_from(links)
        return links

    async def tracked_connections(self) -> tuple[int, int] | None:
        """See flows.tracked_connections."""
        return await self._plumb(tracked_connections)

    async def load_rules(
        self,
        networks: Sequence[Network],
        members: Callable[[], Sequence[Member]],
        plain: Callable[[], Sequence[Lease]],
    ) -> None:
        """See Ruleset.load."""
        # Asked on the plumber's thread: nobody is admitted between the answer and the load that would forget him.
        await self._plumb(self._load, networks, members, plain)

    async def rules_loaded(self) -> bool:
        """See Ruleset.is_loaded."""
        return await self._plumb(self._ruleset.is_loaded)

    async def rules_generation(self) -> int | None:
        """See Ruleset.generation."""
        return await self._plumb(self._ruleset.generation)

    async def sweep(self, networks: Sequence[Network], bridges: Mapping[str, Bridge], is_held: IsHeld) -> int:
        """Remove what namespaces left that went while no agent was there; return how many entries.

        Raises KernelError.
        """
        loop = asyncio.get_running_loop()
        swept = await asyncio.gather(
            # Leases are taken on the plumber's thread: what is free there stays so until its entries are gone.
            self._plumb(sweep_bridges, self._host, networks, bridges, is_held),
            loop.run_in_executor(self._reaper_thread, self._reaper.sweep, networks, is_held),
        )
        return sum(swept)

    async def forget_untranslated(self, networks: Sequence[Network], plain: Sequence[Lease]) -> int:
        """See leftovers.forget_untranslated."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reaper_thread, forget_untranslated, networks, plain)

    async def remove(self, removal: Removal, meanwhile: Callable[[], object] = lambda: None) -> Last:
        """Take an attachment down, together with all others that are asked for in the meantime.

        ``meanwhile`` is called on the reaper's thread, which has to wait anyway. Raises KernelError, and what that
        raises, once all is down.
        """
        done: asyncio.Future[Last] = asyncio.get_running_loop().create_future()
        self._removals.append(_Asked(removal, meanwhile, done))
        if self._reaping is None:
            # At once: the loop may have other things to do first.
            self._reaping = asyncio.create_task(self._reap(*self._begin()), name="reap")
        return await done

    async def close(self) -> None:
        """Finish what is being done and end the threads."""
        if self._reaping is not None:
            await self._reaping
        self._plumber_thread.shutdown()
        self._reaper_thread.shutdown()
        self._attachments.close()
        self._reaper.close()
        self._host.close()

    def _load(
        self,
        networks: Sequence[Network],
        members: Callable[[], Sequence[Member]],
        plain: Callable[[], Sequence[Lease]],
    ) -> None:
        self._ruleset.load(networks, members(), plain())

    def _begin(self) -> tuple[_Batch, Deletion]:
        batch, self._removals = self._removals, []
        return batch, self._reaper.begin([each.removal for each in batch])

    async def _reap(self, batch: _Batch, deletion: Deletion) -> None:
        try:
            while True:
                await self._finish(batch, deletion)
                if not self._removals:
                    return
                batch, deletion = self._begin()
        finally:
            self._reaping = None

    async def _finish(self, batch: _Batch, deletion: Deletion) -> None:
        loop = asyncio.get_running_loop()
        try:
            lasts = await loop.run_in_executor(self._reaper_thread, self._take_down, batch, deletion)
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            for each in batch:
                if not each.done.done():
                    each.done.set_exception(error)
        else:
            for each, last in zip(batch, lasts, strict=True):
                if each.done.done():
                    continue
                if isinstance(last, Last):
                    each.done.set_result(last)
                else:
                    each.done.set_exception(last)

    def _take_down(self, batch: _Batch, deletion: Deletion) -> list[Last | Exception]:
        with closing(deletion):
            # One's mistake keeps no other.
            mistakes = [_mistake_of(each.meanwhile) for each in batch]
            lasts = self._reaper.finish([each.removal for each in batch], deletion)
        return [mistake or last for mistake, last in zip(mistakes, lasts, strict=True)]

    async def _plumb(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        work = faults.around(work)
        return await asyncio.get_running_loop().run_in_executor(self._plumber_thread, work, *arguments)


def _mistake_of(work: Callable[[], object]) -> Exception | None:
    try:
        work()
    except Exception as mistake:  # noqa: BLE001  whoever asked gets it
        return mistake
    return None


def apply_host(plan: Sequence[HostStep]) -> None:
    """See hostwork.apply_host."""
    # Where the host's side stands, as it does at most starts, pyroute2 is not needed, and to load it takes a while.
    from agent.kernel import hostwork  # noqa: PLC0415

    hostwork.apply_host(plan)
