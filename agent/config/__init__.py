"""The TOML config: read, checked whole, turned into frozen values. The file is never half applied."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agent.config import values
from agent.config.networks import networks
from agent.config.reading import read_toml
from agent.config.rules import rules
from agent.config.table import Table
from agent.core.identity import printable
from agent.model import Network, Rule

DEFAULT_PATH: Final = Path("/etc/vethd/vethd.toml")
ENVIRONMENT: Final = "VETHD_CONFIG"

_DEFAULT_EXCLUDE: Final = ("cni-*", "netns-*", "qrouter-*", "qdhcp-*")


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config. ``source`` is the file it came from, None for the built-in defaults.

    ``mode`` observe changes nothing on the host. ``wishes`` is the directory of what single
    namespaces want. ``rules`` are in their order, the first that matches decides.
    """

    source: Path | None
    mode: Literal["manage", "observe"]
    state_dir: Path
    socket: Path
    socket_group: str | None
    dns: Literal["host", "off"]
    directories: tuple[Path, ...]
    exclude: tuple[str, ...]
    wishes: Path
    networks: tuple[Network, ...]
    rules: tuple[Rule, ...]
    metrics_host: str
    metrics_port: int
    conntrack_interval: float
    conntrack_accounting: bool

    @property
    def concerns_processes(self) -> bool:
        """Whether namespaces without a name can be meant: only then are processes watched."""
        return self.mode == "observe" or any(
            rule.network is not None and rule.patterns.get("source") != "named" for rule in self.rules
        )


def locate(explicit: Path | None) -> Path | None:
    """Return the file to read: the explicit one, $VETHD_CONFIG, /etc/vethd/vethd.toml, or none."""
    if explicit is not None:
        return explicit
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def load(path: Path | None) -> Config:
    """Read and check a config file; None gives the built-in defaults.

    Raises ConfigError: one line that names the file, the key, and what is allowed.
    """
    return parse({}, None) if path is None else parse(read_toml(path), path)


def parse(raw: Mapping[str, object], source: Path | None) -> Config:
    """Check a parsed TOML document. Raises ConfigError."""
    top = Table(raw, "built-in config" if source is None else printable(str(source)))
    agent = top.table("agent")
    discovery = top.table("discovery")
    metrics = top.table("metrics")
    host, port = metrics.take("listen", values.listen, ("127.0.0.1", 9853), "HOST:PORT")
    known = networks(top)
    config = Config(
        source=source,
        mode=agent.take("mode", values.mode, "manage", '"manage" or "observe"'),
        state_dir=agent.take("state_dir", values.absolute, Path("/var/lib/vethd"), "an absolute path"),
        socket=agent.take("socket", values.absolute, Path("/run/vethd/vethd.sock"), "an absolute path"),
        socket_group=agent.take("group", values.text, None, "the name of a group"),
        dns=agent.take("dns", values.dns, "host", '"host" or "off"'),
        directories=discovery.take(
            "directories", values.directories, (Path("/run/netns"),), "a list of absolute paths, at least one"
        ),
        exclude=discovery.take("exclude", values.texts, _DEFAULT_EXCLUDE, "a list of patterns"),
        wishes=discovery.take("wishes", values.absolute, Path("/etc/vethd/netns.d"), "an absolute path"),
        networks=known,
        rules=rules(top, [network.name for network in known]),
        metrics_host=host,
        metrics_port=port,
        conntrack_interval=metrics.take("conntrack_interval", values.seconds, 5.0, "seconds, more than 0"),
        conntrack_accounting=metrics.take("conntrack_accounting", values.boolean, False, "true or false"),
    )
    for table in (agent, discovery, metrics, top):
        table.refuse_the_rest()
    return config
