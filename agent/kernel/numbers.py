"""The numbers by which the host knows namespaces (nsid), given so that the newest is found first.

While anybody listens to all namespaces, the kernel looks for the number of the namespace of every
message, from the least number on (net/core/net_namespace.c, peernet2id). A namespace that is
being attached causes some thirty messages: with the least number of all it is found at once,
however many there are. Left to itself the kernel gives out the least number that is free, which
is the greatest of all most of the time.
"""

from collections.abc import Iterable
from typing import Final

from agent.core.identity import is_ours
from agent.kernel import messages
from agent.kernel.netlink import Netlink
from agent.model import Link

_FIRST: Final = 1 << 30
# Below these the kernel gives out numbers by itself.
_LAST: Final = 1 << 20


class Numbers:
    """Gives out numbers downwards; for one thread."""

    def __init__(self) -> None:
        self._next = _FIRST

    def go_on_from(self, links: Iterable[Link]) -> None:
        """Go on below the numbers that an earlier run gave out."""
        known = (link.peer_nsid for link in links if is_ours(link) and link.peer_nsid is not None)
        self._next = min((number - 1 for number in known if _LAST < number <= _FIRST), default=_FIRST)

    def give(self, netlink: Netlink, descriptor: int) -> None:
        """Number a namespace; one that has a number keeps it, and without one it works as well."""
        netlink.ask(messages.number_namespace(self._next, descriptor))
        self._next = self._next - 1 if self._next > _LAST else _FIRST
