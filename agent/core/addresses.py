"""Who holds which address of a network.

A lease belongs to a namespace (its cookie) while that lives; the name it had is
remembered, so the same name gets the same address again while it is free. Addresses are
reused as late as possible: never used ones first, then the one that is free for longest.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from agent.core.identity import address6_of, printable
from agent.errors import NoFreeAddress
from agent.model import Cookie, Lease, Network

_FIRST = 2
_IPV4_BYTES = 4


class LeaseTable:
    """The leases of one network. All operations but ``holders``, ``held`` and ``memory`` take constant time."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._base = int(network.subnet.network_address)
        self._base6 = int(network.subnet6.network_address) if network.subnet6 else None
        self._end = _FIRST + network.capacity
        self._fresh = _FIRST
        self._held: dict[Cookie, int] = {}
        self._routed: set[int] = set()
        self._reserved: frozenset[int] = frozenset()
        self._holder: dict[int, Cookie] = {}
        # Free addresses that were used before, the one that is free for longest first.
        self._free: OrderedDict[int, None] = OrderedDict()
        self._index_of: dict[str, int] = {}
        self._name_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, cookie: Cookie) -> Lease | None:
        """Return the lease of a namespace, None when it has none."""
        index = self._held.get(cookie)
        return None if index is None else self._lease(index)

    def name_of(self, cookie: Cookie) -> str | None:
        """Return the name that a namespace's lease is remembered for."""
        index = self._held.get(cookie)
        return None if index is None else self._name_of.get(index)

    def holder(self, address: bytes) -> Cookie | None:
        """Return the namespace that holds an address of either family."""
        base = self._base if len(address) == _IPV4_BYTES else self._base6
        return None if base is None else self._holder.get(int.from_bytes(address) - base)

    def holders(self) -> list[Cookie]:
        """Return every namespace that has a lease."""
        return list(self._held)

    def held(self) -> list[tuple[Cookie, Lease]]:
        """Return every namespace that has a lease, with it."""
        return [(cookie, self._lease(index)) for cookie, index in self._held.items()]

    def remember(self, names: Mapping[str, int]) -> None:
        """Take over which name had which index, oldest first; what does not fit is skipped."""
        for name, index in names.items():
            if self._is_leasable(index) and index not in self._name_of and index not in self._holder:
                self._free[index] = None
                self._bind(name, index)

    def memory(self) -> dict[str, int]:
        """Return name to index, the longest free first and held ones last: what ``remember`` takes."""
        order = [*self._free, *self._holder]
        return {self._name_of[index]: index for index in order if index in self._name_of}

    def adopt(self, cookie: Cookie, name: str, index: int, routed: bool = False) -> bool:
        """Give a namespace the lease that it is seen to have; False when that cannot be.

        Without a ``name`` the one that the address was remembered for is as good as any.
        """
        if cookie in self._held:
            return self._held[cookie] == index
        if not self._is_leasable(index) or index in self._holder:
            return False
        self._hold(cookie, name, index, routed)
        return True

    def reserve(self, indexes: Iterable[int]) -> None:
        """Keep these for those who ask for them, in place of what was kept before."""
        former, self._reserved = self._reserved, frozenset(indexes)
        for index in sorted(former - self._reserved):
            if index < self._fresh and not self._is_known(index):
                self._free[index] = None

    def acquire(self, cookie: Cookie, name: str, wanted: int | None = None) -> Lease:
        """Return the lease of a namespace, a new one when it has none; of the index ``wanted``, if any.

        It is routed when the bridge has all the ports it may have, and stays as it is for as long
        as the namespace lives. Raises NoFreeAddress.
        """
        index = self._held.get(cookie)
        if index is None:
            index = self._choose(name) if wanted is None else self._claim(wanted)
            self._hold(cookie, name, index, routed=self.bridged >= self._network.bridge_ports)
        elif self._name_of.get(index) != name:
            self._bind(name, index)
        return self._lease(index)

    @property
    def bridged(self) -> int:
        """How many namespaces with a lease are ports of the bridge."""
        return len(self._held) - len(self._routed)

    def route(self, cookie: Cookie) -> None:
        """Have a namespace routed that found no room on the bridge."""
        self._routed.add(self._held[cookie])

    def release(self, cookie: Cookie) -> Lease | None:
        """Free the lease of a namespace and return it; None when it has none."""
        index = self._held.pop(cookie, None)
        if index is None:
            return None
        del self._holder[index]
        self._free[index] = None
        lease = self._lease(index)
        self._routed.discard(index)
        return lease

    def _claim(self, wanted: int) -> int:
        if wanted not in self._holder:
            return wanted
        holder = self._name_of.get(wanted, "another namespace")
        raise NoFreeAddress(
            f"network {self._network.name}: {self._network.subnet.network_address + wanted} was wished for, but"
            f" {printable(holder)} has it"
        )

    def _choose(self, name: str) -> int:
        former = self._index_of.get(name)
        if former is not None and former in self._free and former not in self._reserved:
            return former
        while self._fresh < self._end and self._is_known(self._fresh):
            self._fresh += 1
        if self._fresh < self._end:
            return self._fresh
        free = next((index for index in self._free if index not in self._reserved), None)
        if free is not None:
            return free
        raise NoFreeAddress(
            f"network {self._network.name}: no free address, all {self._network.capacity} of"
            f" {self._network.subnet} are leased; enlarge the subnet or remove namespaces"
        )

    def _hold(self, cookie: Cookie, name: str, index: int, routed: bool) -> None:
        if routed:
            self._routed.add(index)
        self._free.pop(index, None)
        self._held[cookie] = index
        self._holder[index] = cookie
        if name:
            self._bind(name, index)

    def _bind(self, name: str, index: int) -> None:
        """Remember that ``name`` had ``index``, in place of what either was bound to before."""
        former = self._name_of.pop(index, None)
        if former is not None:
            del self._index_of[former]
        earlier = self._index_of.pop(name, None)
        if earlier is not None:
            del self._name_of[earlier]
        self._index_of[name] = index
        self._name_of[index] = name

    def _is_known(self, index: int) -> bool:
        return index in self._holder or index in self._free or index in self._reserved

    def _is_leasable(self, index: int) -> bool:
        return _FIRST <= index < self._end

    def _lease(self, index: int) -> Lease:
        return Lease(
            self._network.name,
            index,
            self._network.subnet.network_address + index,
            address6_of(self._network.subnet6, index),
            index in self._routed,
        )
