"""When the kernel is done with namespaces that are gone."""

import os
import time
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PAUSE: Final = 0.001
ALL_GONE_SECONDS: Final = 60.0
"""How patient to be after many were deleted."""
_ON_END: Final = 10
# A worker of the kernel's is called by what it is at: kworker/u8:2+netns (wq_worker_comm in kernel/workqueue.c).
_WORKER: Final = "kworker/"
_AT_WORK: Final = "+netns"


def await_quiet(patience: float = 1.0) -> None:
    """Until no namespace is being taken apart: that goes on for some 45 ms, under the lock that every trial needs.

    Or for ``patience`` seconds: others may be at work on this machine.
    """
    deadline = time.monotonic() + patience
    quiet = 0
    # It may begin some milliseconds after the last file was closed.
    while quiet < _ON_END and time.monotonic() < deadline:
        quiet = 0 if any(map(_takes_apart, _workers())) else quiet + 1
        time.sleep(_PAUSE)


def _workers() -> list[str]:
    return [pid for pid in os.listdir(_PROC) if pid.isdigit()]


def _takes_apart(pid: str) -> bool:
    try:
        name = (_PROC / pid / "comm").read_text(errors="replace").rstrip()
    except OSError:
        return False
    return name.startswith(_WORKER) and name.endswith(_AT_WORK)
