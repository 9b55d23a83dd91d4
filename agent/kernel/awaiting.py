"""Waiting until the kernel has really done what it said it did.

Some work goes on in the kernel after the acknowledgement, and packets are lost until it is
done. Mostly it is done when asked; if not, the event is awaited, never a time.
"""

import errno
import time
from collections.abc import Callable
from typing import Final, TypeVar

from agent.errors import KernelError
from agent.kernel import decode, routing
from agent.kernel.netlink import Netlink
from agent.kernel.rtnetlink import RTNLGRP_LINK
from agent.model import Link

_RTNLGRP_IPV6_ROUTE: Final = 11
# Who waits keeps others waiting: rather come again.
_SECONDS: Final = 0.25
_Result = TypeVar("_Result")


class NotYet(KernelError):
    """The kernel goes on with what it was asked to do, and is not done; its work may wait for a lock, say."""

    def __init__(self, what: str) -> None:
        super().__init__(what, errno.ETIMEDOUT, "it is not done yet")


def await_carrier(ask: Callable[[], Link], open_socket: Callable[[], Netlink]) -> Link:
    """Return the device that ``ask`` reads once it has its carrier.

    Carrier reaches qdisc and bridge by the deferred link watch (net/core/link_watch.c). Since
    Linux 6.8 a RTM_GETLINK for the device runs it at once. ``open_socket`` opens a socket in
    the device's namespace. Raises KernelError: ENETDOWN when the device is set down, NotYet when no
    carrier comes within a quarter of a second.
    """

    def with_carrier() -> Link | None:
        link = ask()
        if not link.up:
            raise KernelError(f"wait for the carrier of {link.name}", errno.ENETDOWN, "the device is down")
        return link if link.carrier else None

    return _await(with_carrier, open_socket, RTNLGRP_LINK, "wait for a carrier")


def await_local_address(netlink: Netlink, address: bytes, open_socket: Callable[[], Netlink]) -> None:
    """Return once the kernel delivers packets to an IPv6 address.

    Even without duplicate address detection the local route is added by the work queue of
    that, after the acknowledgement (net/ipv6/addrconf.c, addrconf_dad_work). Raises NotYet after
    a quarter of a second.
    """

    def is_local() -> bool | None:
        answer = netlink.ask(routing.find_route(address))
        return (not answer.code and any(decode.is_local_route(reply) for reply in answer.replies)) or None

    _await(is_local, open_socket, _RTNLGRP_IPV6_ROUTE, "wait for the IPv6 address")


def _await(probe: Callable[[], _Result | None], open_socket: Callable[[], Netlink], group: int, what: str) -> _Result:
    """Return the first result of ``probe`` that is not None, asking after every message of a group."""
    result = probe()
    if result is not None:
        return result
    with open_socket() as events:
        events.subscribe(group)
        deadline = time.monotonic() + _SECONDS
        while (result := probe()) is None:
            if not events.wait(deadline - time.monotonic()):
                raise NotYet(what)
        return result
