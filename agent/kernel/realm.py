"""Which namespaces of the machine are the agent's business.

An agent in the initial network namespace answers for the whole machine. One that lives in
a namespace of its own (a host within a host) answers for what was started from there: the
processes around it belong to others, and some of them *are* the machine.
"""

import os
from typing import Final

from agent.kernel import procfs

_LONGEST_LINEAGE: Final = 64


class Realm:
    """What belongs to the host that the calling thread is in."""

    def __init__(self) -> None:
        self._host = os.stat("/proc/thread-self/ns/net").st_ino
        self._mounts = os.stat("/proc/thread-self/ns/mnt").st_ino
        initial = _initial()
        self._is_whole = initial in (None, self._host)
        self.outside = frozenset({self._host, initial or self._host})
        """Inodes of what is no namespace to network: the host itself, and the machine's own."""

    def includes(self, pid: int, inode: int) -> bool:
        """Tell whether a process, found in the namespace ``inode``, was started from the host.

        That is told by its mount namespace, which is the host's, or by the next of its forebears
        that is in another network namespace, which is the host's too.
        """
        if self._is_whole or procfs.mntns_of(pid) == self._mounts:
            return True
        for _ in range(_LONGEST_LINEAGE):
            parent = procfs.parent_of(pid)
            if not parent:
                return False
            found = procfs.netns_of(parent)
            if found != inode:
                return found == self._host
            pid = parent
        return False


def _initial() -> int | None:
    found = procfs.netns_of(1)
    if found is None and procfs.parent_of(2) == 0:
        # A hardened process 1 may not let itself be looked at; the kernel's own threads never leave it.
        found = procfs.netns_of(2)
    return found
