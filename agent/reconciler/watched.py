"""Namespaces that others network, where the agent only observes: whose traffic is told by their host ends."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.core.roster import Record
from agent.model import Cookie, Link, Observed, Origin
from agent.reconciler.world import World

NETWORK: Final = "observed"
"""What stands in place of a network's name."""
_IPV4_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Watched:
    """One of them: its host end by name, and the first address of each family of the device inside."""

    origin: Origin
    cookie: Cookie
    device: str
    address: IPv4Address | None
    address6: IPv6Address | None


class Watch:
    """Keeps them, by what looks have seen."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._watched: dict[Cookie, Watched] = {}

    def all(self) -> tuple[Watched, ...]:
        """Return all that are there."""
        return tuple(self._watched.values())

    def note(self, record: Record, seen: Observed) -> None:
        """Take what a look saw of a namespace; one without a host end of somebody else is none of them."""
        rival = seen.rival
        if rival is None:
            self.forget(seen.cookie)
            return
        self._watched[seen.cookie] = Watched(record.origin, seen.cookie, rival.name, *_addresses(seen, rival))
        self._world.ledger.note(seen.cookie, NETWORK, rival.index, rival.traffic)
        if rival.peer_nsid is not None:
            self._world.attached[rival.peer_nsid] = seen.cookie

    def forget(self, cookie: Cookie) -> None:
        """Note that a namespace is gone, or has no network any more."""
        if self._watched.pop(cookie, None) is not None:
            self._world.ledger.close(cookie)

    def unconnected(self) -> list[str]:
        """Return the paths of those who may have got a host end meanwhile."""
        return [record.path for record in self._world.roster if record.cookie not in self._watched]


def _addresses(seen: Observed, rival: Link) -> tuple[IPv4Address | None, IPv6Address | None]:
    found = [each.address for each in (seen.inside.addresses if seen.inside else ()) if each.device == rival.peer]
    four = sorted(each for each in found if len(each) == _IPV4_BYTES)
    # Link-local ones tell nobody anything.
    six = sorted(each for each in found if len(each) != _IPV4_BYTES and each[:2] != b"\xfe\x80")
    return (IPv4Address(four[0]) if four else None, IPv6Address(six[0]) if six else None)
