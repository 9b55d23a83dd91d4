"""The files of netns.d, one for each namespace or pattern of names: what it wants for itself."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from agent.config import values
from agent.config.reading import read_toml, refuse_if_others_replace, refuse_if_others_write
from agent.config.table import Table
from agent.core.identity import printable
from agent.errors import ConfigError
from agent.model import ExtraRoute, Network, Wish

_SUFFIX: Final = ".toml"
_HIDDEN: Final = "."
_RUNTIME_DIRECTORY: Final = "netns.d"
_ROUTES_ALLOWED: Final = (
    'a list of routes such as "10.8.0.0/16 via 172.27.0.9" or "10.9.0.0/16", each once, none of them a default route'
)
_SERVERS_ALLOWED: Final = "a list of addresses of name servers"


@dataclass(frozen=True, slots=True)
class Wishes:
    """All wishes that are in force.

    ``by_name`` maps the name of each file, without its suffix, to what it says; ``problems``
    the path of each file that cannot be used to one line that says why.
    """

    by_name: Mapping[str, Wish] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Wish | None:
        """Return what a namespace of this name wants: its own file, or else that of the longest pattern."""
        own = self.by_name.get(name)
        if own is not None:
            return own
        pattern = next((pattern for pattern in self.patterns if fnmatchcase(name, pattern)), None)
        return None if pattern is None else self.by_name[pattern]


def runtime_wishes(socket: Path) -> Path:
    """Return the directory, beside the control socket, for wishes of ``vethd new``: gone with a reboot."""
    return socket.parent / _RUNTIME_DIRECTORY


def forget_runtime_wish(socket: Path, name: str) -> None:
    """Remove what ``vethd new`` wrote for a namespace that is gone: nothing for a name that is no file's."""
    if "/" in name:
        return
    with contextlib.suppress(OSError):
        _path(runtime_wishes(socket), name).unlink()


def stamps(directories: Iterable[Path]) -> tuple[int, ...]:
    """Return what changes when a file of a directory comes or goes; 0 for one that is not there."""
    return tuple(_stamp(directory) for directory in directories)


def load_wishes(directory: Path, networks: Sequence[Network], former: Wishes) -> Wishes:
    """Read all files of a directory; it need not exist. A file that cannot be used leaves what it said in ``former``.

    Hidden files, and those whose names do not end in ``.toml``, are none of ours: editors and
    package managers leave them.
    """
    try:
        names = sorted(os.listdir(directory))
        refuse_if_others_write(directory, directory.stat())
        refuse_if_others_replace(directory, directory.parent)
    except FileNotFoundError:
        return Wishes()
    except OSError as error:
        line = f"{printable(str(directory))}: cannot be read: {error.strerror}"
        return replace(former, problems={str(directory): line})
    except ConfigError as error:
        return replace(former, problems={str(directory): str(error)})
    said: dict[str, Wish] = {}
    problems: dict[str, str] = {}
    for stem in (name.removesuffix(_SUFFIX) for name in names if _is_wish(name)):
        path = _path(directory, stem)
        try:
            said[stem] = _read(path, networks)
        except ConfigError as error:
            problems[str(path)] = str(error)
            if stem in former.by_name:
                said[stem] = former.by_name[stem]
    in_force = _each_address_once(said, former, directory, problems)
    patterns = sorted(filter(_is_pattern, in_force), key=lambda pattern: (-len(pattern), pattern))
    return Wishes(in_force, tuple(patterns), problems)


def parse_wish(raw: Mapping[str, object], path: Path, networks: Sequence[Network]) -> Wish:
    """Check the parsed file of one wish. An address also tells the network, that of its subnet.

    Raises ConfigError: one line that names the file, the key, and what is allowed.
    """
    table = Table(raw, printable(str(path)))
    known = {network.name: network for network in networks}
    network = table.take("network", _one_of(known), None, f"a network of the config: {', '.join(known)}")
    address = table.take("address", values.ipv4, None, "an IPv4 address")
    mtu = table.take("mtu", values.mtu, None, "1280 to 65535")
    interface = table.take("interface", values.device_name, None, values.DEVICE_NAME_ALLOWED)
    nat = table.take("nat", values.boolean, None, "true or false")
    routes: tuple[ExtraRoute, ...] = table.take("routes", _routes, (), _ROUTES_ALLOWED)
    dns = table.take("dns", _servers, None, _SERVERS_ALLOWED)
    table.refuse_the_rest()
    if address is not None:
        if _is_pattern(path.name):
            raise table.error("address", "is for one namespace, not for all that a pattern names")
        network = _network_of(table, address, networks if network is None else (network,))
    reachable = networks if network is None else (network,)
    for route in routes:
        if route.gateway is not None and not any(_holds(each, route.gateway) for each in reachable):
            names = ", ".join(each.name for each in reachable)
            raise table.error("routes", f"{route.gateway} is not allowed: must lie in a subnet of network {names}")
    source = f"{path.parent.name}/{path.name}"
    return Wish(source, network.name if network else None, address, mtu, interface, nat, routes, dns)


def _stamp(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0


def _is_wish(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(_HIDDEN)


def _is_pattern(stem: str) -> bool:
    return any(character in stem for character in "*?[")


def _path(directory: Path, stem: str) -> Path:
    return directory / f"{stem}{_SUFFIX}"


def _read(path: Path, networks: Sequence[Network]) -> Wish:
    if not path.is_file():
        # A pipe would keep the agent waiting for a writer.
        raise ConfigError(f"{printable(str(path))}: is no file")
    return parse_wish(read_toml(path), path, networks)


def _each_address_once(
    said: Mapping[str, Wish], former: Wishes, directory: Path, problems: dict[str, str]
) -> dict[str, Wish]:
    """Return what is in force. Who had an address before keeps it, whatever other files say now."""
    in_force: dict[str, Wish] = {}
    holders: dict[IPv4Address, str] = {}
    for stem in sorted(said, key=lambda stem: (said[stem] != former.by_name.get(stem), stem)):
        wish, before = said[stem], former.by_name.get(stem)
        if wish.address in holders:
            path, theirs = _path(directory, stem), printable(holders[wish.address] + _SUFFIX)
            line = f"address: {wish.address} is that of {theirs}; each namespace has its own"
            problems[str(path)] = f"{printable(str(path))}: {line}"
            if before is None or before.address in holders:
                continue
            wish = before
        in_force[stem] = wish
        if wish.address is not None:
            holders[wish.address] = stem
    return in_force


def _one_of(known: Mapping[str, Network]) -> Callable[[object], Network]:
    def check(value: object) -> Network:
        found = known.get(values.text(value))
        if found is None:
            raise ValueError
        return found

    return check


def _network_of(table: Table, address: IPv4Address, networks: Sequence[Network]) -> Network:
    network = next((network for network in networks if address in network.subnet), None)
    if network is None:
        subnets = ", ".join(f"{network.subnet} of network {network.name}" for network in networks)
        raise table.error("address", f"{address} is not allowed: must lie in {subnets}")
    subnet = network.subnet
    if address in (subnet.network_address, network.gateway.ip, subnet.broadcast_address):
        raise table.error(
            "address", f"{address} is not allowed: is the first, the bridge's or the last address of {subnet}"
        )
    return network


def _holds(network: Network, address: IPv4Address | IPv6Address) -> bool:
    return address in network.subnet or (network.subnet6 is not None and address in network.subnet6)


def _routes(value: object) -> tuple[ExtraRoute, ...]:
    routes = tuple(_route(item) for item in values.texts(value))
    if len({route.destination for route in routes}) < len(routes):
        raise ValueError
    return routes


def _route(item: str) -> ExtraRoute:
    match item.split():
        case [destination]:
            return ExtraRoute(_destination(destination), None)
        case [destination, "via", gateway]:
            target, by = _destination(destination), _address(gateway)
            if target.version != by.version:
                raise ValueError
            return ExtraRoute(target, by)
        case _:
            raise ValueError


def _destination(item: str) -> IPv4Network | IPv6Network:
    network = ip_network(item)
    # The default route is vethd's own; one route cannot lead both ways.
    if network.prefixlen == 0:
        raise ValueError
    return network


def _servers(value: object) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(_address(item) for item in values.texts(value))


def _address(item: str) -> IPv4Address | IPv6Address:
    address = ip_address(item)
    if address.is_unspecified or address.is_multicast or "%" in item:
        raise ValueError
    return address
