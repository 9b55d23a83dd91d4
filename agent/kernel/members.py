"""Which addresses may come from which host end: elements of our sets.

A bridge port is checked in ``bridge vethd``, MAC and all; a host end that the host routes to is
seen by ``inet vethd`` alone, and its MAC says nothing there.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from agent.core.identity import netns_mac
from agent.kernel.elements import Family, add_element, delete_all, delete_element
from agent.kernel.netlink import Netlink
from agent.model import Lease

Member = tuple[str, Lease]
"""A host end and the lease whose addresses may come from it."""

_DEVICE_BYTES: Final = 16


class Members:
    """Adds and removes members through a netfilter socket; blocking, for one thread."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def admit(self, member: Member) -> None:
        """Let a namespace's own addresses and MAC pass; again is no error. Raises KernelError."""
        self._netlink.transact([add_element(*element) for element in _elements(member)])

    def exempt(self, lease: Lease, exempt: bool) -> None:
        """Keep a namespace's packets from being masqueraded, or not any more. Raises KernelError."""
        if exempt:
            self._netlink.transact([add_element(*element) for element in _exemptions(lease)])
        else:
            delete_all(self._netlink, [delete_element(*element) for element in _exemptions(lease)])

    def expel(self, members: Sequence[Member]) -> None:
        """Take members out; those that are not there are no error. Raises KernelError."""
        for member in members:
            delete_all(self._netlink, [delete_element(*element) for element in _elements(member)])


def _elements(member: Member) -> Iterator[tuple[Family, str, bytes]]:
    """Yield the set and the key of every element that makes a member."""
    host_end, lease = member
    device = host_end.encode().ljust(_DEVICE_BYTES, b"\0")
    if lease.routed:
        yield "inet", "sources4", device + lease.address.packed
        if lease.address6 is not None:
            yield "inet", "sources6", device + lease.address6.packed
        yield "inet", "routed", device
        return
    # Every part of a concatenation is padded to four bytes.
    source = device + netns_mac(lease.address) + b"\0\0"
    yield "bridge", "members4", source + lease.address.packed
    if lease.address6 is not None:
        yield "bridge", "members6", source + lease.address6.packed
    yield "bridge", "guests", device


def _exemptions(lease: Lease) -> Iterator[tuple[Family, str, bytes]]:
    yield "inet", "plain4", lease.address.packed
    if lease.address6 is not None:
        yield "inet", "plain6", lease.address6.packed
