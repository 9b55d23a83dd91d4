"""Which netlink ports are this process's own.

A process id would not do: the kernel tells that of the initial pid namespace. libnftables
keeps its socket to itself, so its port is found by its inode in /proc/net/netlink.
"""

import os
from functools import lru_cache
from pathlib import Path


def is_own_port(protocol: int, port: int) -> bool:
    """Tell whether a netlink socket of this process has this port id."""
    # Cached only when true: a stranger's port may become ours, ours never a stranger's.
    try:
        return _own_port(protocol, port)
    except LookupError:
        return False


@lru_cache(maxsize=64)
def _own_port(protocol: int, port: int) -> bool:
    for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1]) == protocol and int(fields[2]) == port and int(fields[9]) in _own_inodes():
            return True
    raise LookupError(port)


def _own_inodes() -> set[int]:
    inodes = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found = os.stat(f"/proc/self/fd/{descriptor}")
        except OSError:
            # Closed since it was listed.
            continue
        inodes.add(found.st_ino)
    return inodes
