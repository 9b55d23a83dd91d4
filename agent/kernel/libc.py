"""System calls that this version of Python lacks; they act on the calling thread.

Each raises OSError. Source: unshare(2), setns(2), mount(2), umount2(2), execvp(3).
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Final, NoReturn

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWNET: Final = 0x4000_0000
MS_RDONLY: Final = 1
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
_MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Enter new namespaces."""
    _check(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    """Enter a namespace."""
    _check(_libc.setns(descriptor, kind))


def mount(source: bytes, target: bytes, filesystem: bytes = b"none", flags: int = 0) -> None:
    """Mount, bind, or change how mounts propagate."""
    _check(_libc.mount(source, target, filesystem, ctypes.c_ulong(flags), None))


def unmount(target: bytes) -> None:
    """Take a mount away at once, whoever still uses it."""
    _check(_libc.umount2(target, _MNT_DETACH))


def execvp(program: Sequence[bytes]) -> NoReturn:
    """Become a program; unlike Python's own, this runs a script without a first line ``#!`` by the shell."""
    arguments = (ctypes.c_char_p * (len(program) + 1))(*program, None)
    _libc.execvp(program[0], arguments)
    raise _error()


def _check(result: int) -> None:
    if result:
        raise _error()


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
