"""Kernel settings below /proc/sys/net, which always shows the namespace of the thread that opens it."""

import os
from pathlib import Path

from agent.errors import KernelError

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    """Return a setting such as ``net/ipv4/ip_forward``; None where the kernel has no such setting."""
    try:
        return (_ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    """Change a setting. Raises KernelError; a setting that is not there is no error."""
    try:
        # One of these is written for every namespace: a file object would cost more than the writing.
        descriptor = os.open(f"{_ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return
    except OSError as error:
        raise KernelError(f"write {value} to /proc/sys/{name}", error.errno or 0) from error
