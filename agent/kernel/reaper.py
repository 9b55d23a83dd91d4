"""Taking attachments down, many in one go.

Deleting a device makes the kernel wait for an RCU grace period, some 20 ms, and a whole
group of devices waits just once. So this blocks in a thread of its own, away from the
plumber, and takes as many at a time as there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.core.identity import is_ours
from agent.core.plan import IPV6_BYTES
from agent.kernel import conntrack, routing
from agent.kernel.attachments import read_link
from agent.kernel.doom import delete_together
from agent.kernel.members import Members
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.openings import forget_openings, read_openings
from agent.kernel.wire import Request
from agent.model import Lease, Traffic


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
    """What a namespace had carried at its end; ``traffic`` is None when its device was gone."""

    traffic: Traffic | None
    opened: int
    accepted: int


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
        """Take attachments down; what is gone already is no error. Raises KernelError."""
        traffic = self._delete_links(removals)
        admitted = [(each.host_end, each.lease) for each in removals if each.lease and each.admitted]
        if admitted:
            self._members.expel(admitted)
        for each in removals:
            if each.lease and each.exempt:
                self._members.exempt(each.lease, exempt=False)
        self._forget_neighbours(removals)
        addresses = [address for each in removals for address in _addresses(each)]
        openings = read_openings(self._netfilter) if addresses else {}
        if addresses:
            conntrack.forget(addresses)
            forget_openings(self._netfilter, [address for address in addresses if address in openings])
        return [_last(each, last, openings) for each, last in zip(removals, traffic, strict=True)]

    def _delete_links(self, removals: Sequence[Removal]) -> list[Traffic | None]:
        links = [read_link(self._netlink, each.host_end) for each in removals]
        delete_together(self._netlink, [link for link in links if link is not None and is_ours(link)])
        return [None if link is None else link.traffic for link in links]

    def _forget_neighbours(self, removals: Sequence[Removal]) -> None:
        self._netlink.exchange(
            [
                request
                for each in removals
                if each.bridge is not None and each.lease is not None
                for request in _entries_on(each.bridge, each.lease.routed, _addresses(each))
            ]
        )


def _entries_on(bridge: int, routed: bool, addresses: Sequence[bytes]) -> list[Request]:
    """Return the deletions of what the host keeps on the bridge: the rest went with the host end."""
    if routed:
        return [routing.delete_proxy(bridge, address) for address in addresses if len(address) == IPV6_BYTES]
    return [routing.delete_neighbour(bridge, address) for address in addresses]


def _last(removal: Removal, traffic: Traffic | None, openings: Mapping[bytes, tuple[int, int]]) -> Last:
    counts = [openings.get(address, (0, 0)) for address in _addresses(removal)]
    return Last(traffic, sum(opened for opened, _ in counts), sum(accepted for _, accepted in counts))


def _addresses(removal: Removal) -> list[bytes]:
    if removal.lease is None:
        return []
    found = [removal.lease.address.packed]
    if removal.lease.address6 is not None:
        found.append(removal.lease.address6.packed)
    return found
