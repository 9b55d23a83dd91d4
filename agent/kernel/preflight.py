"""What must be true before anything is touched: privileges, and no second agent on this host."""

import re
import socket
from pathlib import Path
from typing import Final

from agent.errors import HostError

_CAPABILITIES: Final = {"CAP_NET_BROADCAST": 11, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
# Abstract: it belongs to the network namespace, which is the host, and dies with the process.
_LOCK: Final = "\0vethd"


def require_privileges() -> None:
    """Raise HostError when a capability is missing that networking namespaces takes."""
    effective = int(re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1], 16)  # type: ignore[index]
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise HostError(f"vethd lacks {' and '.join(missing)}; run it as root or by its systemd unit")


def claim_host() -> socket.socket:
    """Return the lock that makes this the only vethd of this network namespace; hold it open.

    Raises HostError when another one runs.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(_LOCK)
    except OSError as error:
        lock.close()
        raise HostError("another vethd runs on this host; see: vethd status") from error
    return lock
