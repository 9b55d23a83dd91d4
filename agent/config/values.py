"""What a single value may be. Each check returns the value, or raises ValueError or TypeError."""

import math
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, Literal

from agent.core.identity import HOST_END_PREFIX
from agent.model import Port

DEVICE_NAME_BYTES: Final = 15
DEVICE_NAME_ALLOWED: Final = (
    r'a device name of at most 15 bytes without white space and / : % " * \, not lo, all or default'
)
# "all" and "default" stand for other things below /proc/sys/net.
_NO_DEVICE_NAMES: Final = frozenset({".", "..", "lo", "all", "default"})
# IPv6's least MTU (RFC 8200) to the largest of an IP packet.
_MTU_RANGE: Final = range(1280, 65536)
# A bridge takes 1,023 ports (BR_MAX_PORTS, net/bridge/br_private.h): some are left for others' devices.
_BRIDGE_PORTS: Final = range(1001)
_LARGEST_PREFIX: Final = 29
_NOT_UNICAST: Final = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))
_NOT_UNICAST6: Final = tuple(map(IPv6Network, ("::/127", "fe80::/10", "ff00::/8")))


def text(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def texts(value: object) -> tuple[str, ...]:
    """A list of texts, perhaps empty."""
    return tuple(text(item) for item in _list(value))


def boolean(value: object) -> bool:
    """A truth, not a number."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def absolute(value: object) -> Path:
    """An absolute path."""
    path = Path(text(value))
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError
    return path


def directories(value: object) -> tuple[Path, ...]:
    """A list of absolute paths, at least one."""
    paths = tuple(absolute(item) for item in texts(value))
    if not paths:
        raise ValueError
    return paths


def seconds(value: object) -> float:
    """A time that is more than nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError
    return float(value)


def listen(value: object) -> tuple[str, int]:
    """A host, with brackets around an IPv6 address, and a port."""
    host, separator, port = text(value).rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError
    return host.removeprefix("[").removesuffix("]"), int(port)


def mode(value: object) -> Literal["manage", "observe"]:
    """What the agent may do."""
    if value == "manage":
        return "manage"
    if value == "observe":
        return "observe"
    raise ValueError


def dns(value: object) -> Literal["host", "off"]:
    """Where the name servers of namespaces are from."""
    if value == "host":
        return "host"
    if value == "off":
        return "off"
    raise ValueError


def subnet(value: object) -> IPv4Network:
    """A unicast IPv4 network that has room for namespaces."""
    network = IPv4Network(text(value))
    if network.prefixlen > _LARGEST_PREFIX or any(network.overlaps(other) for other in _NOT_UNICAST):
        raise ValueError
    return network


def subnet6(value: object) -> IPv6Network | None:
    """A unicast IPv6 network that leads beyond a link, None for an empty text."""
    if value == "":
        return None
    network = IPv6Network(text(value))
    if network.network_address.scope_id or any(network.overlaps(other) for other in _NOT_UNICAST6):
        raise ValueError
    return network


def ipv4(value: object) -> IPv4Address:
    """An IPv4 address."""
    return IPv4Address(text(value))


def device_name(value: object) -> str:
    """A name that the kernel and nftables take for one device."""
    name = text(value)
    if len(name.encode()) > DEVICE_NAME_BYTES or name in _NO_DEVICE_NAMES or not name.isprintable():
        raise ValueError
    # What the kernel refuses, and what nftables takes for a pattern.
    if any(character in '/:%"*\\' or character.isspace() for character in name):
        raise ValueError
    return name


def bridge_name(value: object) -> str:
    """The same, and none that the rules could take for a host end."""
    name = device_name(value)
    if name.startswith(HOST_END_PREFIX):
        raise ValueError
    return name


def mtu(value: object) -> int:
    """An MTU that IPv6 can live with."""
    number = _integer(value)
    if number not in _MTU_RANGE:
        raise ValueError
    return number


def mtu_or_uplinks(value: object) -> int:
    """An MTU, or 0 for that of the uplink."""
    return _integer(value) and mtu(value)


def bridge_ports(value: object) -> int:
    """How many namespaces a bridge may carry."""
    number = _integer(value)
    if number not in _BRIDGE_PORTS:
        raise ValueError
    return number


def host_access(value: object) -> Literal["all", "none"] | tuple[Port, ...]:
    """The services of the host that are open."""
    if value == "all":
        return "all"
    if value == "none":
        return "none"
    return tuple(_port(item) for item in texts(value))


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


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
