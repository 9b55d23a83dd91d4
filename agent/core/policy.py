"""Which namespaces are networked, on which network, and by which rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agent.core.identity import printable
from agent.core.plan import our_link
from agent.model import Cookie, Inside, Network, Observed

_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``network`` is None for a namespace that is left alone; ``rule`` says why, either way."""

    network: Network | None
    rule: str


def choose(name: str, seen: Observed, host: Cookie, exclude: Sequence[str], networks: Sequence[Network]) -> Verdict:
    """Choose the network of a named namespace; the first rule that matches decides."""
    if seen.cookie == host:
        return Verdict(None, "is the host's own network namespace")
    for pattern in exclude:
        if fnmatchcase(name, pattern):
            return Verdict(None, f'discovery.exclude: "{pattern}"')
    if our_link(seen) is None and seen.inside is not None:
        stranger = _routed_stranger(seen.inside)
        if stranger is not None:
            return Verdict(None, f"has a device with a route already: {printable(stranger)}")
    network = next((each for each in networks if each.name == "default"), networks[0])
    return Verdict(network, f"discovery.directories: network {network.name}")


def _routed_stranger(inside: Inside) -> str | None:
    routed = {route.device for route in inside.routes}
    return next((link.name for link in inside.links if link.name != _LOOPBACK and link.index in routed), None)
