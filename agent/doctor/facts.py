"""What the doctor knows of a host before it judges: plain values, so that each check is a function of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from agent.config import Config
from agent.doctor.listeners import Listener
from agent.kernel.privileges import Privileges

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host; ``mtu`` in bytes."""

    name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Destination:
    """A unicast route of the host's main table; a default route has a prefix length of 0."""

    network: IPv4Network | IPv6Network
    device: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The config file as it lies on the disk; ``problem`` is why it cannot be used, empty when it can."""

    path: str
    exists: bool
    owner: int
    mode: int
    problem: str


@dataclass(frozen=True, slots=True)
class Agent:
    """The running agent's own ``/v1/status``, or why there is none."""

    status: Json | None
    problem: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is looked at.

    ``mounts`` is the text of the agent's ``/proc/PID/mountinfo`` (the doctor's own when no agent runs), None when it
    may not be read; ``shares_mounts`` tells whether that is the mount namespace of pid 1. ``ruleset`` is the list
    ``nftables`` of libnftables-json(5). ``sysctls`` holds what of `gather.SYSCTLS` exists. ``configured`` maps the
    path of each file of a network manager to its text. ``listeners`` are the host's own services, ``privileges`` what
    the running agent may, None when no agent runs.
    ``wish_problems`` says, one line each, which files of netns.d no agent would take; looked at when none runs.
    """

    config: Config
    config_file: ConfigFile
    agent: Agent
    uid: int
    capabilities: int
    shares_mounts: bool
    mounts: str | None
    dead_names: tuple[str, ...]
    ruleset: tuple[Json, ...]
    ruleset_problem: str
    legacy_tables: tuple[str, ...]
    sysctls: Mapping[str, int]
    devices: tuple[Device, ...]
    routes: tuple[Destination, ...]
    programs: frozenset[str]
    configured: Mapping[str, str] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    privileges: Privileges | None = None
    wish_problems: tuple[str, ...] = ()

    def mtu(self, device: str) -> int | None:
        """MTU of a device, None when there is no such device."""
        return next((found.mtu for found in self.devices if found.name == device), None)

    def uplink(self, version: int) -> str | None:
        """Device of the default route of IP ``version`` 4 or 6."""
        return next(
            (route.device for route in self.routes if route.network.version == version and not route.network.prefixlen),
            None,
        )
