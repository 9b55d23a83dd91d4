"""The nouns of vethd: frozen values that every other part speaks in.

Addresses of wire form are ``bytes`` in network order (4 for IPv4, 16 for IPv6), MACs are
6 ``bytes``, MTUs are bytes of payload, device numbers (ifindex) are only meaningful
together with the namespace they were read in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final, Literal, NamedTuple, NewType

Cookie = NewType("Cookie", int)
"""The identity of a network namespace: SO_NETNS_COOKIE, never reused until reboot (socket(7))."""

LINK_GROUP: Final = 32372
"""Link group of every host end: tells our devices from others' in the kernel itself."""
ROUTE_PROTOCOL: Final = 126
"""The rtm_protocol of every route that we add (rtnetlink(7))."""
TABLE: Final = "vethd"
"""Name of our nftables table, in the families inet and bridge."""


@dataclass(frozen=True, slots=True)
class Port:
    """A host service that namespaces may open: ``protocol`` tcp or udp, ``number`` 1-65535."""

    protocol: Literal["tcp", "udp"]
    number: int


@dataclass(frozen=True, slots=True)
class Network:
    """One ``[network.NAME]`` of the config.

    ``bridge_ports`` is how many namespaces are ports of its bridge; those beyond are routed.
    """

    name: str
    subnet: IPv4Network
    subnet6: IPv6Network | None
    bridge: str
    interface: str
    nat: bool
    mtu: int
    isolate: bool
    host_access: Literal["all", "none"] | tuple[Port, ...]
    anti_spoof: bool
    reach: tuple[str, ...]
    bridge_ports: int = 1000

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's address: the first of the subnet."""
        return IPv4Interface((self.subnet.network_address + 1, self.subnet.prefixlen))

    @property
    def gateway6(self) -> IPv6Interface | None:
        """The bridge's IPv6 address, None when IPv6 is off."""
        if self.subnet6 is None:
            return None
        return IPv6Interface((self.subnet6.network_address + 1, self.subnet6.prefixlen))

    @property
    def capacity(self) -> int:
        """How many namespaces have an address here: network, gateway and broadcast are not leased."""
        return self.subnet.num_addresses - 3


Source = Literal["named", "process"]
"""What led to a namespace: a file in a watched directory, or a process that is in it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a namespace was found, and all that rules may ask about it.

    ``path`` is the file that leads to it: a name, or ``/proc/PID/ns/net``. What is not known,
    or not there, is empty; ``pid`` is None for a name.
    """

    source: Source
    name: str
    path: str
    pid: int | None = None
    command: str = ""
    cgroup: str = ""
    user: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[rule]]``, the ``number``-th of the config from 1: all its patterns must match.

    ``patterns`` maps fields of Origin to shell patterns. ``any_userns`` lets it match namespaces
    that another user namespace owns. ``network`` is None for ``leave = true``.
    """

    number: int
    patterns: Mapping[str, str]
    any_userns: bool
    network: str | None


@dataclass(frozen=True, slots=True)
class ExtraRoute:
    """A route that somebody wants inside; ``gateway`` is None for the network's own."""

    destination: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a file in netns.d says of the namespaces it names; None is what it does not say."""

    source: str
    network: str | None = None
    address: IPv4Address | None = None
    mtu: int | None = None
    interface: str | None = None
    nat: bool | None = None
    routes: tuple[ExtraRoute, ...] = ()
    dns: tuple[IPv4Address | IPv6Address, ...] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The addresses of one namespace in one network; ``index`` counts from the subnet's start.

    ``routed`` says that the host end is no port of the bridge: the host routes to it.
    """

    network: str
    index: int
    address: IPv4Address
    address6: IPv6Address | None
    routed: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """One address on a device."""

    device: int
    address: bytes
    prefix: int


@dataclass(frozen=True, slots=True)
class Route:
    """One unicast route of the main table; ``destination`` is empty for a default route.

    ``ours`` says that it bears our protocol number.
    """

    family: int
    destination: bytes
    prefix: int
    gateway: bytes
    device: int
    metric: int
    ours: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One permanent neighbour entry."""

    device: int
    address: bytes
    mac: bytes


class Traffic(NamedTuple):
    """Counters of one device as the kernel tells them, from the device's own side.

    A tuple, since thousands of them are made at every scrape.
    """

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """One device as observed. ``peer`` is IFLA_LINK, ``peer_nsid`` IFLA_LINK_NETNSID.

    ``carrier`` is true when operstate is UP; ``isolated`` and ``forwarding`` are false
    for what is no bridge port; ``ipv6`` is false where disable_ipv6 is set.
    """

    index: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    up: bool
    carrier: bool
    group: int
    alias: str
    master: int
    peer: int
    peer_nsid: int | None
    isolated: bool
    forwarding: bool
    ipv6: bool
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Inside:
    """What a namespace holds: its devices, and what matters of addresses, routes, neighbours."""

    links: tuple[Link, ...]
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()


@dataclass(frozen=True, slots=True)
class Observed:
    """What the kernel says of one namespace. ``inside`` is None when nobody looked inside.

    ``host_neighbours``, ``host_routes`` and ``proxied`` are those of its addresses that the host
    has a permanent neighbour entry for, a route to its host end, and an answer for on the bridge.
    ``exempt`` is true where its packets are not masqueraded; ``inode`` is that of nsfs.
    ``rival`` is the host's end of a device of somebody else, read only where the agent observes.
    ``new`` says that it has certainly not been networked before.
    ``other_userns`` is true when a user namespace other than the agent's own owns it.
    """

    cookie: Cookie
    host_end: Link | None
    inside: Inside | None
    host_neighbours: frozenset[bytes] = frozenset()
    host_routes: frozenset[bytes] = frozenset()
    proxied: frozenset[bytes] = frozenset()
    exempt: bool = False
    new: bool = False
    rival: Link | None = None
    inode: int = 0
    other_userns: bool = False


@dataclass(frozen=True, slots=True)
class Bridge:
    """What a namespace needs to know of the bridge it hangs on; ``gateways`` are its own addresses."""

    name: str
    index: int
    mac: bytes
    mtu: int
    gateways: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """What should be: one namespace on one network.

    ``exempt`` keeps its packets from being masqueraded; ``extra`` are routes that were wished for:
    destination, its prefix length, gateway.
    """

    cookie: Cookie
    name: str
    network: Network
    lease: Lease
    bridge: Bridge
    exempt: bool = False
    extra: tuple[tuple[bytes, int, bytes], ...] = ()

    @property
    def addresses(self) -> tuple[tuple[bytes, int], ...]:
        """The addresses that the namespace's device should have, with their prefix lengths."""
        four = (self.lease.address.packed, self.network.subnet.prefixlen)
        if self.lease.address6 is None or self.network.subnet6 is None:
            return (four,)
        return (four, (self.lease.address6.packed, self.network.subnet6.prefixlen))


@dataclass(frozen=True, slots=True)
class Uplink:
    """The device of the host's default route."""

    device: str
    index: int
    mtu: int
