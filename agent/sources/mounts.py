"""Mount events: the kernel says that the mount table changed, not what changed.

``poll`` on /proc/self/mountinfo reports POLLPRI then (proc_pid_mountinfo(5)). It is always
readable too, so it hangs in an epoll of its own that asks for POLLPRI alone.
"""

import asyncio
import os
import select
from collections.abc import Callable


class MountEvents:
    """Calls back whenever a mount was made or removed in this process's mount namespace."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._mountinfo, select.EPOLLPRI)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to call back from ``loop``."""
        loop.add_reader(self._epoll.fileno(), self._changed)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """End it."""
        loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._mountinfo)

    def _changed(self) -> None:
        self._epoll.poll(0)
        self._on_change()
