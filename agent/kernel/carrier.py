"""Waiting for a device's carrier to be known to the kernel.

Carrier reaches qdisc and bridge by the deferred link watch (net/core/link_watch.c); until
then packets are dropped. Since Linux 6.8 a RTM_GETLINK for the device runs the link watch
at once, so the first question is the answer. On older kernels the event is awaited.
"""

import errno
import time
from collections.abc import Callable
from typing import Final

from agent.errors import KernelError
from agent.kernel.netlink import Netlink
from agent.model import Link

_RTNLGRP_LINK: Final = 1
_SECONDS: Final = 1.0


def await_carrier(ask: Callable[[], Link], open_socket: Callable[[], Netlink]) -> Link:
    """Return the device that ``ask`` reads once it has its carrier.

    ``open_socket`` opens a socket in the device's namespace. Raises KernelError: ENETDOWN
    when the device is set down, ETIMEDOUT when no carrier comes within a second.
    """
    if _is_ready(link := ask()):
        return link
    with open_socket() as events:
        events.subscribe(_RTNLGRP_LINK)
        deadline = time.monotonic() + _SECONDS
        while not _is_ready(link := ask()):
            if not events.wait(deadline - time.monotonic()):
                raise KernelError(f"wait for the carrier of {link.name}", errno.ETIMEDOUT)
        return link


def _is_ready(link: Link) -> bool:
    if not link.up:
        raise KernelError(f"wait for the carrier of {link.name}", errno.ENETDOWN, "the device is down")
    return link.carrier
