"""Making named namespaces, as `ip netns add` does, in any directory and with any name.

pyroute2's own forks for it, takes ASCII names alone, and leaves the file behind when a mount fails.
Source: netns_add and on_netns_del in iproute2's ip/ipnetns.c.
"""

import contextlib
import errno
import fcntl
import os
from typing import Final

from agent.kernel import libc

_MODE: Final = 0o755


class Named:
    """A name that this process made, and the namespace that it leads to once `make` was called."""

    def __init__(self, directory: bytes, name: bytes) -> None:
        """Claim the name by an empty file, which is no namespace yet.

        Raises FileExistsError when somebody has it, OSError.
        """
        self.path = os.path.join(directory, name)
        os.makedirs(directory, _MODE, exist_ok=True)
        _share(directory)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0)
        self._file = os.fstat(descriptor)
        os.close(descriptor)
        # Kept open: the number of a namespace that is gone is given to the next one.
        self._namespace: int | None = None

    def make(self) -> None:
        """Make the namespace, and mount it on the file. The process, which must have one thread, stays where it is."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.unshare(libc.CLONE_NEWNET)
            try:
                libc.mount(b"/proc/thread-self/ns/net", self.path, flags=libc.MS_BIND)
                self._namespace = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                libc.setns(home, libc.CLONE_NEWNET)
        finally:
            os.close(home)

    def remove(self) -> None:
        """Remove the name, unless somebody has done so or has given it to another namespace. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if self._namespace is not None and os.path.samestat(os.lstat(self.path), os.fstat(self._namespace)):
                libc.unmount(self.path)
            if os.path.samestat(os.lstat(self.path), self._file):
                os.unlink(self.path)
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None


def _share(directory: bytes) -> None:
    """Have mounts in the directory reach other mount namespaces, so that a name that is removed is gone in all.

    Several at once would mount the directory on itself over and over, hence the lock (Debian bug 949235).
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            libc.mount(b"none", directory, flags=libc.MS_SHARED | libc.MS_REC)
        except OSError as error:
            # EINVAL: it is no mount of its own yet.
            if error.errno != errno.EINVAL:
                raise
            libc.mount(directory, directory, flags=libc.MS_BIND | libc.MS_REC)
            libc.mount(b"none", directory, flags=libc.MS_SHARED | libc.MS_REC)
    finally:
        os.close(descriptor)
