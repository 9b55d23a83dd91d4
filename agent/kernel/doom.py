"""Deleting many devices at the price of one.

The kernel waits for an RCU grace period, some 20 ms, for each deletion, and just once for a
whole link group. The group is made up anew each time, so nobody else's device is in it.
"""

import errno
import secrets
from collections.abc import Sequence
from typing import Final

from agent.core.identity import ALIAS_PREFIX
from agent.errors import KernelError
from agent.kernel import messages
from agent.kernel.netlink import Netlink
from agent.model import Link

_FIRST_GROUP: Final = 1 << 30
_GROUPS: Final = 1 << 30
_FINE: Final = {0, errno.ENODEV}


def delete_together(netlink: Netlink, links: Sequence[Link]) -> None:
    """Delete devices of ours; what is gone already is no error. Raises KernelError.

    Interrupted, it leaves devices that are still known as ours by their aliases.
    """
    if not links:
        return
    group = _FIRST_GROUP + secrets.randbelow(_GROUPS)
    requests = [messages.set_group(link.name, group, link.alias or ALIAS_PREFIX) for link in links]
    requests.append(messages.delete_group(group))
    for request, answer in zip(requests, netlink.exchange(requests), strict=True):
        if answer.code not in _FINE:
            raise KernelError(request.what, answer.code, answer.detail)
