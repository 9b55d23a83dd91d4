"""The TOML config: read, checked whole, turned into frozen values. The file is never half applied."""

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations
from pathlib import Path
from typing import Final, Literal, TypeVar

from agent.core.identity import printable
from agent.errors import ConfigError
from agent.model import Network, Port

DEFAULT_PATH: Final = Path("/etc/vethd/vethd.toml")
ENVIRONMENT: Final = "VETHD_CONFIG"

_DEFAULT_EXCLUDE: Final = ("cni-*", "netns-*", "qrouter-*", "qdhcp-*")
_DEVICE_NAME_BYTES: Final = 15
_MTU_RANGE: Final = range(1280, 65536)
_DEVICE_NAME_ALLOWED: Final = (
    r'a device name of at most 15 bytes without white space and / : % " * \, not lo, all or default'
)
# "all" and "default" stand for other things below /proc/sys/net.
_NO_DEVICE_NAMES: Final = frozenset({".", "..", "lo", "all", "default"})
_NETWORK_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_LARGEST_PREFIX: Final = 29
_NOT_UNICAST: Final = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))
_NOT_UNICAST6: Final = tuple(map(IPv6Network, ("::/127", "fe80::/10", "ff00::/8")))
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config. ``source`` is the file it came from, None for the built-in defaults."""

    source: Path | None
    state_dir: Path
    socket: Path
    socket_group: str | None
    directories: tuple[Path, ...]
    exclude: tuple[str, ...]
    networks: tuple[Network, ...]
    metrics_host: str
    metrics_port: int
    conntrack_interval: float
    conntrack_accounting: bool


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
    if path is None:
        return parse({}, None)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # Of ValueError, too: no UTF-8, and a number of thousands of digits.
        raise ConfigError(f"{path}: is no valid TOML: {error}") from error
    return parse(raw, path)


def parse(raw: Mapping[str, object], source: Path | None) -> Config:
    """Check a parsed TOML document."""
    top = _Table(raw, source, "")
    agent = top.table("agent")
    discovery = top.table("discovery")
    metrics = top.table("metrics")
    host, port = metrics.take("listen", _listen, ("127.0.0.1", 9853), "HOST:PORT")
    config = Config(
        source=source,
        state_dir=agent.take("state_dir", _absolute, Path("/var/lib/vethd"), "an absolute path"),
        socket=agent.take("socket", _absolute, Path("/run/vethd/vethd.sock"), "an absolute path"),
        socket_group=agent.take("group", _text, None, "the name of a group"),
        directories=discovery.take(
            "directories", _directories, (Path("/run/netns"),), "a list of absolute paths, at least one"
        ),
        exclude=discovery.take("exclude", _texts, _DEFAULT_EXCLUDE, "a list of patterns"),
        networks=_networks(top),
        metrics_host=host,
        metrics_port=port,
        conntrack_interval=metrics.take("conntrack_interval", _seconds, 5.0, "seconds, more than 0"),
        conntrack_accounting=metrics.take("conntrack_accounting", _boolean, False, "true or false"),
    )
    for table in (agent, discovery, metrics, top):
        table.refuse_the_rest()
    return config


class _Table:
    """One TOML table whose keys are taken one by one; what is left over is unknown."""

    def __init__(self, raw: Mapping[str, object], source: Path | None, name: str) -> None:
        self._left = dict(raw)
        self._known: list[str] = []
        self._source = source
        self.name = name

    def table(self, key: str) -> "_Table":
        self._known.append(key)
        found = self._left.pop(key, {})
        if not isinstance(found, dict):
            raise self.error(key, "must be a table")
        return _Table(found, self._source, self._path(key))

    def tables(self) -> list["_Table"]:
        return [self.table(key) for key in list(self._left)]

    def take(self, key: str, check: Callable[[object], _Value], default: _Value, allowed: str) -> _Value:
        self._known.append(key)
        if key not in self._left:
            return default
        value = self._left.pop(key)
        try:
            return check(value)
        except (ValueError, TypeError):
            raise self.error(key, f"{value!r} is not allowed: must be {allowed}") from None

    def refuse_the_rest(self) -> None:
        for key in self._left:
            raise self.error(key, f"unknown; known here: {', '.join(sorted(self._known))}")

    def error(self, key: str, message: str) -> ConfigError:
        return ConfigError(f"{self._source or 'built-in config'}: {printable(self._path(key))}: {message}")

    def _path(self, key: str) -> str:
        return ".".join(part for part in (self.name, key) if part)


def _networks(top: _Table) -> tuple[Network, ...]:
    section = top.table("network")
    tables = section.tables() or [section.table("default")]
    networks = tuple(_network(table) for table in tables)
    names = {network.name for network in networks}
    for table, network in zip(tables, networks, strict=True):
        for other in network.reach:
            if other not in names or other == network.name:
                raise table.error("reach", f"{other!r} is not allowed: must name other networks of this file")
    for (table, one), (_, two) in combinations(zip(tables, networks, strict=True), 2):
        if one.subnet.overlaps(two.subnet):
            raise table.error(
                "subnet", f"{one.subnet} overlaps {two.subnet} of network.{two.name}; subnets must not overlap"
            )
        if one.subnet6 and two.subnet6 and one.subnet6.overlaps(two.subnet6):
            raise table.error(
                "subnet6", f"{one.subnet6} overlaps {two.subnet6} of network.{two.name}; subnets must not overlap"
            )
        if one.bridge == two.bridge:
            raise table.error("bridge", f"{one.bridge!r} is that of network.{two.name} too; each network has its own")
    return networks


def _network(table: _Table) -> Network:
    name = table.name.removeprefix("network.")
    if not _NETWORK_NAME.fullmatch(name):
        raise table.error("", "is no name for a network: must be 1 to 32 letters of ASCII, digits, - or _")
    is_default = name == "default"
    subnet = table.take(
        "subnet",
        _subnet,
        IPv4Network("172.27.0.0/16") if is_default else None,
        "a unicast IPv4 network of /29 or larger without host bits",
    )
    if subnet is None:
        raise table.error("subnet", "is missing: must be an IPv4 network of /29 or larger")
    network = Network(
        name=name,
        subnet=subnet,
        subnet6=table.take(
            "subnet6",
            _subnet6,
            IPv6Network("fd00:7e74:1::/64") if is_default else None,
            'a unicast, not link-local IPv6 network without host bits, as large as the IPv4 one, or ""',
        ),
        bridge=table.take(
            "bridge",
            _device_name,
            "vethd0" if is_default else f"vethd-{name}"[:_DEVICE_NAME_BYTES],
            _DEVICE_NAME_ALLOWED,
        ),
        interface=table.take("interface", _device_name, "eth0", _DEVICE_NAME_ALLOWED),
        nat=table.take("nat", _boolean, True, "true or false"),
        mtu=table.take("mtu", _mtu, 0, "0 or 1280 to 65535"),
        isolate=table.take("isolate", _boolean, False, "true or false"),
        host_access=table.take(
            "host_access", _host_access, "all", '"all", "none" or a list of ports such as ["tcp/53"]'
        ),
        anti_spoof=table.take("anti_spoof", _boolean, True, "true or false"),
        reach=table.take("reach", _texts, (), "a list of network names"),
    )
    if network.subnet6 is not None and network.subnet6.num_addresses < network.subnet.num_addresses:
        raise table.error("subnet6", f"{network.subnet6} is smaller than {network.subnet}; must hold as many addresses")
    table.refuse_the_rest()
    return network


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(item) for item in value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _absolute(value: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError
    return path


def _directories(value: object) -> tuple[Path, ...]:
    paths = tuple(_absolute(item) for item in _texts(value))
    if not paths:
        raise ValueError
    return paths


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError
    return float(value)


def _listen(value: object) -> tuple[str, int]:
    host, separator, port = _text(value).rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError
    return host.removeprefix("[").removesuffix("]"), int(port)


def _subnet(value: object) -> IPv4Network:
    network = IPv4Network(_text(value))
    if network.prefixlen > _LARGEST_PREFIX or any(network.overlaps(other) for other in _NOT_UNICAST):
        raise ValueError
    return network


def _subnet6(value: object) -> IPv6Network | None:
    if value == "":
        return None
    network = IPv6Network(_text(value))
    if network.network_address.scope_id or any(network.overlaps(other) for other in _NOT_UNICAST6):
        raise ValueError
    return network


def _device_name(value: object) -> str:
    name = _text(value)
    if len(name.encode()) > _DEVICE_NAME_BYTES or name in _NO_DEVICE_NAMES or not name.isprintable():
        raise ValueError
    # What the kernel refuses, and what nftables takes for a pattern.
    if any(character in '/:%"*\\' or character.isspace() for character in name):
        raise ValueError
    return name


def _mtu(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (value and value not in _MTU_RANGE):
        raise ValueError
    return value


def _host_access(value: object) -> Literal["all", "none"] | tuple[Port, ...]:
    if value == "all":
        return "all"
    if value == "none":
        return "none"
    return tuple(_port(item) for item in _texts(value))


def _port(item: str) -> Port:
    protocol, _, number = item.partition("/")
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError
    match protocol:
        case "tcp":
            return Port("tcp", int(number))
        case "udp":
            return Port("udp", int(number))
        case _:
            raise ValueError
