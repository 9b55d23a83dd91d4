"""Taking attachments down, many in one go: as many at a time as there are."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from agent.core.plan import IPV6_BYTES
from agent.errors import KernelError
from agent.kernel import conntrack, counted, routing
from agent.kernel.conntrack import Party
from agent.kernel.counted import Count
from agent.kernel.doom import Deletion, Doom, Refusals
from agent.kernel.elements import delete_all
from agent.kernel.leftovers import IsHeld, sweep_connections
from agent.kernel.members import counts_of_sent, exemption_elements, member_elements
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import Opening, openings_elements, read_openings
from agent.kernel.wire import Request
from agent.model import Lease, Network, Traffic

# Not ENODEV: of a bridge that was made anew, the next try knows the number.
_GONE_IS_FINE: Final = {0, errno.ENOENT}


@dataclass(frozen=True, slots=True)
class Removal:
    """One attachment to take down; ``lease`` is None for a host end whose lease nobody knows."""

    host_end: str
    lease: Lease | None
    bridge: int | None
    admitted: bool
    exempt: bool = False


@dataclass(frozen=True, slots=True)
class Last:
    """What a namespace had carried at its end; ``traffic`` is None when its device was gone.

    ``sent`` is what of it the rules that are loaded now have counted. ``failure`` is what the kernel said of
    that which could not be removed; all else was.
    """

    traffic: Traffic | None
    opened: int
    accepted: int
    sent: Count | None = None
    failure: KernelError | None = None


class Reaper:
    """Removes host ends, set elements, neighbour entries and connections."""

    def __init__(self) -> None:
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._netlink = Netlink()
        self._doom = Doom()
        self.netfilter_port = self._netfilter.port

    def close(self) -> None:
        """Close the sockets."""
        self._doom.close()
        self._netlink.close()
        self._netfilter.close()

    def sweep(self, networks: Sequence[Network], is_held: IsHeld) -> int:
        """See leftovers.sweep_connections."""
        return sweep_connections(self._netfilter, networks, is_held)

    def begin(self, removals: Sequence[Removal]) -> Deletion:
        """Have the devices go, on another thread; `finish` must follow, and the deletion be closed. Does not block."""
        return self._doom.begin([each.host_end for each in removals])

    def finish(self, removals: Sequence[Removal], deletion: Deletion) -> list[Last]:
        """Take attachments down; what is gone already is no error, and one that fails keeps no other.

        Devices fall silent first: one that could still send would open connections anew, and with its set
        elements gone from any address. That they are gone, the kernel says later.
        """
        failures = _Failures()
        links = deletion.links()
        failures.note(deletion.until_silent())
        openings: Mapping[bytes, Opening] = {}
        sent: dict[str, Count] = {}
        addresses = [address for each in removals for address in _addresses(each)]
        with failures.of(*(each for each in removals if each.lease is not None)):
            openings = read_openings(self._netfilter, addresses)
            conntrack.flush(self._netfilter, list(_parties(removals, openings)))
        # The device may have been read as well: this alone is no reason to try all of it again.
        with suppress(KernelError):
            sent = self._read_sent(removals)
        for each in removals:
            with failures.of(each):
                self._forget_neighbours(each)
        # What is to be tried again is to find its counts.
        self._delete_elements([each for each in removals if each.host_end not in failures], failures)
        failures.note(deletion.until_gone())
        return [
            Last(
                None if (link := links.get(each.host_end)) is None else link.traffic,
                *_connections(each, openings),
                sent.get(each.host_end),
                failures.get(each.host_end),
            )
            for each in removals
        ]

    def _read_sent(self, removals: Sequence[Removal]) -> dict[str, Count]:
        members = [(each.host_end, each.lease) for each in removals if each.lease is not None and each.admitted]
        requests = [(host_end, each) for host_end, lease in members for each in counts_of_sent((host_end, lease))]
        found = counted.read(self._netfilter, [request for _, request in requests])
        sent: dict[str, Count] = {}
        for (host_end, _), count in zip(requests, found, strict=True):
            if count is not None:
                sent[host_end] = sent.get(host_end, Count(0, 0)) + count
        return sent

    def _forget_neighbours(self, removal: Removal) -> None:
        if removal.bridge is None or removal.lease is None:
            return
        requests = _entries_on(removal.bridge, _addresses(removal))
        for request, answer in zip(requests, self._netlink.exchange(requests), strict=True):
            if answer.code not in _GONE_IS_FINE:
                raise KernelError(request.what, answer.code, answer.detail)

    def _delete_elements(self, removals: Sequence[Removal], failures: "_Failures") -> None:
        try:
            delete_all(self._netfilter, [element for each in removals for element in _elements(each)])
        except KernelError:
            for each in removals:
                with failures.of(each):
                    delete_all(self._netfilter, _elements(each))


class _Failures(dict[str, KernelError]):
    """The first failure of each removal, by host end."""

    def note(self, refusals: Refusals) -> None:
        for host_end, refusal in refusals.items():
            self.setdefault(host_end, refusal)

    @contextmanager
    def of(self, *removals: Removal) -> Iterator[None]:
        """Note a failure in the block as one of these."""
        try:
            yield
        except KernelError as error:
            for each in removals:
                self.setdefault(each.host_end, error)


def _elements(removal: Removal) -> list[Request]:
    """Return the deletions of all that our sets hold of one."""
    found = openings_elements(_addresses(removal))
    if removal.lease and removal.admitted:
        found += member_elements((removal.host_end, removal.lease))
    if removal.lease and removal.exempt:
        found += exemption_elements(removal.lease)
    return found


def _entries_on(bridge: int, addresses: Sequence[bytes]) -> list[Request]:
    """Return the deletions of what the host keeps on the bridge: the rest went with the host end.

    Whether this one was a port or routed: who held the address before an agent died may have been the other.
    """
    return [
        *(routing.delete_neighbour(bridge, address) for address in addresses),
        *(routing.delete_proxy(bridge, address) for address in addresses if len(address) == IPV6_BYTES),
    ]


def _parties(removals: Sequence[Removal], openings: Mapping[bytes, Opening]) -> Iterator[Party]:
    for removal in removals:
        for address in _addresses(removal):
            opening = openings[address]
            if opening.are_all:
                yield Party(address, bool(opening.opened), bool(opening.accepted))
            else:
                yield Party(address)


def _connections(removal: Removal, openings: Mapping[bytes, Opening]) -> tuple[int, int]:
    """Return how many were opened and accepted."""
    counts = [openings[address] for address in _addresses(removal) if address in openings]
    return sum(each.opened or 0 for each in counts), sum(each.accepted or 0 for each in counts)


def _addresses(removal: Removal) -> list[bytes]:
    if removal.lease is None:
        return []
    found = [removal.lease.address.packed]
    if removal.lease.address6 is not None:
        found.append(removal.lease.address6.packed)
    return found
