"""What /proc tells of processes. They come and go meanwhile: what is not there, or not ours to see, is None.

Source: proc(5), proc_pid_ns(5), proc_pid_stat(5), namespaces(7).
"""

import contextlib
import os
import pwd
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from agent.core.origin import Process, cgroup_of

_MOST_BYTES: Final = 1 << 12


def netns_path(pid: int) -> str:
    """Return the file that leads to a process's network namespace."""
    return f"/proc/{pid}/ns/net"


def netns_of(pid: int) -> int | None:
    """Return the inode of a process's network namespace, which is that of its main thread.

    Reading the link costs half of what following it does: 1.5 to 7 microseconds, the most when
    nobody has looked at the process yet.
    """
    return _namespace(pid, "net")


def mntns_of(pid: int) -> int | None:
    """Return the inode of a process's mount namespace."""
    return _namespace(pid, "mnt")


def parent_of(pid: int) -> int | None:
    """Return the parent of a process, 0 where there is none that can be seen."""
    stat = _read(f"/proc/{pid}/stat")
    # The name in brackets may hold anything: read from behind it.
    fields = stat.rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def describe(pid: int) -> Process | None:
    """Return what is known of a process; who asks makes sure that it is still the same afterwards."""
    try:
        # The folder belongs to the effective user, even where the files in it do not.
        user = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return Process(
        pid=pid,
        name=os.fsdecode(_read(f"/proc/{pid}/comm").removesuffix(b"\n")),
        arguments=os.fsdecode(_read(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ")),
        cgroup=cgroup_of(os.fsdecode(_read(f"/proc/{pid}/cgroup"))),
        user=_user_name(user),
    )


def processes_by_netns() -> dict[int, list[int]]:
    """Look at all processes; return those in each network namespace by its inode."""
    found: dict[int, list[int]] = {}
    for pid in _pids():
        inode = netns_of(pid)
        if inode is not None:
            found.setdefault(inode, []).append(pid)
    return found


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _namespace(pid: int, kind: str) -> int | None:
    try:
        # "net:[4026531833]"
        return int(os.readlink(f"/proc/{pid}/ns/{kind}")[5:-1])
    except OSError:
        return None


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _MOST_BYTES)
        finally:
            os.close(descriptor)
    return b""


@lru_cache(maxsize=1 << 10)
def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
