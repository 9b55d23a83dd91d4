"""Reads the facts from the host. Nothing here changes anything."""

import os
import stat
import time
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from nftables import Nftables
from pyroute2 import IPRoute

from agent.config import Config
from agent.config.wishes import Wishes, load_wishes, runtime_wishes
from agent.doctor.facts import Agent, ConfigFile, Destination, Device, Facts, Json
from agent.doctor.listeners import listeners
from agent.kernel.privileges import Privileges, read

SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
)
MANAGER_FILES = (
    "/etc/NetworkManager/NetworkManager.conf",
    "/etc/NetworkManager/conf.d/*.conf",
    "/run/NetworkManager/conf.d/*.conf",
    "/usr/lib/NetworkManager/conf.d/*.conf",
    "/etc/systemd/network/*.network",
    "/run/systemd/network/*.network",
    "/usr/lib/systemd/network/*.network",
    "/lib/systemd/network/*.network",
)
MAIN_TABLE = 254  # RT_TABLE_MAIN, rtnetlink(7)
UNICAST = 1  # RTN_UNICAST
CAP_NET_ADMIN = 12  # capabilities(7)
SETTLED_SECONDS = 10.0  # `ip netns add` turns its placeholder into a namespace well within this


def gather(config: Config, config_file: ConfigFile, agent: Agent) -> Facts:
    """Look at the host."""
    pid = str(agent.status["pid"]) if agent.status else "self"
    capabilities = _capabilities()
    # libnftables complains on stderr by itself when it may not look.
    ruleset, ruleset_problem = _ruleset() if capabilities >> CAP_NET_ADMIN & 1 else ((), "it takes root to look")
    devices, routes = _links_and_routes()
    uplinks = {route.device for route in routes if not route.network.prefixlen}
    return Facts(
        config=config,
        config_file=config_file,
        agent=agent,
        uid=os.geteuid(),
        capabilities=capabilities,
        shares_mounts=_same_mount_namespace(pid),
        mounts=_text(f"/proc/{pid}/mountinfo"),
        dead_names=tuple(_dead_names(map(str, config.directories))),
        ruleset=ruleset,
        ruleset_problem=ruleset_problem,
        legacy_tables=tuple((_text("/proc/net/ip_tables_names") or "").split()),
        sysctls=_sysctls((*SYSCTLS, *(f"net.ipv6.conf.{device}.accept_ra" for device in uplinks))),
        devices=devices,
        routes=routes,
        programs=_programs(),
        configured=_manager_files(),
        listeners=listeners(),
        privileges=_privileges(pid) if agent.status else None,
        wish_problems=() if agent.status else tuple(_wish_problems(config)),
    )


def config_file(path: str, problem: str) -> ConfigFile:
    """How the config file lies on the disk."""
    try:
        found = os.stat(path)
    except OSError:
        return ConfigFile(path, exists=False, owner=0, mode=0, problem=problem)
    return ConfigFile(path, exists=True, owner=found.st_uid, mode=stat.S_IMODE(found.st_mode), problem=problem)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _capabilities() -> int:
    """The effective set of this process as a bit mask, proc(5)."""
    lines = (_text("/proc/self/status") or "").splitlines()
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _privileges(pid: str) -> Privileges | None:
    try:
        return read(pid)
    except OSError:
        return None


def _wish_problems(config: Config) -> Iterable[str]:
    for directory in (config.wishes, runtime_wishes(config.socket)):
        yield from load_wishes(directory, config.networks, Wishes()).problems.values()


def _same_mount_namespace(pid: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/1/ns/mnt")
    except OSError:
        return False


def _dead_names(directories: Iterable[str]) -> Iterable[str]:
    """Files on which no namespace is mounted: a program died between making the file and mounting on it."""
    for directory in directories:
        try:
            here = os.stat(directory).st_dev
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            old = time.time() - found.st_ctime > SETTLED_SECONDS
            if stat.S_ISREG(found.st_mode) and found.st_dev == here and old:
                yield entry.path


def _ruleset() -> tuple[tuple[Json, ...], str]:
    """All rules of the host, and why they cannot be read."""
    try:
        nft = Nftables()
    except OSError as error:
        return (), f"libnftables cannot be loaded ({error})"
    nft.set_json_output(True)
    code, output, problem = nft.json_cmd({"nftables": [{"list": {"ruleset": None}}]})
    if code:
        return (), str(problem).strip().partition("\n")[0] or "the kernel refuses"
    return tuple(output["nftables"]), ""


def _sysctls(names: Iterable[str]) -> dict[str, int]:
    # In a device's name a dot stands for itself, so only the names' own dots may become slashes: sysctl.d(5).
    found = {}
    for name in names:
        text = _text("/proc/sys/" + _sysctl_path(name))
        if text is not None and text.strip().lstrip("-").isdigit():
            found[name] = int(text)
    return found


def _sysctl_path(name: str) -> str:
    head, separator, rest = name.partition("net.ipv6.conf.")
    if not separator or head:
        return name.replace(".", "/")
    device, _, key = rest.rpartition(".")
    return f"net/ipv6/conf/{device}/{key}"


def _links_and_routes() -> tuple[tuple[Device, ...], tuple[Destination, ...]]:
    with IPRoute() as host:
        names = {link["index"]: Device(link.get("ifname"), link.get("mtu")) for link in host.get_links()}
        routes = [
            Destination(_network(route), names[route.get("oif")].name)
            for family in (2, 10)
            for route in host.get_routes(family=family)
            if route.get("table") == MAIN_TABLE and route["type"] == UNICAST and route.get("oif") in names
        ]
    return tuple(names.values()), tuple(routes)


def _network(route: Json) -> IPv4Network | IPv6Network:
    anywhere = "0.0.0.0" if route["family"] == 2 else "::"
    return ip_network(f"{route.get('dst') or anywhere}/{route['dst_len']}")


def _programs() -> frozenset[str]:
    """Names of the running programs, cut to the kernel's 15 bytes."""
    found = (_text(f"/proc/{entry}/comm") for entry in os.listdir("/proc") if entry.isdigit())
    return frozenset(name.strip() for name in found if name)


def _manager_files() -> dict[str, str]:
    found: dict[str, str] = {}
    seen: set[str] = set()
    for pattern in MANAGER_FILES:
        folder, shape = os.path.split(pattern)
        for path in sorted(Path(folder).glob(shape)):
            # A file of the same name in a folder named earlier hides this one, and the last two folders may be one.
            if path.suffix == ".network" and path.name in seen:
                continue
            seen.add(path.name)
            found[str(path)] = _text(str(path)) or ""
    return found
