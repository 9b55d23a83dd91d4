"""Which services of the host wait for others: sockets that listen, and the programs that hold them.

Source: proc_pid_net(5), /proc/net/tcp; include/net/tcp_states.h.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from agent.core.identity import printable

_LISTEN: Final = "0A"
# What UDP calls closed: a socket that takes from everybody.
_UNCONNECTED: Final = "07"
_TABLES: Final[tuple[tuple[str, Literal["tcp", "udp"], str], ...]] = (
    ("tcp", "tcp", _LISTEN), ("tcp6", "tcp", _LISTEN), ("udp", "udp", _UNCONNECTED), ("udp6", "udp", _UNCONNECTED),
)  # fmt: skip
_SOCKET: Final = "socket:["


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """One port that somebody waits on; ``program`` is its name as the kernel cuts it, ``?`` where we may not know."""

    protocol: Literal["tcp", "udp"]
    port: int
    address: str
    program: str

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The address that it is bound to; unspecified for all addresses."""
        return IPv6Address(self.address) if ":" in self.address else IPv4Address(self.address)


def listeners() -> tuple[Listener, ...]:
    """Return everything that listens in the network namespace of the calling thread."""
    found = [(protocol, *each) for name, protocol, state in _TABLES for each in _waiting(name, state)]
    programs = _programs({inode for *_, inode in found})
    return tuple(
        sorted(
            Listener(protocol, port, address, programs.get(inode, "?")) for protocol, address, port, inode in set(found)
        )
    )


def _waiting(table: str, wanted: str) -> Iterator[tuple[str, int, int]]:
    """Yield address, port and inode."""
    try:
        with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
        address, _, port = local.partition(":")
        if state == wanted and int(port, 16):
            yield _address(bytes.fromhex(address)), int(port, 16), int(inode)


def _address(raw: bytes) -> str:
    """Read an address as the kernel prints it: words of 32 bits, each in the host's order."""
    words = (int.from_bytes(raw[place : place + 4], "big") for place in range(0, len(raw), 4))
    packed = b"".join(socket.htonl(word).to_bytes(4, "big") for word in words)
    if len(packed) == 4:
        return str(IPv4Address(packed))
    mapped = IPv6Address(packed).ipv4_mapped
    return str(mapped or IPv6Address(packed))


def _programs(inodes: set[int]) -> dict[int, str]:
    """Return who holds which socket; of several programs, the one that was started first."""
    found: dict[int, str] = {}
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if len(found) == len(inodes):
            break
        for inode in _sockets(pid) & inodes:
            found.setdefault(inode, _name(pid))
    return found


def _sockets(pid: int) -> set[int]:
    found = set()
    folder = f"/proc/{pid}/fd"
    # Gone meanwhile, or not ours to look at.
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            target = os.readlink(f"{folder}/{entry}")
            if target.startswith(_SOCKET):
                found.add(int(target[len(_SOCKET) : -1]))
    return found


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as file:
            return printable(file.read().removesuffix("\n"))
    except OSError:
        return "?"
