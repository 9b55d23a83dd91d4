"""The steps of a plan: each one is one change of the kernel, idempotent, told as a value.

Making what is there and removing what is absent are successes. Names of devices, not
their numbers, stand here: a number is only known once the device was made.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from agent.model import Lease

Side = Literal["host", "inside", "ruleset"]


@dataclass(frozen=True, slots=True)
class Step:
    """``side`` says where the step is done: the host, inside the namespace, or in nftables.

    ``drift`` is the ``kind`` label of vethd_drift_repaired_total when the step repairs.
    """

    side: ClassVar[Side]
    drift: ClassVar[str]


@dataclass(frozen=True, slots=True)
class CreatePair(Step):
    """Make the veth pair, the device end already inside the namespace, the host end up."""

    side = "host"
    drift = "device"
    host_end: str
    host_end_mac: bytes
    device: str
    mac: bytes
    mtu: int
    arp: bool = True


@dataclass(frozen=True, slots=True)
class DeletePair(Step):
    """Delete the pair by its host end."""

    side = "host"
    drift = "device"
    host_end: str


@dataclass(frozen=True, slots=True)
class MarkHostEnd(Step):
    """Write our alias and group on the host end."""

    side = "host"
    drift = "mark"
    host_end: str
    alias: str


@dataclass(frozen=True, slots=True)
class QuietHostEnd(Step):
    """Turn IPv6 off on the host end: a bridge port needs none.

    With it, the kernel would go through all IPv6 routes of the host when the carrier comes.
    """

    side = "host"
    drift = "link"
    host_end: str


@dataclass(frozen=True, slots=True)
class RaiseHostEnd(Step):
    """Set the host end up."""

    side = "host"
    drift = "link"
    host_end: str


@dataclass(frozen=True, slots=True)
class RaiseRoutedHostEnd(Step):
    """Set a host end up that is no bridge port: with IPv6, but no address of its own making, and no ARP.

    Both ends know each other's MAC; who could ask by ARP could fill the host's neighbour table.
    """

    side = "host"
    drift = "link"
    host_end: str


@dataclass(frozen=True, slots=True)
class LeaveBridge(Step):
    """Take a routed host end off the bridge that somebody put it on."""

    side = "host"
    drift = "port"
    host_end: str


@dataclass(frozen=True, slots=True)
class SetHostEndMtu(Step):
    """Set the host end's MTU."""

    side = "host"
    drift = "mtu"
    host_end: str
    mtu: int


@dataclass(frozen=True, slots=True)
class RaiseLoopback(Step):
    """Set ``lo`` up."""

    side = "inside"
    drift = "link"


@dataclass(frozen=True, slots=True)
class RaiseDevice(Step):
    """Set the device up, without an IPv6 link-local address of its own making."""

    side = "inside"
    drift = "link"
    device: str


@dataclass(frozen=True, slots=True)
class SetDeviceMac(Step):
    """Set the device's MAC: its neighbours know it by the one that goes with its address."""

    side = "inside"
    drift = "mac"
    device: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class SetDeviceMtu(Step):
    """Set the device's MTU."""

    side = "inside"
    drift = "mtu"
    device: str
    mtu: int


@dataclass(frozen=True, slots=True)
class AddAddress(Step):
    """Add an address, usable at once (IFA_F_NODAD); without its on-link route where ``routed``."""

    side = "inside"
    drift = "address"
    device: str
    address: bytes
    prefix: int
    routed: bool = False


@dataclass(frozen=True, slots=True)
class AddOnLinkRoute(Step):
    """Add the route to the device's own subnet."""

    side = "inside"
    drift = "route"
    device: str
    address: bytes
    prefix: int


@dataclass(frozen=True, slots=True)
class AddGatewayNeighbour(Step):
    """Tell the namespace the gateway's MAC for good."""

    side = "inside"
    drift = "neighbour"
    device: str
    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class AwaitDevice(Step):
    """Have the kernel take notice of the device's carrier: before that it drops what is sent."""

    side = "inside"
    drift = "link"
    device: str


@dataclass(frozen=True, slots=True)
class AwaitHostEnd(Step):
    """The same for the host end: a port that joins with its carrier known forwards at once."""

    side = "host"
    drift = "link"
    host_end: str


@dataclass(frozen=True, slots=True)
class Admit(Step):
    """Let packets of this address and MAC pass from this host end; ``new`` is as in Observed."""

    side = "ruleset"
    drift = "ruleset"
    host_end: str
    lease: Lease
    new: bool = False


@dataclass(frozen=True, slots=True)
class Exempt(Step):
    """Keep what a namespace sends from being masqueraded, or not any more."""

    side = "ruleset"
    drift = "ruleset"
    lease: Lease
    exempt: bool


@dataclass(frozen=True, slots=True)
class AddHostNeighbour(Step):
    """Tell the host the namespace's MAC for good."""

    side = "host"
    drift = "neighbour"
    bridge: int
    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class AddRoutedNeighbour(Step):
    """The same where the host routes: the entry belongs to the host end."""

    side = "host"
    drift = "neighbour"
    host_end: str
    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class AddHostRoute(Step):
    """Route one address to its host end (no multicast any more); the host itself sends from ``source``, the gateway."""

    side = "host"
    drift = "route"
    host_end: str
    address: bytes
    source: bytes


@dataclass(frozen=True, slots=True)
class AddProxy(Step):
    """Answer for a routed IPv6 address on the bridge, whose namespaces take it for on-link."""

    side = "host"
    drift = "neighbour"
    bridge: int
    address: bytes


@dataclass(frozen=True, slots=True)
class JoinBridge(Step):
    """Make the host end a port of the bridge."""

    side = "host"
    drift = "port"
    host_end: str
    bridge: int


@dataclass(frozen=True, slots=True)
class SetIsolated(Step):
    """Set whether a bridge port reaches other isolated ones; a port that just joined does."""

    side = "host"
    drift = "port"
    host_end: str
    isolated: bool


@dataclass(frozen=True, slots=True)
class AwaitBridge(Step):
    """The same for the bridge: its first port brings its carrier."""

    side = "host"
    drift = "link"
    bridge: str


@dataclass(frozen=True, slots=True)
class AwaitAddress(Step):
    """Have the kernel deliver to an IPv6 address: it does a moment after the address was added."""

    side = "inside"
    drift = "address"
    address: bytes


@dataclass(frozen=True, slots=True)
class AddSubnetRoute(Step):
    """Add the route to the network's subnet by the gateway, of a namespace that is routed."""

    side = "inside"
    drift = "route"
    device: str
    address: bytes
    prefix: int
    gateway: bytes


@dataclass(frozen=True, slots=True)
class AddDefaultRoute(Step):
    """Add the default route by the gateway; no route leads there where ``routed``."""

    side = "inside"
    drift = "route"
    device: str
    family: int
    gateway: bytes
    routed: bool = False


@dataclass(frozen=True, slots=True)
class AddExtraRoute(Step):
    """Add a route that was wished for."""

    side = "inside"
    drift = "route"
    device: str
    destination: bytes
    prefix: int
    gateway: bytes
    routed: bool


@dataclass(frozen=True, slots=True)
class RemoveExtraRoute(Step):
    """Remove a route of ours that nobody wishes for any more."""

    side = "inside"
    drift = "route"
    device: str
    destination: bytes
    prefix: int
    gateway: bytes
