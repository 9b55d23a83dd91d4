"""Elements of our nftables sets, written straight to nf_tables.

libnftables would read all tables, chains and sets of the host before each change, which
grows with whatever else is there.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_*.
"""

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from agent.errors import KernelError
from agent.kernel.netlink import Netlink
from agent.kernel.wire import NLM_F_CREATE, Request, attribute, nested, text
from agent.model import TABLE

Family = Literal["inet", "bridge"]

LIST_ELEMENTS: Final = 3
ELEMENT_KEY: Final = 1
DATA_VALUE: Final = 1
HEADER_BYTES: Final = 4

_GET_TABLE: Final = (10 << 8) | 1
_GET_GENERATION: Final = (10 << 8) | 16
_NEW: Final = (10 << 8) | 12
_GET: Final = (10 << 8) | 13
_DELETE: Final = (10 << 8) | 14
_DESTROY: Final = (10 << 8) | 30
# The answers of so many fit the receive buffer (net.core.rmem_default).
_TOGETHER: Final = 128
_UNKNOWN_REQUEST: Final = {errno.EINVAL, errno.EOPNOTSUPP}
_HEADERS: Final = {"inet": struct.pack("=BBH", 1, 0, 0), "bridge": struct.pack("=BBH", 7, 0, 0)}
_TABLE_NAME, _LIST_TABLE, _LIST_SET, _LIST_ELEMENT = 1, 1, 2, 1


def get_table(family: Family) -> Request:
    """Ask whether our table of this family is there."""
    return Request(_GET_TABLE, 0, _HEADERS[family] + text(_TABLE_NAME, TABLE), f"look for our nftables table {family}")


def get_generation() -> Request:
    """Ask for the number of nftables' last transaction in this namespace."""
    return Request(_GET_GENERATION, 0, _HEADERS["inet"], "ask for the generation of nftables")


def add_element(family: Family, set_name: str, key: bytes) -> Request:
    """Add an element; again is no error."""
    return _change(_NEW, NLM_F_CREATE, family, set_name, key)


def delete_element(family: Family, set_name: str, key: bytes) -> Request:
    """Delete an element."""
    return _change(_DELETE, 0, family, set_name, key)


def list_elements(family: Family, set_name: str) -> Request:
    """Ask for all elements of a set."""
    return Request(_GET, 0, _set(family, set_name), f"read the set {set_name} of our nftables table")


def get_element(family: Family, set_name: str, key: bytes) -> Request:
    """Ask for one element of a set."""
    body = _set(family, set_name) + nested(LIST_ELEMENTS, _keyed(key))
    return Request(_GET, 0, body, f"read the set {set_name} of our nftables table")


@dataclass(slots=True)
class _Kernel:
    """What has been found out of the kernel: whether it has NFT_MSG_DESTROYSETELEM, as since Linux 6.3."""

    destroys: bool = True


_kernel: Final = _Kernel()


def delete_all(netlink: Netlink, deletions: Sequence[Request]) -> None:
    """Do deletions, many in a transaction; elements that are not there are no error. Raises KernelError.

    A deletion of what is missing fails its transaction, and taking that back makes the kernel wait for
    an RCU grace period, some 15 ms; where it can be told not to mind, it is.
    """
    for start in range(0, len(deletions), _TOGETHER):
        _delete(netlink, deletions[start : start + _TOGETHER])


def _delete(netlink: Netlink, deletions: Sequence[Request]) -> None:
    kind = _DESTROY if _kernel.destroys else _DELETE
    try:
        netlink.transact([deletion._replace(kind=kind) for deletion in deletions])
    except KernelError as error:
        if error.code in _UNKNOWN_REQUEST and _kernel.destroys:
            _kernel.destroys = False
            _delete(netlink, deletions)
        elif error.code != errno.ENOENT:
            raise
        elif len(deletions) > 1:
            # One that is missing failed the transaction it was in.
            for deletion in deletions:
                _delete(netlink, [deletion])


def _change(kind: int, flags: int, family: Family, set_name: str, key: bytes) -> Request:
    body = _set(family, set_name) + nested(LIST_ELEMENTS, _keyed(key))
    return Request(kind, flags, body, f"change the set {set_name} of our nftables table")


def _keyed(key: bytes) -> bytes:
    return nested(_LIST_ELEMENT, nested(ELEMENT_KEY, attribute(DATA_VALUE, key)))


@cache
def _set(family: Family, set_name: str) -> bytes:
    return _HEADERS[family] + text(_LIST_TABLE, TABLE) + text(_LIST_SET, set_name)
