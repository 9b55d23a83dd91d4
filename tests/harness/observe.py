"""Independent eyes: what `ip`, `nft` and `conntrack` say, which share no code with vethd."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.harness.netns import Name, enter

Item = dict[str, Any]
_SNMP = Path("/proc/thread-self/net/snmp")


def run(*args: str | bytes, netns: Name | None = None) -> str:
    """Run a program in a namespace; its standard output. Fails with its standard error."""
    with enter(netns):
        done = subprocess.run(args, capture_output=True, text=True, check=False, errors="surrogateescape")
    assert done.returncode == 0, f"{args}: {done.stderr.strip()}"
    return done.stdout


def ip_json(*args: str, netns: Name | None = None) -> list[Item]:
    """`ip -json -details ARGS`; a device or an object that is not there is an empty list."""
    with enter(netns):
        command = ["ip", "-json", "-details", *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "does not exist" in done.stderr:
        return []
    assert done.returncode == 0, f"{command}: {done.stderr.strip()}"
    found: list[Item] = [item for item in json.loads(done.stdout or "[]") if item]
    return found


def links(netns: Name | None = None) -> dict[str, Item]:
    return {link["ifname"]: link for link in ip_json("link", "show", netns=netns)}


def host_ends() -> dict[str, Item]:
    """The host's veth devices on any bridge, by name."""
    return {name: link for name, link in links().items() if name.startswith("vh")}


def addresses(device: str, netns: Name | None = None) -> set[str]:
    """Global addresses of a device with their prefix lengths, both families."""
    return {
        f"{info['local']}/{info['prefixlen']}"
        for link in ip_json("address", "show", "dev", device, netns=netns)
        for info in link["addr_info"]
        if info["scope"] == "global"
    }


def default_routes(netns: Name | None = None) -> set[tuple[str, str]]:
    """(gateway, device) of the default routes, both families."""
    found = ip_json("-4", "route", netns=netns) + ip_json("-6", "route", netns=netns)
    return {(route["gateway"], route["dev"]) for route in found if route["dst"] == "default"}


def mac(device: str, netns: Name | None = None) -> str:
    return str(links(netns)[device]["address"])


def nft_json(*options: str) -> list[Item]:
    """All nftables objects of the host, each a dict of one key: table, chain, rule, set, map, ..."""
    objects: list[Item] = json.loads(run("nft", "-j", *options, "list", "ruleset"))["nftables"]
    return [item for item in objects if "metainfo" not in item]


def key(element: Any) -> Any:
    """An element of a set as nft tells it, without what it has counted."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def nft_text() -> str:
    return run("nft", "list", "ruleset")


def conntrack_list() -> list[str]:
    """One line per tracked connection, both families."""
    return [line for family in ("ipv4", "ipv6") for line in run("conntrack", "-L", "-f", family).splitlines()]


def tcp_retransmits(*namespaces: Name) -> int:
    """How many TCP segments were ever sent again from these namespaces.

    A lost packet shows here however busy the machine is, which makes gaps in time long too.
    """
    total = 0
    for netns in namespaces:
        with enter(netns):
            names, values = (line.split() for line in _SNMP.read_text().splitlines() if line.startswith("Tcp:"))
        total += int(values[names.index("RetransSegs")])
    return total


def sysctl(name: str, netns: Name | None = None) -> str:
    """`name` as a path below /proc/sys, such as net/ipv4/ip_forward."""
    with enter(netns):
        return Path("/proc/sys", name).read_text().strip()


def set_sysctl(name: str, value: str, netns: Name | None = None) -> None:
    with enter(netns):
        Path("/proc/sys", name).write_text(value)
