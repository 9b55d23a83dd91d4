"""Ending what was started in a private host and is still there when the host goes."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_END_TIMEOUT = 3.0


def end_stragglers(own: Iterable[int], named: Iterable[int]) -> None:
    """End all processes of a private host but this one, and wait until they have ended.

    `own`: inodes of the mount and network namespaces that the host itself made: whoever is in
    one of those was started from there. `named`: inodes found in its /run/netns; a name may
    stand for any namespace, the machine's own included, so only descendants of this process
    are ended there.
    """
    own_inodes, named_inodes = set(own), set(named)
    deadline = time.monotonic() + _END_TIMEOUT
    # Over and over: a process may have forked between our look and its end.
    while found := list(_stragglers(own_inodes, named_inodes)):
        for pid, inodes in found:
            _end(pid, inodes, deadline)
        if time.monotonic() > deadline:
            return


def _stragglers(own: set[int], named: set[int]) -> Iterator[tuple[int, set[int]]]:
    parents = dict(_parents())
    for pid in parents:
        inodes = _namespaces(pid)
        if inodes & own or (inodes & named and _descends(pid, parents)):
            yield pid, inodes


def _end(pid: int, inodes: set[int], deadline: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            # The number may have been given to another process since we looked.
            if _namespaces(pid) != inodes:
                return
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            ended = select.poll()
            ended.register(fd, select.POLLIN)
            ended.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(fd)


def _parents() -> Iterator[tuple[int, int]]:
    me = os.getpid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != me:
            with contextlib.suppress(OSError):
                # The name in brackets may hold anything: read from behind it. proc_pid_stat(5)
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(entry.name), int(fields[1])


def _namespaces(pid: int) -> set[int]:
    found = set()
    for kind in ("mnt", "net"):
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}/ns/{kind}").st_ino)
    return found


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
    return pid == os.getpid()
