"""Who is networked now: what one scrape after the other asks of each, looked up once."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.export.views import attached
from agent.model import Attachment, Cookie, Origin
from agent.reconciler.world import World


@dataclass(slots=True, eq=False)
class Resident:
    """A namespace whose attachment stands. Who is told by another name or address is another resident.

    ``name`` is the origin's, or its path, where somebody else had that name first. ``addresses`` are
    of both families; without IPv6 the second is empty.
    """

    origin: Origin
    attachment: Attachment
    cookie: Cookie
    name: str
    addresses: tuple[bytes, bytes]


class Residents:
    """All residents of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[Cookie, Resident] = {}
        self._called: dict[str, Cookie] = {}
        self._all: Sequence[Resident] = ()

    def now(self) -> Sequence[Resident]:
        """Return the residents as of now: the very sequence of the last call, when nobody came or went."""
        seen: dict[Cookie, Resident] = {}
        for record in attached(self._world):
            attachment = record.attachment
            if attachment is None:
                continue
            resident = self._known.get(attachment.cookie)
            if resident is None or resident.attachment is not attachment or resident.origin is not record.origin:
                resident = self._meet(record.origin, attachment, resident)
            if resident is not None:
                seen[attachment.cookie] = resident
        if seen != self._known:
            self._known, self._all = seen, tuple(seen.values())
            self._called = {name: cookie for name, cookie in self._called.items() if cookie in seen}
        return self._all

    def _meet(self, origin: Origin, attachment: Attachment, known: Resident | None) -> Resident | None:
        """Return who this is, None when nothing was read yet of its traffic."""
        if known is not None and _told(known.origin, known.attachment) == _told(origin, attachment):
            known.origin, known.attachment = origin, attachment
            return known
        cookie, lease = attachment.cookie, attachment.lease
        if self._world.ledger.device(cookie) is None:
            return None
        if known is not None and self._called.get(known.name) == cookie:
            del self._called[known.name]
        name = origin.name if self._called.setdefault(origin.name, cookie) == cookie else origin.path
        six = b"" if lease.address6 is None else lease.address6.packed
        return Resident(origin, attachment, cookie, name, (lease.address.packed, six))


def _told(origin: Origin, attachment: Attachment) -> tuple[object, ...]:
    """What labels tell of somebody."""
    return origin.name, origin.source, attachment.lease
