"""Which namespaces are networked, on which network, and by which rule."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Protocol

from agent.core.identity import printable
from agent.core.plan import our_link
from agent.model import Cookie, Link, Network, Observed, Origin, Route, Rule, Wish

_LOOPBACK: Final = "lo"
# While a module of tunnels is loaded the kernel puts one of each into every namespace, new or not, unless
# net.core.fb_tunnels_only_for_init_net says otherwise (Documentation/admin-guide/sysctl/net.rst).
_FALLBACK_TUNNELS: Final = {
    "tunl0": "ipip",
    "gre0": "gre",
    "gretap0": "gretap",
    "erspan0": "erspan",
    "ip_vti0": "vti",
    "sit0": "sit",
    "ip6tnl0": "ip6tnl",
    "ip6gre0": "ip6gre",
    "ip6_vti0": "vti6",
}
# Devices that carry nothing out of a namespace by themselves: their packets end there, go to a program, or leave,
# encrypted, by another device. Who makes one before the namespace has a network wants one beneath it, so by
# itself, without a route, it is no network. All others come from a manager who is at work and sets address and
# route a moment later: veth, macvlan, ipvlan, vlan, netkit, hardware (of no kind), and kinds that nobody here knows.
_NO_NETWORK: Final = frozenset({"bridge", "dummy", "ifb", "tun", "vrf", "wireguard"})
# What the first process of a container is called until it runs the container's own program. Before that the
# runtime, or its hooks (docker, CNI), bring in the network that the container may have been given, as eth0 mostly.
_SETTING_UP: Final = re.compile(
    r"(?:\S*/)?(?P<runtime>runc(?= init$)|crun|lxc-start|lxc-execute|systemd-nspawn|(?:flatpak-)?bwrap)(?: .*)?"
    r"|\[lxc monitor\].*",
    re.DOTALL,
)
# Bubblewrap may stay as the first process. It gives ``lo`` its address, and fails where that has one since
# somebody raised it before.
_RAISES_LOOPBACK: Final = frozenset({"bwrap", "flatpak-bwrap"})


class Terms(Protocol):
    """What the config says; ``rules`` are in their order."""

    @property
    def exclude(self) -> Sequence[str]: ...

    @property
    def networks(self) -> Sequence[Network]: ...

    @property
    def rules(self) -> Sequence[Rule]: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """``network`` is None for a namespace that is left alone; ``rule`` says why, either way.

    ``is_final`` is false for one that is left alone until its process runs another program.
    """

    network: Network | None
    rule: str
    is_final: bool = True


def choose(
    origin: Origin,
    seen: Observed,
    host: Cookie,
    terms: Terms,
    wish: Wish | None,
    *,
    held: bool,
    admitted: Origin | None = None,
) -> Verdict:
    """Choose the network of a namespace; what is asked first decides.

    ``held`` says that the namespace is ours already: what its owner puts in then, a VPN or a
    container's bridge, takes nothing from us. ``wish`` and ``terms`` name networks of ``terms``.
    ``admitted`` is as what it was networked: where no rule names it as what it is by now, a rule may do as that,
    so that who runs another program, or is followed by a child, keeps the network.
    """
    rule = _first_match(origin, seen, terms.rules)
    if rule is None and admitted is not None:
        rule = _first_match(admitted, seen, terms.rules)
    verdict = _choose(origin, seen, host, terms, wish, rule, held=held)
    runtime = None if verdict.network is None else _runtime_at_work(origin, seen)
    return verdict if runtime is None else Verdict(None, f"{runtime} is still setting it up", is_final=False)


def _runtime_at_work(origin: Origin, seen: Observed) -> str | None:
    """Return who is still setting a namespace up, None when nobody is whom we could disturb."""
    found = _SETTING_UP.fullmatch(origin.command) if origin.source == "process" else None
    if found is None or our_link(seen) is not None:
        return None
    runtime = found["runtime"] or "lxc-start"
    is_raised = seen.inside is not None and any(link.name == _LOOPBACK and link.up for link in seen.inside.links)
    return None if is_raised and runtime in _RAISES_LOOPBACK else runtime


def is_named(origin: Origin, seen: Observed, terms: Terms) -> bool:
    """Tell whether a rule names a namespace as what it is."""
    return _first_match(origin, seen, terms.rules) is not None


def _choose(
    origin: Origin, seen: Observed, host: Cookie, terms: Terms, wish: Wish | None, rule: Rule | None, *, held: bool
) -> Verdict:
    if seen.cookie == host:
        return Verdict(None, "is the host's own network namespace")
    if origin.source == "named":
        for pattern in terms.exclude:
            if fnmatchcase(origin.name, pattern):
                return Verdict(None, f'discovery.exclude: "{pattern}"')
    other = None if held else stranger(seen)
    if other is not None:
        return Verdict(None, other)
    networks = {network.name: network for network in terms.networks}
    if seen.other_userns and rule is None:
        return Verdict(None, 'another user namespace owns it: only a rule with userns = "any" would network it')
    # Root of another user namespace is let in by a rule alone, and a wish may then say where.
    is_let_in = not seen.other_userns or (rule is not None and rule.network is not None)
    if wish is not None and wish.network is not None and is_let_in:
        return Verdict(networks[wish.network], f"{printable(wish.source)}: network {wish.network}")
    if rule is not None:
        return Verdict(None if rule.network is None else networks[rule.network], _cite(rule))
    if origin.source == "process":
        return Verdict(None, "no rule names it")
    network = networks.get("default", terms.networks[0])
    return Verdict(network, f"discovery.directories: network {network.name}")


def stranger(seen: Observed) -> str | None:
    """Return what makes a namespace somebody else's, as a rule's text; None when nothing does.

    That is a device, not ours, that has a route, or that is a network by its kind.
    """
    inside = seen.inside
    if inside is None:
        return None
    ours = our_link(seen)
    others = [
        link
        for link in inside.links
        if link.name != _LOOPBACK and link is not ours and not _leads_inside(link, inside.links)
    ]
    routed = {route.device for route in inside.routes if not _is_link_local(route)}
    for link in others:
        if link.index in routed:
            return f"has a device with a route already: {printable(link.name)}"
    for link in others:
        if not _is_no_network(link):
            return f"has a device of somebody else: {printable(link.name)} ({printable(link.kind) or 'hardware'})"
    return None


def _leads_inside(link: Link, links: Sequence[Link]) -> bool:
    """Tell whether a device stands on another of the same namespace, or is a pair with it."""
    return link.peer_nsid is None and link.peer != link.index and any(each.index == link.peer for each in links)


def _is_no_network(link: Link) -> bool:
    return link.kind in _NO_NETWORK or _FALLBACK_TUNNELS.get(link.name) == link.kind


def _is_link_local(route: Route) -> bool:
    # fe80::/10: the kernel adds it to every device that is up, whoever raised it.
    return len(route.destination) == 16 and route.destination[0] == 0xFE and route.destination[1] & 0xC0 == 0x80


def _first_match(origin: Origin, seen: Observed, rules: Sequence[Rule]) -> Rule | None:
    return next((rule for rule in rules if _matches(rule, origin, seen)), None)


def _matches(rule: Rule, origin: Origin, seen: Observed) -> bool:
    if seen.other_userns and not rule.any_userns:
        return False
    return all(fnmatchcase(getattr(origin, key), pattern) for key, pattern in rule.patterns.items())


def _cite(rule: Rule) -> str:
    patterns = dict(rule.patterns) | ({"userns": "any"} if rule.any_userns else {})
    match = ", ".join(f'{key} = "{printable(pattern)}"' for key, pattern in patterns.items())
    said = "leave" if rule.network is None else f"network {rule.network}"
    return f"rule {rule.number}: match {match or 'everything'}: {said}"
