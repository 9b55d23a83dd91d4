"""Giving up what the agent does not need, for good: capabilities(7), prctl(2), capset(2).

Both calls act on the calling thread alone, and threads inherit what their maker had: so this is
done while there is but one. What is given up cannot be had back, by running another program neither.
"""

import ctypes
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from agent.errors import HostError

NAMES: Final = {
    0: "CAP_CHOWN",
    2: "CAP_DAC_READ_SEARCH",
    10: "CAP_NET_BIND_SERVICE",
    11: "CAP_NET_BROADCAST",
    12: "CAP_NET_ADMIN",
    19: "CAP_SYS_PTRACE",
    21: "CAP_SYS_ADMIN",
}
"""What the agent may keep: these and no others."""

# Hearing all namespaces; netlink, nftables and conntrack; entering namespaces; seeing which of them a process is in.
_ALWAYS: Final = ("CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
_LAST: Final = Path("/proc/sys/kernel/cap_last_cap")
_UNPRIVILEGED_PORTS: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_VERSION_3: Final = 0x20080522
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_HEADER: Final = struct.Struct("=Ii")
_DATA: Final = struct.Struct("=6I")
_WORD: Final = (1 << 32) - 1

_libc = ctypes.CDLL(None, use_errno=True)


class Privileges(NamedTuple):
    """What a process may: bit masks of its capabilities, and whether programs that it runs may have more."""

    effective: int
    bounding: int
    no_new: bool


def needed(group: bool, port: int, code: str = __file__) -> frozenset[str]:
    """Return the names of the capabilities that the agent needs.

    ``group`` says that the control socket is given to a group, ``port`` is what metrics are served
    on, ``code`` a file of the program.
    """
    kept = set(_ALWAYS)
    if group:
        kept.add("CAP_CHOWN")
    if port < _first_free_port():
        kept.add("CAP_NET_BIND_SERVICE")
    # Run from a checkout in somebody's home, which may be closed to all others.
    if os.stat(code).st_uid != os.geteuid():
        kept.add("CAP_DAC_READ_SEARCH")
    return frozenset(kept)


def give_up_all_but(kept: Iterable[str]) -> None:
    """Drop all other capabilities, and gain none any more by running a program. Raises HostError.

    What is not there to be kept is no error: see require_privileges.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise HostError("privileges are given up too late: there are several threads")
    numbers = {name: number for number, name in NAMES.items()}
    wanted = sum(1 << numbers[name] for name in kept)
    for number in range(int(_LAST.read_text()) + 1):
        if not wanted >> number & 1:
            # EPERM: without CAP_SETPCAP the set stays as whoever started this has made it.
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _set(read().effective & wanted)


def read(pid: int | str = "self") -> Privileges:
    """Return what a process may. Raises OSError when it is gone."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    found = dict(re.findall(r"^(CapEff|CapBnd|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    return Privileges(int(found["CapEff"], 16), int(found["CapBnd"], 16), found["NoNewPrivs"] == "1")


def names_of(mask: int) -> list[str]:
    """Return the names of a bit mask's capabilities; those that the agent never keeps by their numbers."""
    return [NAMES.get(number, f"capability {number}") for number in range(mask.bit_length()) if mask >> number & 1]


def _set(mask: int) -> None:
    low, high = mask & _WORD, mask >> 32
    header = _HEADER.pack(_VERSION_3, 0)
    data = _DATA.pack(low, low, 0, high, high, 0)
    _check(_libc.capset(header, data))


def _first_free_port() -> int:
    try:
        return int(_UNPRIVILEGED_PORTS.read_text())
    except FileNotFoundError:
        return 1024


def _check(result: int) -> None:
    if result:
        raise HostError(f"privileges cannot be given up: {os.strerror(ctypes.get_errno())}")
