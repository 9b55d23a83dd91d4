"""Connections that namespaces opened and accepted, as the sets of our ruleset counted them."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from agent.errors import KernelError
from agent.kernel import counted
from agent.kernel.elements import add_element, delete_element, get_element, list_elements
from agent.kernel.netlink import Netlink
from agent.kernel.wire import Request

_IPV4_BYTES: Final = 4
_DIRECTIONS: Final = ("opened", "accepted")
_FAMILIES: Final = ("4", "6")


class Openings(NamedTuple):
    """How many connections each address opened, and accepted; one that did not is left out."""

    opened: Mapping[bytes, int]
    accepted: Mapping[bytes, int]


class OpeningsReader:
    """Reads all counts again and again; to be used by one thread at a time.

    The kernel tells a set in pieces of some hundred elements: those that have not changed are not decoded again.
    """

    def __init__(self) -> None:
        self._pieces: dict[str, dict[bytes, dict[bytes, int]]] = {direction: {} for direction in _DIRECTIONS}
        self._counts: dict[str, Mapping[bytes, int]] = {direction: {} for direction in _DIRECTIONS}

    def read(self, netlink: Netlink) -> Openings:
        """Return all counts, none without our tables. Raises KernelError.

        A direction in which nothing was counted since the last time is the very object of that time.
        """
        return Openings(*(self._read(netlink, direction) for direction in _DIRECTIONS))

    def _read(self, netlink: Netlink, direction: str) -> Mapping[bytes, int]:
        known = self._pieces[direction]
        pieces = [piece for family in _FAMILIES for piece in _dump(netlink, direction + family)]
        if pieces != [*known]:
            known = {piece: known.get(piece) or dict(counted.decode(piece)) for piece in pieces}
            counts: dict[bytes, int] = {}
            for part in known.values():
                counts.update(part)
            self._pieces[direction], self._counts[direction] = known, counts
        return self._counts[direction]


class Opening(NamedTuple):
    """How many connections one address opened and accepted, None where that was not counted.

    ``are_all`` tells whether that is all there can have been since it was given away.
    """

    opened: int | None
    accepted: int | None

    @property
    def are_all(self) -> bool:
        """See count_from_nothing."""
        return self.accepted is not None


def read_openings(netlink: Netlink, addresses: Sequence[bytes]) -> dict[bytes, Opening]:
    """Return how many connections each of some addresses opened and accepted.

    Raises KernelError, but not without our tables.
    """
    requests = [
        get_element("inet", _set_of(address, direction), address) for address in addresses for direction in _DIRECTIONS
    ]
    counts = [None if found is None else found.packets for found in counted.read(netlink, requests)]
    return {
        address: Opening(*counts[place : place + len(_DIRECTIONS)])
        for address, place in zip(addresses, range(0, len(counts), len(_DIRECTIONS)), strict=True)
    }


def count_from_nothing(address: bytes) -> Request:
    """Return what has the connections of an address counted from before its first packet.

    That it has opened or accepted none is known only while this element is there: whoever flushes our tables takes
    it away, and it is made but for one that is new.
    """
    return add_element("inet", _set_of(address, "accepted"), address)


def openings_elements(addresses: Sequence[bytes]) -> list[Request]:
    """Return what takes addresses out of the sets, so that their next holders start at nothing; see delete_all."""
    return [
        delete_element("inet", _set_of(address, direction), address)
        for address in addresses
        for direction in _DIRECTIONS
    ]


def _dump(netlink: Netlink, set_name: str) -> Iterator[bytes]:
    """Yield the elements of a set, piece by piece."""
    try:
        payloads = netlink.dump(list_elements("inet", set_name))
    except KernelError as error:
        if error.code == errno.ENOENT:
            return
        raise
    yield from filter(None, map(counted.elements, payloads))


def _set_of(address: bytes, direction: str) -> str:
    return direction + ("4" if len(address) == _IPV4_BYTES else "6")
