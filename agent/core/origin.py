"""What a namespace that has no name is called: by the container, the unit or the process it belongs to.

Runtimes and service managers name the control group of what they start, and that name is
the one thing they all leave where anybody can read it.

Source: cgroups(7); CGROUP_DELEGATION and src/basic/cgroup-util.c of systemd; the OCI
runtimes' cgroup drivers; lxc.container.conf(5); https://libvirt.org/cgroups.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.model import Origin

_SHORT: Final = 12
_HEX: Final = "[0-9a-f]{64}"
_RUNTIMES: Final = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "cri-containerd": "cri",
    "crio": "crio",
    "containerd": "containerd",
    "nerdctl": "containerd",
}
# "docker-ID.scope", "crio-ID", and "system.slice:docker:ID", which runc makes of systemd's syntax without systemd.
_TITLED: Final = re.compile(rf"(?:.*:)?(?P<title>{'|'.join(_RUNTIMES)})[-:](?P<id>{_HEX})(?:\.scope)?")
_BARE: Final = re.compile(_HEX)
_LXC: Final = re.compile(r"lxc\.payload\.(?P<name>.+)", re.DOTALL)
_LXC_FOLDERS: Final = {"lxc", "lxc.payload"}
_MACHINE: Final = re.compile(r"machine-(?P<name>.+)\.scope|systemd-nspawn@(?P<instance>.+)\.service", re.DOTALL)
_LIBVIRT_LXC: Final = re.compile(r"lxc-[0-9]+-(?P<name>.+)", re.DOTALL)
_LIBVIRT_QEMU: Final = "qemu-"
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]+)?\.(?:service|scope|socket|mount|swap)")
_USER_MANAGER: Final = re.compile(r"user@[0-9]+\.service")
_SESSION: Final = re.compile(r"session-[A-Za-z0-9]+\.scope")
_ESCAPED: Final = re.compile(rb"\\x([0-9a-fA-F]{2})")
# The hierarchies of version 1 in which managers and runtimes make their groups, likeliest first.
_HIERARCHIES: Final = ("name=systemd", "pids", "memory", "cpu", "devices", "freezer")


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc tells it; ``arguments`` are joined by spaces, ``cgroup`` is a path from the root."""

    pid: int
    name: str
    arguments: str
    cgroup: str
    user: str


def origin_of(process: Process, path: str) -> Origin:
    """Return where the namespace behind ``path`` comes from, which a process is in."""
    container = container_of(process.cgroup)
    return Origin(
        source="process",
        name=container or f"pid:{process.pid}:{process.name}",
        path=path,
        pid=process.pid,
        command=process.arguments or process.name,
        cgroup=process.cgroup,
        user=process.user,
        container=container,
    )


def container_of(cgroup: str) -> str:
    """Return the container or else the unit that a control group belongs to, empty when it is neither's.

    Containers are ``docker:``, ``podman:``, ``cri:``, ``crio:`` or ``containerd:`` and twelve digits
    of their id, ``lxc:NAME`` or ``nspawn:NAME``; units ``unit:NAME``, and ``unit:user@UID.service/NAME``
    where a user's own manager runs them. The innermost container counts, and the outermost unit:
    what runs inside a container may call its groups as it likes. A login is no unit.
    """
    parts = [part for part in cgroup.split("/") if part]
    for place in reversed(range(len(parts))):
        container = _container(parts, place)
        if container:
            return container
    return _unit(parts)


def cgroup_of(text: str) -> str:
    """Return a process's control group from the text of /proc/PID/cgroup (cgroups(7)).

    With version 1 and 2 side by side it is the first hierarchy in which the process is not in the root.
    """
    groups: dict[str, str] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path.startswith("/") and number.isdecimal():
            groups.update(dict.fromkeys(controllers.split(","), path))
    for hierarchy in ("", *_HIERARCHIES, *groups):
        path = groups.get(hierarchy, "/")
        if path != "/":
            return path
    return "/" if groups else ""


def _container(parts: Sequence[str], place: int) -> str:
    part = parts[place]
    if titled := _TITLED.fullmatch(part):
        return f"{_RUNTIMES[titled['title']]}:{titled['id'][:_SHORT]}"
    if _BARE.fullmatch(part):
        return f"{_runtime(parts[:place])}:{part[:_SHORT]}"
    if payload := _LXC.fullmatch(part):
        return f"lxc:{payload['name']}"
    if place and parts[place - 1] in _LXC_FOLDERS:
        return f"lxc:{part}"
    if machine := _MACHINE.fullmatch(part):
        return _machine(_unescaped(machine["name"] or machine["instance"]))
    return ""


def _runtime(above: Sequence[str]) -> str:
    """Tell whose container a group is that is called by its id alone."""
    if above and above[-1] == "docker":
        return "docker"
    if above and above[-1] == "libpod_parent":
        return "podman"
    return "cri" if any(part.startswith("kubepods") for part in above) else "containerd"


def _machine(name: str) -> str:
    if name.startswith(_LIBVIRT_QEMU):
        return ""
    libvirt = _LIBVIRT_LXC.fullmatch(name)
    return f"lxc:{libvirt['name']}" if libvirt else f"nspawn:{name}"


def _unit(parts: Sequence[str]) -> str:
    unit, below = _first_unit(parts)
    if not unit or _SESSION.fullmatch(unit):
        return ""
    if _USER_MANAGER.fullmatch(unit):
        users, _ = _first_unit(below)
        return f"unit:{unit}/{users}" if users else f"unit:{unit}"
    return f"unit:{unit}"


def _first_unit(parts: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the unit behind all slices, and what is below it."""
    for place, part in enumerate(parts):
        if part.endswith(".slice"):
            continue
        # A group that would be taken for a file of the control group's own begins with an extra "_".
        unit = part.removeprefix("_")
        return (unit, parts[place + 1 :]) if _UNIT.fullmatch(unit) else ("", ())
    return "", ()


def _unescaped(name: str) -> str:
    r"""Undo systemd's ``\xNN``; a machine's name has no slash, which would be escaped as ``-``."""
    raw = name.encode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), raw).decode("utf-8", "surrogateescape")
