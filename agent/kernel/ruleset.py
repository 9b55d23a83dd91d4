"""Our nftables tables, loaded and changed through libnftables within this process.

Source: libnftables(3), nft(8). All methods block; calls from several threads take turns.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from ipaddress import IPv6Address
from string import Template
from typing import Final

from nftables import Nftables

from agent.core.identity import netns_mac
from agent.errors import HostError
from agent.kernel.elements import HEADER_BYTES, Family, get_generation, get_table
from agent.kernel.members import Member, bridge_mac_of
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.ownsockets import bind_unbound
from agent.kernel.wire import attributes
from agent.model import TABLE, Lease, Network

_GENERATION_ID: Final = 1
_FAMILIES: Final[tuple[Family, ...]] = ("inet", "bridge")
_STATIC_SETS: Final = {
    "inet": (
        "bridges", "strict", "there4", "there6", "nat4", "nat6", "plain4", "plain6", "within", "reach", "guarded",
        "services", "reach4", "reach6", "open4", "open6", "services4", "services6", "routed", "sources4", "sources6",
        "routed_streams4",
    ),
    "bridge": (
        "guests", "members4", "members6", "streams4", "targets6", "macs6", "strict4", "strict6", "there4",
        "there6", "elsewhere",
    ),
}  # fmt: skip
_MAPS: Final = {"elsewhere"}


def _flush(family: str, name: str) -> str:
    return f"flush {'map' if name in _MAPS else 'set'} {family} {TABLE} {name}\n"


_EMPTIED: Final = "".join(
    f"flush table {family} {TABLE}\n" + "".join(_flush(family, name) for name in names)
    for family, names in _STATIC_SETS.items()
)
_DELETED: Final = "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in _STATIC_SETS)


class Ruleset:
    """The tables ``inet vethd`` and ``bridge vethd``."""

    def __init__(self) -> None:
        self._template = Template(files("agent.kernel").joinpath("ruleset.nft").read_text())
        self._lock = threading.Lock()
        self._nft = Nftables()
        self.netfilter_ports = bind_unbound(NETLINK_NETFILTER)
        self._nft.set_stateless_output(True)

    def load(self, networks: Sequence[Network], members: Sequence[Member], plain: Sequence[Lease] = ()) -> None:
        """Put both tables into their right state in one transaction. Raises HostError.

        The sets that count stay as they are, unless somebody has built something else there.
        """
        tables = self.render(networks, members, plain)
        empty = self.render((), ())
        try:
            self._run(empty + _EMPTIED + tables)
        except HostError:
            self._run(_DELETED + tables)

    def render(self, networks: Sequence[Network], members: Sequence[Member], plain: Sequence[Lease] = ()) -> str:
        """Return both tables in nft's syntax; ``plain`` are leases whose packets are not masqueraded."""
        guarded = [network for network in networks if network.host_access != "all"]
        open_ = [network for network in networks if network.host_access == "all"]
        strict = [network for network in networks if network.anti_spoof]
        ports = [member for member in members if not member[1].routed]
        routed = [member for member in members if member[1].routed]
        return self._template.substitute(
            bridges=_elements(_quoted(network.bridge) for network in networks),
            strict=_elements(_quoted(network.bridge) for network in strict),
            strict4=_elements(str(network.subnet) for network in strict),
            strict6=_elements(str(network.subnet6) for network in strict if network.subnet6),
            there4=_elements(_there4(strict, members)),
            there6=_elements(_there6(strict, members)),
            nat4=_elements(str(network.subnet) for network in networks if network.nat),
            nat6=_elements(str(network.subnet6) for network in networks if network.nat and network.subnet6),
            plain4=_elements(str(lease.address) for lease in plain),
            plain6=_elements(str(lease.address6) for lease in plain if lease.address6),
            within=_elements(_within(networks)),
            reach=_elements(_reach(networks)),
            guarded=_elements(_quoted(network.bridge) for network in guarded),
            services=_elements(_services(guarded, lambda network: _quoted(network.bridge))),
            reach4=_elements(_reach4(networks)),
            reach6=_elements(_reach6(networks)),
            open4=_elements(str(network.subnet) for network in open_),
            open6=_elements(str(network.subnet6) for network in open_ if network.subnet6),
            services4=_elements(_services(guarded, lambda network: str(network.subnet))),
            services6=_elements(
                _services([network for network in guarded if network.subnet6], lambda network: str(network.subnet6))
            ),
            routed=_elements(_quoted(host_end) for host_end, _ in routed),
            sources4=_elements(f"{_quoted(host_end)} . {lease.address}" for host_end, lease in routed),
            sources6=_elements(
                f"{_quoted(host_end)} . {_text(lease.address6)}" for host_end, lease in routed if lease.address6
            ),
            guests=_elements(_quoted(host_end) for host_end, _ in ports),
            members4=_elements(_member4(*member) for member in ports),
            members6=_elements(_member6(*member) for member in ports if member[1].address6),
            targets6=_elements(_target6(*member) for member in ports if member[1].address6),
            macs6=_elements(_mac6(*member) for member in ports if member[1].address6),
            elsewhere=_elements(_elsewhere(lease) for _, lease in routed),
        )

    def is_loaded(self) -> bool:
        """Tell whether both tables are there. Raises KernelError."""
        # Not through libnftables, which would list all that is in them.
        with Netlink(NETLINK_NETFILTER) as netlink:
            return all(answer.code == 0 for answer in netlink.exchange([get_table(family) for family in _FAMILIES]))

    def generation(self) -> int | None:
        """Return the number of nftables' last transaction, None for a kernel without it; each adds one."""
        with Netlink(NETLINK_NETFILTER) as netlink:
            answer = netlink.ask(get_generation())
        if answer.code:
            return None
        number = attributes(answer.replies[0], HEADER_BYTES)[_GENERATION_ID]
        return int.from_bytes(number)

    def remove(self) -> list[str]:
        """Delete our tables and return which there were."""
        with self._lock:
            return [
                f"nftables table {family} {TABLE}"
                for family in _FAMILIES
                if self._nft.cmd(f"delete table {family} {TABLE}")[0] == 0
            ]

    def _run(self, commands: str) -> None:
        with self._lock:
            code, _, errors = self._nft.cmd(commands)
        if code:
            reason = str(errors).strip().splitlines()
            raise HostError(
                f"nftables: {reason[0] if reason else 'refused'};"
                " the kernel needs nf_tables with NAT and bridge support: modprobe nf_tables nft_masq"
            )


def _elements(values: Iterable[str]) -> str:
    joined = ", ".join(values)
    return f"elements = {{ {joined} }};" if joined else ""


def _services(guarded: Sequence[Network], whose: Callable[[Network], str]) -> Iterator[str]:
    for network in guarded:
        if isinstance(network.host_access, tuple):
            for port in network.host_access:
                yield f"{whose(network)} . {port.protocol} . {port.number}"


def _there4(strict: Sequence[Network], members: Sequence[Member]) -> Iterator[str]:
    for network in strict:
        yield str(network.gateway.ip)
        yield str(network.subnet.broadcast_address)
    yield from (str(lease.address) for _, lease in members)


def _there6(strict: Sequence[Network], members: Sequence[Member]) -> Iterator[str]:
    yield from (str(network.gateway6.ip) for network in strict if network.gateway6)
    yield from (_text(lease.address6) for _, lease in members if lease.address6)


def _within(networks: Sequence[Network]) -> Iterator[str]:
    return (f"{_quoted(each.bridge)} . {_quoted(each.bridge)}" for each in networks if not each.isolate)


def _reach(networks: Sequence[Network]) -> Iterator[str]:
    pairs = ((one, other) for one, other in _reachable(networks) if one is not other)
    return (f"{_quoted(one.bridge)} . {_quoted(other.bridge)}" for one, other in pairs)


def _reach4(networks: Sequence[Network]) -> Iterator[str]:
    return (f"{one.subnet} . {other.subnet}" for one, other in _reachable(networks))


def _reach6(networks: Sequence[Network]) -> Iterator[str]:
    pairs = _reachable([network for network in networks if network.subnet6])
    return (f"{one.subnet6} . {other.subnet6}" for one, other in pairs)


def _reachable(networks: Sequence[Network]) -> Iterator[tuple[Network, Network]]:
    """Yield from which network to which packets may go."""
    known = {network.name: network for network in networks}
    for network in networks:
        if not network.isolate:
            yield network, network
        for other in network.reach:
            if other in known:
                yield network, known[other]


def _member4(host_end: str, lease: Lease) -> str:
    return f"{_quoted(host_end)} . {netns_mac(lease.address).hex(':')} . {lease.address}"


def _member6(host_end: str, lease: Lease) -> str:
    assert lease.address6 is not None
    return f"{_quoted(host_end)} . {netns_mac(lease.address).hex(':')} . {_text(lease.address6)}"


def _target6(host_end: str, lease: Lease) -> str:
    # What is read from a packet at an offset has no type but a number's.
    return f"{_quoted(host_end)} . 0x{int(lease.address6 or 0):032x}"


def _mac6(host_end: str, lease: Lease) -> str:
    return f"{_quoted(host_end)} . 0x{netns_mac(lease.address).hex()}"


def _elsewhere(lease: Lease) -> str:
    return f"{netns_mac(lease.address).hex(':')} : {bridge_mac_of(lease).hex(':')}"


def _text(address: IPv6Address) -> str:
    # ipaddress takes ten times as long: of thousands of members that is felt.
    return socket.inet_ntop(socket.AF_INET6, address.packed)


def _quoted(name: str) -> str:
    return f'"{name}"'
