"""Becoming a program inside a namespace, as `ip netns exec` does.

Texts of errors hold names as they are: whoever shows them escapes them.
Source: netns_switch and bind_etc in iproute2's lib/namespace.c; ip-netns(8).
"""

import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

from agent.errors import VethdError
from agent.kernel import libc

_SO_NETNS_COOKIE: Final = 71
_ETC: Final = b"/etc"
_ETC_NETNS: Final = b"/etc/netns"
_SYS: Final = b"/sys"
_KINDS: Final = {b"/proc/thread-self/ns/net": libc.CLONE_NEWNET, b"/proc/thread-self/ns/mnt": libc.CLONE_NEWNS}


class CannotEnter(VethdError):
    """The namespace cannot be entered; the process is where it was."""


class CannotRun(VethdError):
    """The program cannot be run; the process is where it was. ``found`` tells whether it is there at all."""

    def __init__(self, message: str, found: bool) -> None:
        self.found = found
        super().__init__(message)


class Place(NamedTuple):
    """A namespace to enter: the file that leads to it, its cookie, and its name if it has files in /etc/netns."""

    path: bytes
    cookie: int
    name: bytes | None


def become(program: Sequence[bytes], place: Place, warn: Callable[[str], None]) -> NoReturn:
    """Replace this process, which must have one thread, by a program inside; its signals and exit code are its own.

    It has a mount namespace of its own, in which /sys shows the namespace's devices and the files
    of /etc/netns/NAME lie over those in /etc; ``warn`` is told of one that does not.
    Raises CannotEnter and CannotRun.
    """
    home = {kind: _open(kind) for kind in _KINDS}
    try:
        _enter(place)
        _take_own_mounts(place.name, warn)
        _forget_python()
        libc.execvp(program)
    except OSError as error:
        found = not isinstance(error, FileNotFoundError)
        raise CannotRun(f"{os.fsdecode(program[0])}: {error.strerror}", found) from error
    finally:
        for kind, descriptor in home.items():
            if not os.path.samestat(os.stat(kind), os.fstat(descriptor)):
                libc.setns(descriptor, _KINDS[kind])
            os.close(descriptor)


def _open(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _enter(place: Place) -> None:
    try:
        descriptor = _open(place.path)
        try:
            libc.setns(descriptor, libc.CLONE_NEWNET)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _cannot_enter(place, error) from error
    # A name may be given to another namespace between the agent's answer and now, a pid to another process.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inside:
        if inside.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) != struct.pack("=Q", place.cookie):
            raise CannotEnter(f"{os.fsdecode(place.path)}: leads to another namespace by now")


def _take_own_mounts(name: bytes | None, warn: Callable[[str], None]) -> None:
    try:
        libc.unshare(libc.CLONE_NEWNS)
        # What is mounted from here on stays here.
        libc.mount(b"none", b"/", flags=libc.MS_SLAVE | libc.MS_REC)
        flags = 0
        try:
            libc.unmount(_SYS)
        except OSError:
            # It is covered then; one that is read-only cannot be covered by one that is not.
            flags = libc.MS_RDONLY if os.statvfs(_SYS).f_flag & os.ST_RDONLY else 0
        libc.mount(b"sysfs", _SYS, b"sysfs", flags)
    except OSError as error:
        raise CannotEnter(f"cannot mount /sys for the namespace: {error.strerror}") from error
    if name is not None:
        _lay_over_etc(os.path.join(_ETC_NETNS, name), warn)


def _lay_over_etc(directory: bytes, warn: Callable[[str], None]) -> None:
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        source, target = os.path.join(directory, name), os.path.join(_ETC, name)
        try:
            libc.mount(source, target, flags=libc.MS_BIND)
        except OSError as error:
            warn(f"{os.fsdecode(source)} is not put over {os.fsdecode(target)}: {error.strerror}")


def _forget_python() -> None:
    """Undo what the interpreter changed of what a program inherits."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    with open("/proc/self/environ", "rb") as given:
        # Set where there was no locale (PEP 538).
        if not any(variable.startswith(b"LC_CTYPE=") for variable in given.read().split(b"\0")):
            os.environ.pop("LC_CTYPE", None)


def _cannot_enter(place: Place, error: OSError) -> CannotEnter:
    hint = ": become root" if isinstance(error, PermissionError) else ""
    return CannotEnter(f"{os.fsdecode(place.path)}: cannot be entered: {error.strerror}{hint}")
