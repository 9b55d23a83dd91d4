"""Which name servers a namespace can use: resolv.conf(5) read, chosen from, and written.

A server on the host's loopback, such as the stub of systemd-resolved or dnsmasq, answers no
namespace. Whoever runs one keeps a second file that names the servers behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

Server = IPv4Address | IPv6Address

MARK: Final = b"# Made by vethd, which keeps it current. Without this line it is yours, and left as it is."
OWN_DIRECTORY_MARK: Final = b"# So is its directory."

# A promise about the way to the very servers it stands beside: resolv.conf(5).
_TRUST: Final = "trust-ad"
_ENCODING: Final = "utf-8"
_KEEP_BYTES: Final = "surrogateescape"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a resolv.conf says, ``servers`` in the order they are asked."""

    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(raw: bytes) -> ResolvConf:
    """Read a resolv.conf as the C library does: a keyword begins its line, of several searches the last counts."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in raw.split(b"\n"):
        keyword, *values = [word.decode(_ENCODING, _KEEP_BYTES) for word in line.split()] or [""]
        if not values or line[:1].isspace():
            continue
        match keyword:
            case "nameserver":
                servers += _server(values[0])
            case "search":
                search = tuple(values)
            case "domain":
                search = (values[0],)
            case "options":
                options += values
    return ResolvConf(tuple(servers), search, tuple(options))


def choose(files: Iterable[ResolvConf]) -> ResolvConf | None:
    """Return the first that names a server which answers namespaces, without those that do not; None if none does."""
    for file in files:
        servers = tuple(server for server in file.servers if answers_namespaces(server))
        if servers:
            return replace(file, servers=servers)
    return None


def answers_namespaces(server: Server) -> bool:
    """Tell whether a server's address means the same in a namespace as on the host."""
    if isinstance(server, IPv6Address):
        if server.ipv4_mapped is not None:
            return answers_namespaces(server.ipv4_mapped)
        # A link-local address is one of a device that the namespace does not have.
        if server.is_link_local or server.scope_id is not None:
            return False
    return not (server.is_loopback or server.is_unspecified or server.is_multicast)


def for_namespace(host: ResolvConf | None, wished: Sequence[Server] | None, ipv6: bool) -> ResolvConf | None:
    """Return what one namespace is told, None when no server is known.

    ``host`` is what `choose` found, ``wished`` are servers that take the place of the host's,
    ``ipv6`` tells whether the namespace has IPv6.
    """
    if wished:
        beside = host or ResolvConf()
        return replace(
            beside,
            servers=tuple(wished),
            options=tuple(option for option in beside.options if option != _TRUST),
        )
    if host is None:
        return None
    reachable = tuple(server for server in host.servers if ipv6 or server.version == 4)
    return replace(host, servers=reachable or host.servers)


def render(content: ResolvConf, own_directory: bool) -> bytes:
    """Return a file of ours; ``own_directory``: the directory it is in was made for it."""
    lines = [f"nameserver {server}" for server in content.servers]
    if content.search:
        lines.append(f"search {' '.join(content.search)}")
    if content.options:
        lines.append(f"options {' '.join(content.options)}")
    marks = [MARK, OWN_DIRECTORY_MARK] if own_directory else [MARK]
    return b"\n".join([*marks, *(line.encode(_ENCODING, _KEEP_BYTES) for line in lines), b""])


def is_ours(raw: bytes) -> bool:
    """Tell whether vethd wrote this file and nobody has claimed it since."""
    return raw.split(b"\n", 1)[0] == MARK


def has_own_directory(raw: bytes) -> bool:
    """Tell whether the directory of this file was made for it."""
    return raw.split(b"\n", 2)[:2] == [MARK, OWN_DIRECTORY_MARK]


def _server(text: str) -> list[Server]:
    try:
        return [ip_address(text)]
    except ValueError:
        return []
