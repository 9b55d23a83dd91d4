"""Kernel settings below /proc/sys/net, which always shows the namespace of the thread that opens it."""

import contextlib
import os
from pathlib import Path
from typing import Final

from agent.errors import KernelError

_ROOT: Final = Path("/proc/sys")
_IPV6_DEVICES: Final = "net/ipv6/conf"


def read(name: str) -> str | None:
    """Return a setting such as ``net/ipv4/ip_forward``; None where the kernel has no such setting."""
    try:
        return (_ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    """Change a setting. Raises KernelError; a setting that is not there is no error."""
    _write(name, value, f"{_ROOT}/{name}", None)


class Ipv6Devices:
    """IPv6's settings of the devices of the namespace in which this is made.

    Written at the same price whatever stands beside: the kernel hashes an entry of /proc/sys/net alike for all
    namespaces in which somebody has looked for it, and goes through all of them at every look by the path
    (proc_sys_compare, fs/proc/proc_sysctl.c): a millisecond with 900.
    """

    def __init__(self) -> None:
        self._folder: int | None = None
        # A kernel without IPv6 has no such folder, and nothing to be written.
        with contextlib.suppress(FileNotFoundError):
            self._folder = os.open(_ROOT / _IPV6_DEVICES, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def write(self, device: str, name: str, value: str) -> None:
        """Change a device's setting; see write."""
        if self._folder is not None:
            _write(f"{_IPV6_DEVICES}/{device}/{name}", value, f"{device}/{name}", self._folder)


def _write(name: str, value: str, path: str, folder: int | None) -> None:
    try:
        # One of these is written for every namespace: a file object would cost more than the writing.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return
    except OSError as error:
        raise KernelError(f"write {value} to /proc/sys/{name}", error.errno or 0) from error
