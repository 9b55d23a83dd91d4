"""Who is networked now: what one scrape after the other asks of each, looked up once."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.export.views import attached
from agent.model import Cookie, Lease
from agent.reconciler.world import World


@dataclass(slots=True, eq=False)
class Resident:
    """A namespace whose attachment stands; another name or other addresses make another resident of it."""

    cookie: Cookie
    name: str
    lease: Lease
    addresses: tuple[bytes, ...]


class Residents:
    """All residents of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[Cookie, Resident] = {}
        self._all: Sequence[Resident] = ()

    def now(self) -> Sequence[Resident]:
        """Return the residents as of now: the very sequence of the last call, when nobody came or went."""
        ledger = self._world.ledger
        seen: dict[Cookie, Resident] = {}
        for record in attached(self._world):
            attachment = record.attachment
            if attachment is None or ledger.device(attachment.cookie) is None:
                continue
            cookie, lease = attachment.cookie, attachment.lease
            resident = self._known.get(cookie)
            if resident is None or resident.name != record.name or not _keeps(resident, lease):
                resident = Resident(cookie, record.name, lease, _addresses(lease))
            seen[cookie] = resident
        if seen != self._known:
            self._known, self._all = seen, tuple(seen.values())
        return self._all


def _keeps(resident: Resident, lease: Lease) -> bool:
    if resident.lease is lease:
        return True
    if resident.lease != lease:
        return False
    # An equal lease of a later look: the next comparison is short again.
    resident.lease = lease
    return True


def _addresses(lease: Lease) -> tuple[bytes, ...]:
    six = () if lease.address6 is None else (lease.address6.packed,)
    return (lease.address.packed, *six)
