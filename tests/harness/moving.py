"""A program that gets into a network namespace in the way it is told to, says so, and stays.

``moving.py WAY [PATH]`` prints the number of the process that is inside and the time (of the
monotonic clock) at which it began to be. It ends with its input. The ways:

- ``exec``: unshare, then run another program, as `unshare -n` does
- ``clone``: make a child in a new one, which runs nothing else
- ``fork``: unshare, then make a child, and both stay
- ``name``: unshare, then take another name, as daemons do
- ``nothing``: unshare, and then nothing that anybody could notice
- ``setns``, ``setns-exec``: enter the one at PATH, and then nothing, or run another program
- ``on``: unshare; at the next line of input enter the one at PATH, and run another program
- ``daemon``: unshare; at the next line of input make a child, and end at once
- ``burst``: unshare; at the next line of input make many short-lived children, then one in a
  namespace of its own
"""

import ctypes
import os
import signal
import sys
import time

CLONE_NEWNET = 0x4000_0000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_BURST = 400
_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare() -> None:
    check(_libc.unshare(CLONE_NEWNET))


def setns(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    check(_libc.setns(descriptor, CLONE_NEWNET))
    os.close(descriptor)


def clone(flags: int) -> int:
    """As fork, but for the flags (clone(2))."""
    number = _SYS_CLONE[os.uname().machine]
    return check(_libc.syscall(number, flags | signal.SIGCHLD, 0, 0, 0, 0))


def say(pid: int) -> None:
    sys.stdout.write(f"{pid} {time.monotonic():.6f}\n")
    sys.stdout.flush()


def stay() -> None:
    sys.stdin.read()
    os._exit(0)


def make_burst() -> None:
    """The short-lived ones come so fast that a small buffer overflows, and the last is not heard of."""
    for _ in range(_BURST):
        if os.fork() == 0:
            os._exit(0)
    pid = clone(CLONE_NEWNET)
    if pid == 0:
        stay()
    say(pid)


def main(way: str, path: str = "") -> None:
    match way:
        case "clone":
            pid = clone(CLONE_NEWNET)
            if pid:
                say(pid)
        case "setns" | "setns-exec":
            setns(path)
            say(os.getpid())
        case _:
            unshare()
            say(os.getpid())
    match way:
        case "exec" | "setns-exec":
            os.execvp("cat", ["cat"])
        case "fork":
            os.fork()
        case "name":
            with open("/proc/self/comm", "w") as name:
                name.write("renamed")
        case "on":
            sys.stdin.readline()
            setns(path)
            os.execvp("cat", ["cat"])
        case "daemon":
            sys.stdin.readline()
            if os.fork():
                os._exit(0)
        case "burst":
            sys.stdin.readline()
            make_burst()
    stay()


if __name__ == "__main__":
    main(*sys.argv[1:])
