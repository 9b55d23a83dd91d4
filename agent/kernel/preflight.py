"""What must be true before anything is touched: privileges, and no second agent on this host."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.errors import HostError
from agent.kernel.namespaces import cookie_of
from agent.kernel.netlink import Netlink

_CAPABILITIES: Final = {"CAP_NET_BROADCAST": 11, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
LOCK_DIRECTORY: Final = Path("/run/vethd")


def require_privileges() -> None:
    """Raise HostError when a capability is missing that networking namespaces takes."""
    effective = int(re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1], 16)  # type: ignore[index]
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise HostError(f"vethd lacks {' and '.join(missing)}; run it as root or by its systemd unit")


@contextmanager
def claim_host() -> Iterator[Path]:
    """Be the only vethd of this network namespace while the block lasts; yields the lock file.

    The lock goes with the process; only root can take it. Raises HostError when another vethd
    runs, or the file cannot be made.
    """
    with Netlink() as netlink:
        path = LOCK_DIRECTORY / f"{cookie_of(netlink)}.lock"
    try:
        LOCK_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"{path}: cannot be made: {error.strerror}; vethd needs it to be the only one") from error
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError("another vethd runs on this host; see: vethd status") from error
        yield path
