"""Who is networked now: what one scrape after the other asks of each, looked up once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from agent.core.identity import host_end_name
from agent.export.views import attached
from agent.model import Attachment, Cookie, Origin
from agent.reconciler.watched import NETWORK, Watch, Watched
from agent.reconciler.world import World


@dataclass(slots=True, eq=False)
class Resident:
    """A namespace whose attachment stands, or that is watched. Who is told otherwise is another resident.

    ``name`` is the origin's, or its path, where somebody else had that name first. ``addresses`` are
    of both families; one that it has not is empty. ``device`` is the host end, ``seat`` what all this
    was taken from.
    """

    origin: Origin
    seat: Attachment | Watched
    cookie: Cookie
    name: str
    network: str
    device: str
    addresses: tuple[bytes, bytes]
    shown: tuple[str, str]


class Residents:
    """All residents of the world."""

    def __init__(self, world: World, watch: Watch) -> None:
        self._world = world
        self._watch = watch
        self._known: dict[Cookie, Resident] = {}
        self._called: dict[str, Cookie] = {}
        self._all: Sequence[Resident] = ()

    def now(self) -> Sequence[Resident]:
        """Return the residents as of now: the very sequence of the last call, when nobody came or went."""
        seen: dict[Cookie, Resident] = {}
        for origin, seat in self._seats():
            resident = self._known.get(seat.cookie)
            if resident is None or resident.seat is not seat or resident.origin is not origin:
                resident = self._meet(origin, seat, resident)
            if resident is not None:
                seen[seat.cookie] = resident
        if seen != self._known:
            self._known, self._all = seen, tuple(seen.values())
            self._called = {name: cookie for name, cookie in self._called.items() if cookie in seen}
        return self._all

    def _seats(self) -> Iterator[tuple[Origin, Attachment | Watched]]:
        for record in attached(self._world):
            if record.attachment is not None:
                yield record.origin, record.attachment
        yield from ((watched.origin, watched) for watched in self._watch.all())

    def _meet(self, origin: Origin, seat: Attachment | Watched, known: Resident | None) -> Resident | None:
        """Return who this is, None when nothing was read yet of its traffic."""
        cookie = seat.cookie
        if known is not None and _told(known.origin, known.seat) == _told(origin, seat):
            known.origin, known.seat = origin, seat
            return known
        if self._world.ledger.device(cookie) is None:
            return None
        if known is not None and self._called.get(known.name) == cookie:
            del self._called[known.name]
        name = origin.name if self._called.setdefault(origin.name, cookie) == cookie else origin.path
        network, device, four, six = _place(seat)
        return Resident(
            origin,
            seat,
            cookie,
            name,
            network,
            device,
            (four.packed if four else b"", six.packed if six else b""),
            (str(four or ""), str(six or "")),
        )


def _told(origin: Origin, seat: Attachment | Watched) -> tuple[object, ...]:
    """What labels tell of somebody."""
    return origin.name, origin.source, *_place(seat)


def _place(seat: Attachment | Watched) -> tuple[str, str, IPv4Address | None, IPv6Address | None]:
    """Return network, host end and addresses."""
    if isinstance(seat, Watched):
        return NETWORK, seat.device, seat.address, seat.address6
    return seat.lease.network, host_end_name(seat.cookie), seat.lease.address, seat.lease.address6
