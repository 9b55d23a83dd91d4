"""Checks of what else shapes the network of this host: routes, the uplink, network managers."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network

from agent.doctor.facts import Facts
from agent.doctor.finding import Finding

HOST_END = "vh0123456789"  # any host end: what matches `vh*` matches this


def subnets(facts: Facts) -> Iterator[Finding]:
    """Whether the host already routes a subnet of ours elsewhere."""
    taken = False
    for network in facts.config.networks:
        for subnet in (network.subnet, network.subnet6):
            for route in facts.routes:
                if route.device != network.bridge and subnet is not None and _overlap(route.network, subnet):
                    taken = True
                    yield Finding(
                        "subnet-overlap",
                        "critical",
                        f"network {network.name}: this host routes {route.network} by {route.device}, "
                        f"which overlaps {subnet}",
                        f"choose another subnet for [network.{network.name}] in {facts.config_file.path}",
                    )
    if not taken:
        yield Finding("subnet-overlap", "ok", "the subnets are free on this host")


def _overlap(route: IPv4Network | IPv6Network, subnet: IPv4Network | IPv6Network) -> bool:
    """Whether a route that is more than the default route leads into ``subnet``."""
    if not route.prefixlen or route.version != subnet.version:
        return False
    return route[0] in subnet or subnet[0] in route


def uplink(facts: Facts) -> Iterator[Finding]:
    """Whether packets can leave, and fit."""
    device = facts.uplink(4) or facts.uplink(6)
    if device is None:
        yield Finding(
            "uplink",
            "info",
            "this host has no default route: namespaces reach each other and the host, nothing beyond",
            "nothing, if that is meant; the agent sees a default route as soon as there is one",
        )
        return
    limit = facts.mtu(device) or 0
    large = [network for network in facts.config.networks if (facts.mtu(network.bridge) or 0) > limit]
    for network in large:
        yield Finding(
            "mtu",
            "warning",
            f"MTU {facts.mtu(network.bridge)} of {network.bridge} is above {limit} of the uplink {device}: "
            "large packets get lost where ICMP is filtered",
            f"mtu = 0 in [network.{network.name}] of {facts.config_file.path}",
        )
    if not large:
        yield Finding("mtu", "ok", f"uplink {device}, MTU {limit}")


def managers(facts: Facts) -> Iterator[Finding]:
    """Network managers that take devices for theirs."""
    devices = [HOST_END, *(network.bridge for network in facts.config.networks)]
    if "NetworkManager" in facts.programs:
        yield _network_manager(facts, devices)
    if "systemd-network" in facts.programs:
        yield _networkd(facts, devices)


def _network_manager(facts: Facts, devices: list[str]) -> Finding:
    texts = [text for path, text in facts.configured.items() if "/NetworkManager/" in path]
    patterns = [
        spec.strip().removeprefix("interface-name:").removeprefix("=")
        for text in texts
        for line in text.splitlines()
        if line.replace(" ", "").startswith(("unmanaged-devices=", "unmanaged-devices+="))
        for spec in line.partition("=")[2].replace(",", ";").split(";")
    ]
    if all(any(fnmatchcase(device, pattern) for pattern in patterns) for device in devices):
        return Finding("network-manager", "ok", "NetworkManager leaves our devices alone")
    bridges = ";".join(f"interface-name:{device}" for device in devices[1:])
    return Finding(
        "network-manager",
        "warning",
        "NetworkManager runs and may take our devices for its own",
        f"printf '[keyfile]\\nunmanaged-devices+={bridges};interface-name:vh*\\n' "
        "> /etc/NetworkManager/conf.d/90-vethd.conf && systemctl reload NetworkManager",
    )


def _networkd(facts: Facts, devices: list[str]) -> Finding:
    files = {path: text for path, text in facts.configured.items() if path.endswith(".network")}
    for device in devices:
        # systemd.network(5): of all folders' files, sorted by name, the first that matches a device holds.
        for path in sorted(files, key=lambda path: path.rpartition("/")[2]):
            names, unmanaged = _match(files[path])
            if not names or any(fnmatchcase(device, name) for name in names):
                if unmanaged:
                    break
                return Finding(
                    "networkd",
                    "warning",
                    f"systemd-networkd runs, and {path} may match {device}",
                    f"printf '[Match]\\nName={' '.join([*devices[1:], 'vh*'])}\\n[Link]\\nUnmanaged=yes\\n' "
                    "> /etc/systemd/network/00-vethd.network && networkctl reload",
                )
    return Finding("networkd", "ok", "systemd-networkd leaves our devices alone")


def _match(text: str) -> tuple[list[str], bool]:
    """The patterns of ``Name=`` (empty: matches by something else, or all), and whether what matches is unmanaged."""
    lines = [line.strip() for line in text.splitlines()]
    names = [name for line in lines if line.startswith("Name=") for name in line[5:].split()]
    return names, any(line.lower() in ("unmanaged=yes", "unmanaged=true", "unmanaged=1") for line in lines)
