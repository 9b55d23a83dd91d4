"""Which addresses may come from which host end: elements of our sets in ``bridge vethd``.

Written straight to nf_tables. libnftables would read all tables, chains and sets of the
host before each change, which grows with whatever else is there.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_*.
"""

import errno
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from agent.core.identity import netns_mac
from agent.errors import KernelError
from agent.kernel.netlink import NLM_F_CREATE, Netlink, Request, nested, text
from agent.kernel.netlink import attribute as plain
from agent.model import TABLE, Lease

Member = tuple[str, Lease]
"""A host end and the lease whose addresses may come from it."""

_NEW: Final = (10 << 8) | 12
_DELETE: Final = (10 << 8) | 14
_AF_BRIDGE: Final = 7
_HEADER: Final = struct.pack("=BBH", _AF_BRIDGE, 0, 0)
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEMENT, _ELEMENT_KEY, _DATA_VALUE = 1, 1, 1
_DEVICE_BYTES: Final = 16


class Members:
    """Adds and removes members through a netfilter socket; blocking, for one thread."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def admit(self, member: Member) -> None:
        """Let a namespace's own addresses and MAC pass; again is no error. Raises KernelError."""
        self._netlink.transact(list(_elements(_NEW, NLM_F_CREATE, member)))

    def expel(self, members: Sequence[Member]) -> None:
        """Take members out; those that are not there are no error. Raises KernelError."""
        for member in members:
            try:
                self._netlink.transact(list(_elements(_DELETE, 0, member)))
            except KernelError as error:
                if error.code != errno.ENOENT:
                    raise
                self._expel_piecemeal(member)

    def _expel_piecemeal(self, member: Member) -> None:
        """Delete the elements one by one: a missing one fails the transaction it is in."""
        for request in _elements(_DELETE, 0, member):
            try:
                self._netlink.transact([request])
            except KernelError as error:
                if error.code != errno.ENOENT:
                    raise


def _elements(kind: int, flags: int, member: Member) -> Iterator[Request]:
    host_end, lease = member
    device = host_end.encode().ljust(_DEVICE_BYTES, b"\0")
    # Every part of a concatenation is padded to four bytes.
    source = device + netns_mac(lease.address) + b"\0\0"
    yield _element(kind, flags, "members4", source + lease.address.packed)
    if lease.address6 is not None:
        yield _element(kind, flags, "members6", source + lease.address6.packed)
    yield _element(kind, flags, "guests", device)


def _element(kind: int, flags: int, set_name: str, key: bytes) -> Request:
    body = (
        _HEADER
        + text(_LIST_TABLE, TABLE)
        + text(_LIST_SET, set_name)
        + nested(
            _LIST_ELEMENTS,
            nested(_LIST_ELEMENT, nested(_ELEMENT_KEY, plain(_DATA_VALUE, key))),
        )
    )
    return Request(kind, flags, body, f"change the set {set_name} of our nftables table")
