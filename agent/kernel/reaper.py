"""Taking attachments down, many in one go.

Deleting a device makes the kernel wait for an RCU grace period, some 20 ms, and a whole
group of devices waits just once. So this blocks in a thread of its own, away from the
plumber, and takes as many at a time as there are.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from agent.core.identity import is_ours
from agent.core.plan import IPV6_BYTES
from agent.errors import KernelError
from agent.kernel import conntrack, routing
from agent.kernel.doom import delete_together
from agent.kernel.leftovers import IsHeld, sweep_connections
from agent.kernel.members import Members
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import forget_openings, read_openings
from agent.kernel.reading import read_link
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

    ``failure`` is what the kernel said of that which could not be removed; all else was.
    """

    traffic: Traffic | None
    opened: int
    accepted: int
    failure: KernelError | None = None


class Reaper:
    """Removes host ends, set elements, neighbour entries and connections."""

    def __init__(self) -> None:
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._members = Members(self._netfilter)
        self._netlink = Netlink()
        self.netfilter_port = self._netfilter.port

    def close(self) -> None:
        """Close the sockets."""
        self._netlink.close()
        self._netfilter.close()

    def remove(self, removals: Sequence[Removal]) -> list[Last]:
        """Take attachments down; what is gone already is no error, and one that fails keeps no other."""
        failures = _Failures()
        traffic = self._delete_links(removals, failures)
        for each in removals:
            with failures.of(each):
                self._expel(each)
            with failures.of(each):
                self._forget_neighbours(each)
        openings: Mapping[bytes, tuple[int, int]] = {}
        leased = [each for each in removals if each.lease is not None]
        if leased:
            with failures.of(*leased):
                openings = read_openings(self._netfilter)
                conntrack.forget([address for each in leased for address in _addresses(each)])
        for each in removals:
            # What is to be tried again is to find its counts.
            if each.host_end not in failures:
                with failures.of(each):
                    forget_openings(self._netfilter, [address for address in _addresses(each) if address in openings])
        return [
            _last(each, last, openings, failures.get(each.host_end))
            for each, last in zip(removals, traffic, strict=True)
        ]

    def sweep(self, networks: Sequence[Network], is_held: IsHeld) -> int:
        """See leftovers.sweep_connections."""
        return sweep_connections(self._netfilter, networks, is_held)

    def _delete_links(self, removals: Sequence[Removal], failures: "_Failures") -> list[Traffic | None]:
        found = {}
        for each in removals:
            with failures.of(each):
                found[each] = read_link(self._netlink, each.host_end)
        ours = {each: link for each, link in found.items() if link is not None and is_ours(link)}
        try:
            delete_together(self._netlink, list(ours.values()))
        except KernelError:
            for each, link in ours.items():
                with failures.of(each):
                    delete_together(self._netlink, [link])
        links = [found.get(each) for each in removals]
        return [None if link is None else link.traffic for link in links]

    def _expel(self, removal: Removal) -> None:
        if removal.lease and removal.admitted:
            self._members.expel([(removal.host_end, removal.lease)])
        if removal.lease and removal.exempt:
            self._members.exempt(removal.lease, exempt=False)

    def _forget_neighbours(self, removal: Removal) -> None:
        if removal.bridge is None or removal.lease is None:
            return
        requests = _entries_on(removal.bridge, _addresses(removal))
        for request, answer in zip(requests, self._netlink.exchange(requests), strict=True):
            if answer.code not in _GONE_IS_FINE:
                raise KernelError(request.what, answer.code, answer.detail)


class _Failures(dict[str, KernelError]):
    """The first failure of each removal, by host end."""

    @contextmanager
    def of(self, *removals: Removal) -> Iterator[None]:
        """Note a failure in the block as one of these."""
        try:
            yield
        except KernelError as error:
            for each in removals:
                self.setdefault(each.host_end, error)


def _entries_on(bridge: int, addresses: Sequence[bytes]) -> list[Request]:
    """Return the deletions of what the host keeps on the bridge: the rest went with the host end.

    Whether this one was a port or routed: who held the address before an agent died may have been the other.
    """
    return [
        *(routing.delete_neighbour(bridge, address) for address in addresses),
        *(routing.delete_proxy(bridge, address) for address in addresses if len(address) == IPV6_BYTES),
    ]


def _last(
    removal: Removal,
    traffic: Traffic | None,
    openings: Mapping[bytes, tuple[int, int]],
    failure: KernelError | None,
) -> Last:
    counts = [openings.get(address, (0, 0)) for address in _addresses(removal)]
    return Last(traffic, sum(opened for opened, _ in counts), sum(accepted for _, accepted in counts), failure)


def _addresses(removal: Removal) -> list[bytes]:
    if removal.lease is None:
        return []
    found = [removal.lease.address.packed]
    if removal.lease.address6 is not None:
        found.append(removal.lease.address6.packed)
    return found
