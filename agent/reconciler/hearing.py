"""What the sources say, compared with what should be: only what differs is looked at."""

import time
from typing import Final

from agent.core.fits import device_fits, host_end_fits
from agent.core.identity import cookie_of
from agent.core.roster import Record, named
from agent.kernel.crew import Crew
from agent.model import Attachment, Cookie, Link, Origin
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.contest import DELAY_SECONDS, is_contested
from agent.reconciler.host import HostSide
from agent.reconciler.keys import Keys
from agent.reconciler.look import is_young
from agent.reconciler.watched import Watch
from agent.reconciler.world import World

_SETTLE_SECONDS: Final = 0.005


class Hearing:
    """The sources' Sink: marks what has to be looked at, and when."""

    def __init__(self, world: World, crew: Crew, bulletin: Bulletin, host: HostSide, keys: Keys, watch: Watch) -> None:
        self._world = world
        self._crew = crew
        self._bulletin = bulletin
        self._host = host
        self._keys = keys
        self._watch = watch

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
        self._keys.mark(path, reason="event")

    def placeholder(self, path: str) -> None:
        """See Sink."""
        record = self._world.roster.enter(path, time.monotonic())
        record.reason = "is no network namespace yet"
        if record.cookie is not None:
            self._keys.mark(path, reason="event")

    def process_appeared(self, origin: Origin) -> None:
        """See Sink."""
        record = self._world.roster.enter(origin.path, time.monotonic(), origin)
        if record.state == "pending" and record.cookie is not None:
            # It was left to its runtime so far: as a namespace to be networked it appears now.
            record.appeared = time.monotonic()
        self._keys.mark(origin.path, reason="event")

    def process_gone(self, path: str) -> None:
        """See Sink."""
        record = self._world.roster.get(path)
        if record is not None:
            record.departed = True
            self._keys.mark(path, reason="event")

    def known_paths(self) -> set[str]:
        """See Sink."""
        return self._world.roster.paths()

    def look_attachment(self, cookie: Cookie) -> None:
        """See Sink."""
        owner = self._world.roster.owner(cookie)
        if owner is not None:
            self._mark_drift(owner)

    def host_end_gone(self, cookie: Cookie, link: Link) -> None:
        """See Sink."""
        self._world.ledger.note_gone(cookie, link.index, link.traffic)
        self.look_attachment(cookie)

    def look_inside(self, nsid: int) -> None:
        """See Sink."""
        cookie = self._world.attached.get(nsid)
        if cookie is not None:
            self.look_attachment(cookie)

    def look_host(self, culprit: str) -> None:
        """See Sink."""
        if culprit:
            self._host.suspect(culprit)
        if is_contested(self._host.repairs):
            self._keys.mark_host(DELAY_SECONDS)
        else:
            self._keys.mark_host(0.0 if culprit else _SETTLE_SECONDS)

    def look_host_device(self, index: int) -> None:
        """See Sink."""
        if self._is_host_device(index):
            self.look_host("")
        elif index in self._world.routed:
            self.look_attachment(self._world.routed[index])

    def check_link(self, nsid: int | None, link: Link) -> None:
        """See Sink."""
        if nsid is None and cookie_of(link.name) is None:
            if self._is_host_device(link.index) and not self._host.fits(link):
                self.look_host("")
            if self._world.config.mode == "observe" and link.kind == "veth":
                for path in self._watch.unconnected():
                    self._keys.mark(path, _SETTLE_SECONDS, reason="event")
            return
        cookie = cookie_of(link.name) if nsid is None else self._world.attached.get(nsid)
        if cookie is None and nsid is not None and not self._is_our_name(link.name):
            self._world.note_company(nsid)
        owner = self._world.roster.owner(cookie) if cookie is not None else None
        if owner is not None and self._world.config.mode == "observe":
            self._keys.mark(owner.path, _SETTLE_SECONDS, reason="event")
        if owner is None or owner.attachment is None:
            return
        if nsid is None:
            odd = not host_end_fits(link, owner.attachment)
        elif link.name == "lo":
            odd = not link.up
        elif self._is_ours(link, owner.attachment):
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
        if index in world.routed and self._holds(world.routed[index], address):
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
            self._host.suspect("unknown: events were lost")
        self._keys.resync()

    def _mark_drift(self, record: Record) -> None:
        delay = DELAY_SECONDS if is_contested(record.repairs) else _SETTLE_SECONDS
        self._keys.mark(record.path, delay, reason="drift")

    def _is_host_device(self, index: int) -> bool:
        world = self._world
        if world.uplink is not None and index == world.uplink.index:
            return True
        return any(bridge.index == index for bridge in world.bridges.values())

    def _is_ours(self, link: Link, attachment: Attachment) -> bool:
        if link.peer == self._world.ledger.device(attachment.cookie):
            return True
        # A pair that is being made anew is known once the look is over; nobody will tell of it again.
        return link.name == attachment.network.interface and attachment.cookie in self._world.looking.values()

    def _is_our_name(self, device: str) -> bool:
        return device == "lo" or any(network.interface == device for network in self._world.config.networks)

    def _holds(self, cookie: Cookie, address: bytes) -> bool:
        lease = self._world.lease_of(cookie)
        return lease is not None and address in {lease.address.packed, lease.address6 and lease.address6.packed}
