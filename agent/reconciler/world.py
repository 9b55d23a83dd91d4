"""What the reconciler knows between two looks: names, leases, traffic, and the host's side."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from agent.config import Config
from agent.config.wishes import Wishes
from agent.core.addresses import LeaseTable
from agent.core.connections import Connections
from agent.core.identity import cookie_of, host_end_name, is_ours, is_routed, leased_address, named_by
from agent.core.ledger import Ledger
from agent.core.roster import Roster
from agent.core.wanted import wished_index
from agent.kernel.counters import Place
from agent.kernel.members import Member
from agent.model import Bridge, Cookie, Lease, Link, Network, Origin, Uplink, Wish
from agent.state.leases import Memory
from agent.state.resolvers import Resolvers

_REMEMBERED_COMPANY: Final = 1000


Part = Literal["conntrack", "host", "removal", "state"]
"""What of the agent's work on a host a problem may concern."""


@dataclass(slots=True)
class World:
    """All of the agent's memory; the loop's thread alone changes it, but for leases.

    Those are taken on the plumber's thread, too: ``lock`` is held for that, and to read more than one.

    ``bridges`` and ``uplink`` are what the last look at the host saw. ``troubles`` is what else is
    wrong on this host, one line for each part of the agent that it concerns, ``process_remark`` tells
    what the watch over processes has to do without, None where there is none. ``attached`` maps the
    host's numbers for namespaces (nsid) to cookies, ``company`` are those, not attached yet, in which
    somebody else made a device lately, ``inside`` says where their devices are,
    ``routed`` which host end (ifindex) that the host routes to is whose,
    ``looking`` are those that are being looked at, by path,
    ``admitted`` says as what a namespace without a name was networked,
    ``leaving`` are namespaces that are being taken down, ``gone`` those that were since a list of devices was
    asked for, None while none is, ``plain`` those whose packets are not masqueraded,
    ``wishes`` what namespaces want for themselves, in the order in which they are asked,
    and ``wish_stamps`` as of when,
    ``resolvers`` writes their name servers down, None where that is off.
    ``is_swept`` tells whether what namespaces left that went while no agent was there is gone by now,
    ``strays`` are namespaces that had an attachment at start, ``dropped`` and ``heard`` count
    lost and taken events by source, ``queued`` is how many keys are dirty, ``resynced`` when
    everything was marked last (Unix time).
    """

    config: Config
    host_cookie: Cookie
    roster: Roster = field(default_factory=Roster)
    ledger: Ledger = field(default_factory=Ledger)
    connections: Connections = field(default_factory=Connections)
    leases: dict[str, LeaseTable] = field(default_factory=dict)
    bridges: dict[str, Bridge] = field(default_factory=dict)
    uplink: Uplink | None = None
    host_problem: str = "the host's side is not set up yet"
    troubles: dict[Part, str] = field(default_factory=dict)
    process_remark: Callable[[], str] | None = None
    attached: dict[int, Cookie] = field(default_factory=dict)
    company: OrderedDict[int, None] = field(default_factory=OrderedDict)
    inside: dict[Cookie, Place] = field(default_factory=dict)
    routed: dict[int, Cookie] = field(default_factory=dict)
    strays: set[Cookie] = field(default_factory=set)
    looking: dict[str, Cookie] = field(default_factory=dict)
    leaving: set[Cookie] = field(default_factory=set)
    gone: set[Cookie] | None = None
    plain: set[Cookie] = field(default_factory=set)
    is_swept: bool = False
    admitted: dict[Cookie, Origin] = field(default_factory=dict)
    wishes: tuple[Wishes, ...] = ()
    wish_stamps: tuple[int, ...] = ()
    resolvers: Resolvers | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    dropped: dict[str, int] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    resynced: float = 0.0

    def __post_init__(self) -> None:
        for network in self.config.networks:
            self.leases[network.name] = LeaseTable(network)

    def network(self, name: str) -> Network:
        """Return the network of this name."""
        return next(network for network in self.config.networks if network.name == name)

    def remember(self, memory: Memory) -> None:
        """Take over which name had which address."""
        for network, names in memory.items():
            if network in self.leases:
                self.leases[network].remember(names)

    def memory(self) -> dict[str, dict[str, int]]:
        """Return which name has or had which address."""
        with self.lock:
            return {network: table.memory() for network, table in self.leases.items()}

    def note_company(self, nsid: int) -> None:
        """Note that somebody else made a device in a namespace that is perhaps being attached."""
        self.company[nsid] = None
        if len(self.company) > _REMEMBERED_COMPANY:
            self.company.popitem(last=False)

    def has_company(self, cookie: Cookie) -> bool:
        """Tell whether that was noted of a namespace that is attached now, and forget it."""
        place = self.inside.get(cookie)
        if place is None or place.nsid not in self.company:
            return False
        del self.company[place.nsid]
        return True

    def forget_place(self, cookie: Cookie) -> None:
        """Forget where a namespace's devices are: they are gone, or made anew."""
        place = self.inside.pop(cookie, None)
        if place is not None:
            self.routed.pop(place.host_end, None)
            if self.attached.get(place.nsid) == cookie:
                del self.attached[place.nsid]

    def wish_of(self, origin: Origin) -> Wish | None:
        """Return what a namespace wants for itself."""
        found = (wishes.find(origin.name) for wishes in self.wishes)
        return next((wish for wish in found if wish is not None), None)

    def take_wishes(self, wishes: tuple[Wishes, ...]) -> None:
        """Have wishes in force, in place of those before; addresses that are wished for are kept free."""
        self.wishes = wishes
        listed = [wish for each in wishes for wish in each.by_name.values()]
        with self.lock:
            for network in self.config.networks:
                indexes = (wished_index(network, wish) for wish in listed)
                self.leases[network.name].reserve(index for index in indexes if index is not None)

    def adopt(self, links: Iterable[Link]) -> None:
        """Take over the leases that host ends carry, but for those that went since they were listed."""
        for link in links:
            cookie = cookie_of(link.name)
            if cookie is None or cookie in (self.gone or ()) or not is_ours(link):
                continue
            self.strays.add(cookie)
            address = leased_address(link.mac)
            for network in self.config.networks:
                if address is not None and address in network.subnet:
                    index = int(address) - int(network.subnet.network_address)
                    self.leases[network.name].adopt(cookie, named_by(link.alias), index, is_routed(link.mac))

    def lease_of(self, cookie: Cookie) -> Lease | None:
        """Return a namespace's lease in whichever network."""
        return next((lease for table in self.leases.values() if (lease := table.get(cookie))), None)

    def expected(self, cookie: Cookie) -> tuple[Bridge | None, Lease | None]:
        """Return the bridge and the lease that a namespace is expected to have: one that was adopted, too."""
        lease = self.lease_of(cookie)
        return (None if lease is None else self.bridges.get(lease.network)), lease

    def is_held(self, address: bytes) -> bool:
        """Tell whether a namespace holds an address of either family."""
        return any(table.holder(address) is not None for table in self.leases.values())

    def name_of(self, cookie: Cookie) -> str:
        """Return the name that a namespace with a lease has or had, else that of its host end."""
        names = (table.name_of(cookie) for table in self.leases.values())
        return next((name for name in names if name is not None), host_end_name(cookie))

    def members(self) -> list[Member]:
        """Return every host end that may only send with its own addresses, but for those that are being removed."""
        with self.lock:
            return [
                (host_end_name(cookie), lease)
                for network in self.config.networks
                if network.anti_spoof
                for cookie, lease in self.leases[network.name].held()
                if cookie not in self.leaving
            ]

    def plain_leases(self) -> list[Lease]:
        """Return the leases whose packets are not masqueraded, but for those that are being removed."""
        staying = [cookie for cookie in tuple(self.plain) if cookie not in self.leaving]
        return [lease for cookie in staying if (lease := self.lease_of(cookie)) is not None]

    def holding(self) -> list[Cookie]:
        """Return every namespace that has a lease."""
        with self.lock:
            return [cookie for table in self.leases.values() for cookie in table.holders()]
