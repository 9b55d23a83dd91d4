"""Which addresses may come from which host end: elements of our sets.

A bridge port is checked in ``bridge vethd``, MAC and all; a host end that the host routes to is
seen by ``inet vethd`` alone, and its MAC says nothing there.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from agent.core.identity import netns_mac
from agent.kernel.elements import Family, add_element, delete_all, delete_element, get_element
from agent.kernel.maps import add_pair
from agent.kernel.netlink import Netlink
from agent.kernel.openings import count_from_nothing
from agent.kernel.wire import Request
from agent.model import Lease

Member = tuple[str, Lease]
"""A host end and the lease whose addresses may come from it."""

_DEVICE_BYTES: Final = 16
_FAMILIES: Final[tuple[Family, ...]] = ("inet", "bridge")


class _Element(NamedTuple):
    family: Family
    set_name: str
    key: bytes
    value: bytes = b""


class Members:
    """Adds and removes members through a netfilter socket; blocking, for one thread."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def admit(self, member: Member, *, new: bool = False) -> None:
        """Let a namespace's own addresses and MAC pass; again is no error. Raises KernelError.

        ``new`` says that it cannot have had a connection yet.
        """
        additions = [_addition(element) for element in _elements(member)]
        if new:
            additions += (count_from_nothing(address) for address in _addresses(member[1]))
        self._netlink.transact(additions)

    def exempt(self, lease: Lease, exempt: bool) -> None:
        """Keep a namespace's packets from being masqueraded, or not any more. Raises KernelError."""
        if exempt:
            self._netlink.transact([_addition(element) for element in _exemptions(lease)])
        else:
            delete_all(self._netlink, exemption_elements(lease))


def member_elements(member: Member) -> list[Request]:
    """Return what takes a member out; see delete_all."""
    return [_deletion(element) for element in (*_elements(member), *_paces(member[1]))]


def counts_of_sent(member: Member) -> list[Request]:
    """Ask what a member's namespace sent, see counted.read; without the headers of Ethernet, and to be summed up.

    A veth keeps one half of its counts in its other end. Both go with the namespace, within a millisecond of its
    name, and RTM_DELLINK of the host end shows zeros for that half.
    """
    host_end, lease = member
    device = _device(host_end)
    elements = (_checked(device, lease), _streams(device, lease))
    return [get_element(element.family, element.set_name, element.key) for element in elements]


def exemption_elements(lease: Lease) -> list[Request]:
    """Return what takes an exemption from masquerading back; see delete_all."""
    return [_deletion(element) for element in _exemptions(lease)]


def bridge_mac_of(lease: Lease) -> bytes:
    """Return the MAC of the bridge of a lease's network: the gateway's, which has the first address."""
    return netns_mac(IPv4Address(int(lease.address) - lease.index + 1))


def _elements(member: Member) -> Iterator[_Element]:
    """Yield every element that makes a member."""
    host_end, lease = member
    device = _device(host_end)
    yield from _routed(device, lease) if lease.routed else _port(device, lease)
    yield _checked(device, lease)
    yield _streams(device, lease)
    for family in _FAMILIES:
        yield _Element(family, "there4", lease.address.packed)
        if lease.address6 is not None:
            yield _Element(family, "there6", lease.address6.packed)


def _routed(device: bytes, lease: Lease) -> Iterator[_Element]:
    yield _Element("inet", "sources4", device + lease.address.packed)
    if lease.address6 is not None:
        yield _Element("inet", "sources6", device + lease.address6.packed)
    yield _Element("bridge", "elsewhere", netns_mac(lease.address), bridge_mac_of(lease))


def _port(device: bytes, lease: Lease) -> Iterator[_Element]:
    mac = _padded_mac(lease)
    yield _Element("bridge", "members4", device + mac + lease.address.packed)
    if lease.address6 is not None:
        yield _Element("bridge", "members6", device + mac + lease.address6.packed)
        yield _Element("bridge", "targets6", device + lease.address6.packed)
        yield _Element("bridge", "macs6", device + mac)


def _streams(device: bytes, lease: Lease) -> _Element:
    """Return what has TCP over IPv4 checked, and counted."""
    if lease.routed:
        return _Element("inet", "routed_streams4", device + lease.address.packed)
    return _Element("bridge", "streams4", device + _padded_mac(lease) + lease.address.packed)


def _padded_mac(lease: Lease) -> bytes:
    # Every part of a concatenation is padded to four bytes.
    return netns_mac(lease.address) + b"\0\0"


def _addresses(lease: Lease) -> Iterator[bytes]:
    yield lease.address.packed
    if lease.address6 is not None:
        yield lease.address6.packed


def _checked(device: bytes, lease: Lease) -> _Element:
    """Return what has packets of a host end checked, and counted."""
    return _Element("inet", "routed", device) if lease.routed else _Element("bridge", "guests", device)


def _device(host_end: str) -> bytes:
    return host_end.encode().ljust(_DEVICE_BYTES, b"\0")


def _paces(lease: Lease) -> Iterator[_Element]:
    """Yield what the kernel noted of how fast a namespace asks for others: its address has a next holder."""
    yield _Element("inet", "asking4", lease.address.packed)
    if lease.address6 is not None:
        yield _Element("inet", "asking6", lease.address6.packed)


def _exemptions(lease: Lease) -> Iterator[_Element]:
    yield _Element("inet", "plain4", lease.address.packed)
    if lease.address6 is not None:
        yield _Element("inet", "plain6", lease.address6.packed)


def _addition(element: _Element) -> Request:
    if element.value:
        return add_pair(element.family, element.set_name, element.key, element.value)
    return add_element(element.family, element.set_name, element.key)


def _deletion(element: _Element) -> Request:
    return delete_element(element.family, element.set_name, element.key)
