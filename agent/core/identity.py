"""Names, MACs and marks: how ownership and leases are written into the kernel, and read back.

Nothing here needs memory. The host end's name holds the namespace's cookie, its MAC the
leased address, its alias the name, so that one dump of the links tells who owns what.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from agent.model import LINK_GROUP, Cookie, Lease, Link

ALIAS_PREFIX: Final = "vethd:"
ALIAS_BYTES: Final = 255
HOST_END_PREFIX: Final = "vh"

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_WIDTH: Final = 13
_WORD: Final = 1 << 64
# Odd, so multiplying by it permutes the 64-bit numbers: neighbours in time get names that
# differ at a glance, and no two cookies can ever collide.
_SPREAD: Final = 0x9E3779B97F4A7C15
_UNSPREAD: Final = pow(_SPREAD, -1, _WORD)

_HOST_END_MAC: Final = b"\x06\x7e"
_ROUTED_HOST_END_MAC: Final = b"\x0a\x7e"
_NETNS_MAC: Final = b"\x02\x7e"


@lru_cache(maxsize=1 << 14)
def host_end_name(cookie: Cookie) -> str:
    """Return the device name of a namespace's host end: 15 bytes, a permutation of the cookie."""
    value = cookie * _SPREAD % _WORD
    digits = ""
    for _ in range(_WIDTH):
        value, digit = divmod(value, 32)
        digits = _DIGITS[digit] + digits
    return HOST_END_PREFIX + digits


def cookie_of(host_end: str) -> Cookie | None:
    """Return the cookie that a host end's name holds, None for a name that is not ours."""
    digits = host_end.removeprefix(HOST_END_PREFIX)
    if len(digits) != _WIDTH or len(host_end) != _WIDTH + len(HOST_END_PREFIX):
        return None
    value = 0
    for digit in digits:
        if digit not in _VALUES:
            return None
        value = value * 32 + _VALUES[digit]
    return Cookie(value * _UNSPREAD % _WORD) if value < _WORD else None


def is_ours(link: Link) -> bool:
    """Tell whether vethd made this device: a veth of our name that bears a mark of ours."""
    if link.kind != "veth" or cookie_of(link.name) is None:
        return False
    # Of group, alias and MAC others may change any, or two at once.
    return link.group == LINK_GROUP or link.alias.startswith(ALIAS_PREFIX) or leased_address(link.mac) is not None


def printable(name: str) -> str:
    """Return a name in which every character prints: others, and bytes that are no UTF-8, as ``\\xNN``.

    A backslash is doubled, so different names stay different.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_printable(character) for character in name)


def _printable(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    # A user's text, unlike a file's name, may hold half of a surrogate pair.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))


def alias_of(name: str) -> str:
    """Return the alias of a host end: ``vethd:NAME``, escaped and cut to 255 bytes (IFALIASZ)."""
    raw = (ALIAS_PREFIX + printable(name)).encode()
    return raw[:ALIAS_BYTES].decode(errors="ignore")


def named_by(alias: str) -> str:
    """Return the name in a host end's alias, as far as it fits there; empty when others have written the alias."""
    return alias.removeprefix(ALIAS_PREFIX) if alias.startswith(ALIAS_PREFIX) else ""


def bridge_alias(network: str) -> str:
    """Return the alias that marks a bridge as ours."""
    return f"{ALIAS_PREFIX}network {network}"


def netns_mac(address: IPv4Address) -> bytes:
    """Return the MAC of a namespace's device.

    It is a function of the address, so a neighbour's entry for an address stays right when
    the address gets its next holder.
    """
    return _NETNS_MAC + address.packed


def host_end_mac(lease: Lease) -> bytes:
    """Return the MAC of a host end; it carries the lease across restarts of the agent."""
    return (_ROUTED_HOST_END_MAC if lease.routed else _HOST_END_MAC) + lease.address.packed


def leased_address(mac: bytes) -> IPv4Address | None:
    """Return the address that a host end's MAC carries, None when it is no MAC of ours."""
    known = mac[:2] in {_HOST_END_MAC, _ROUTED_HOST_END_MAC} and len(mac) == 6
    return IPv4Address(mac[2:]) if known else None


def is_routed(mac: bytes) -> bool:
    """Tell whether a host end's MAC says that the host routes to it."""
    return mac[:2] == _ROUTED_HOST_END_MAC


def bridge_mac(subnet: IPv4Network) -> bytes:
    """Return the fixed MAC of a network's bridge."""
    return _NETNS_MAC + (subnet.network_address + 1).packed


def address6_of(subnet6: IPv6Network | None, index: int) -> IPv6Address | None:
    """Return the IPv6 address that goes with the ``index``-th IPv4 address."""
    return None if subnet6 is None else subnet6.network_address + index
