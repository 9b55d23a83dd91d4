"""Our nftables tables, loaded and changed through libnftables within this process.

Source: libnftables(3), nft(8). All methods block; calls from several threads take turns.
"""

import threading
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import Final

from nftables import Nftables

from agent.core.identity import netns_mac
from agent.errors import HostError
from agent.kernel.members import Member
from agent.model import TABLE, Lease, Network

_FAMILIES: Final = ("inet", "bridge")
_STATIC_SETS: Final = {
    "inet": ("bridges", "nat4", "nat6", "reach", "guarded", "services"),
    "bridge": ("guests", "members4", "members6"),
}
_EMPTIED: Final = "".join(
    f"flush table {family} {TABLE}\n" + "".join(f"flush set {family} {TABLE} {name}\n" for name in names)
    for family, names in _STATIC_SETS.items()
)
_DELETED: Final = "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in _STATIC_SETS)


class Ruleset:
    """The tables ``inet vethd`` and ``bridge vethd``."""

    def __init__(self) -> None:
        self._template = Template(files("agent.kernel").joinpath("ruleset.nft").read_text())
        self._lock = threading.Lock()
        self._nft = Nftables()
        self._nft.set_stateless_output(True)

    def load(self, networks: Sequence[Network], members: Iterable[Member]) -> None:
        """Put both tables into their right state in one transaction. Raises HostError.

        The sets that count stay as they are, unless somebody has built something else there.
        """
        tables = self.render(networks, members)
        empty = self.render((), ())
        try:
            self._run(empty + _EMPTIED + tables)
        except HostError:
            self._run(_DELETED + tables)

    def render(self, networks: Sequence[Network], members: Iterable[Member]) -> str:
        """Return both tables in nft's syntax."""
        guarded = [network for network in networks if network.host_access != "all"]
        listed = list(members)
        return self._template.substitute(
            bridges=_elements(_quoted(network.bridge) for network in networks),
            nat4=_elements(str(network.subnet) for network in networks if network.nat),
            nat6=_elements(str(network.subnet6) for network in networks if network.nat and network.subnet6),
            reach=_elements(_reach(networks)),
            guarded=_elements(_quoted(network.bridge) for network in guarded),
            services=_elements(
                f"{_quoted(network.bridge)} . {port.protocol} . {port.number}"
                for network in guarded
                if isinstance(network.host_access, tuple)
                for port in network.host_access
            ),
            guests=_elements(_quoted(host_end) for host_end, _ in listed),
            members4=_elements(_member4(*member) for member in listed),
            members6=_elements(_member6(*member) for member in listed if member[1].address6),
        )

    def is_loaded(self) -> bool:
        """Tell whether both tables are there."""
        with self._lock:
            return all(self._nft.cmd(f"list table {family} {TABLE}")[0] == 0 for family in _FAMILIES)

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


def _reach(networks: Sequence[Network]) -> Iterable[str]:
    bridge_of = {network.name: network.bridge for network in networks}
    for network in networks:
        if not network.isolate:
            # Seen only with br_netfilter, which sends bridged packets through here too.
            yield f"{_quoted(network.bridge)} . {_quoted(network.bridge)}"
        for other in network.reach:
            yield f"{_quoted(network.bridge)} . {_quoted(bridge_of[other])}"


def _member4(host_end: str, lease: Lease) -> str:
    return f"{_quoted(host_end)} . {netns_mac(lease.address).hex(':')} . {lease.address}"


def _member6(host_end: str, lease: Lease) -> str:
    return f"{_quoted(host_end)} . {netns_mac(lease.address).hex(':')} . {lease.address6}"


def _quoted(name: str) -> str:
    return f'"{name}"'
