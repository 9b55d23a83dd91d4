"""Taking one namespace's attachment down, in the kernel and in all books."""

import time
from collections.abc import Callable
from functools import partial

from agent.config.wishes import forget_runtime_wish
from agent.core.identity import host_end_name
from agent.core.roster import Incident, Record
from agent.kernel.crew import Crew
from agent.kernel.reaper import Last, Removal
from agent.model import Cookie
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.world import World


class Removals:
    """Has it done by the crew. An attachment that cannot be removed keeps its lease."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin) -> None:
        self._world = world
        self._crew = crew
        self._bulletin = bulletin
        self.hear_of_devices: Callable[[], None] = lambda: None
        """Has what the kernel told of devices heard at once; set where they are listened to."""

    async def withdraw(self, cookie: Cookie, record: Record | None) -> None:
        """Take an attachment down and tell what it carried; ``record`` is that of its name. Raises KernelError."""
        world = self._world
        started = time.monotonic()
        lease = world.lease_of(cookie)
        name = record.name if record is not None else world.name_of(cookie)
        last = await self.detach(cookie, partial(self._forget_resolvers, name, cookie))
        self.forget_wish(name)
        world.strays.discard(cookie)
        carried = world.ledger.close(cookie)
        opened, accepted = world.connections.close(cookie, last.opened, last.accepted)
        for told in world.roster.told_of(record):
            told.tell(Incident(time.time(), "removed", str(lease.address) if lease else ""))
        self._bulletin.publish(
            "removed",
            name=name,
            address=str(lease.address) if lease else None,
            seconds=time.monotonic() - started,
            lifetime_seconds=None if record is None else round(started - record.appeared, 3),
            receive_bytes=carried.rx_bytes,
            transmit_bytes=carried.tx_bytes,
            receive_packets=carried.rx_packets,
            transmit_packets=carried.tx_packets,
            connections_opened=opened,
            connections_accepted=accepted,
        )

    def _forget_resolvers(self, name: str, cookie: Cookie) -> None:
        if self._world.resolvers is not None:
            self._world.resolvers.remove(name, cookie)

    def forget_wish(self, name: str) -> None:
        """Drop what was wished for a name by ``vethd new``, unless that stands for another namespace by now."""
        if self._world.roster.find(name) is None:
            forget_runtime_wish(self._world.config.socket, name)

    async def detach(self, cookie: Cookie, meanwhile: Callable[[], object] = lambda: None) -> Last:
        """Take an attachment down and free its lease; return what it had carried at its end.

        ``meanwhile`` is called on another thread. Raises KernelError.
        """
        world = self._world
        lease = world.lease_of(cookie)
        network = world.network(lease.network) if lease else None
        bridge = world.bridges.get(network.name) if network else None
        removal = Removal(
            host_end_name(cookie),
            lease,
            bridge.index if bridge else None,
            network is not None and network.anti_spoof,
            cookie in world.plain,
        )
        world.leaving.add(cookie)
        try:
            last = await self._crew.remove(removal, meanwhile)
            if last.traffic is None:
                # Its own end was told, then, and knows what the namespace received.
                self.hear_of_devices()
            elif network is not None:
                world.ledger.note_last(cookie, network.name, last.traffic)
            if last.sent is not None:
                world.ledger.note_sent(cookie, last.sent.packets, last.sent.framed)
            if last.failure is not None:
                raise last.failure
            world.plain.discard(cookie)
            world.admitted.pop(cookie, None)
            world.forget_place(cookie)
            if world.gone is not None:
                world.gone.add(cookie)
            with world.lock:
                for table in world.leases.values():
                    table.release(cookie)
        finally:
            # After its lease: rules that are loaded anew are not to admit it again.
            world.leaving.discard(cookie)
        return last
