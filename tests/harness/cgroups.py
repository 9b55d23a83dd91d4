"""Control groups of a test's own, below those of the machine: programs move in, and the agent names them by it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.demo.isolation import mount, namespace_fd, refuse_initial_namespace, setns
from tests.harness.waiting import eventually

CLONE_NEWCGROUP = 0x0200_0000
ROOT = Path("/sys/fs/cgroup")
_MACHINE = Path("/run/machine-cgroups")
_END_TIMEOUT = 10.0
# Makes a new root of what it is in: unshare(2), cgroup_namespaces(7).
_NEW_ROOT = """
import ctypes, os, sys
own, flags = sys.argv[1], int(sys.argv[2])
with open(own + "/cgroup.procs", "w") as procs:
    procs.write("0")
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(flags) or libc.mount(b"cgroup", b"/sys/fs/cgroup", b"cgroup2", 0, None):
    sys.exit(os.strerror(ctypes.get_errno()))
print("up", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def own_cgroups() -> Iterator[None]:
    """Give the thread, which is in a private host, control groups of its own (version 2) at /sys/fs/cgroup.

    What it starts sees the new root as the root, as on a freshly booted machine. All that is
    in a group of these at the end is killed, and they are removed. Raises OSError where that cannot be had.
    """
    refuse_initial_namespace()
    _MACHINE.mkdir()
    mount("cgroup", str(_MACHINE), "cgroup2")
    own = _MACHINE / f"vethd-test-{os.getpid()}-{os.stat('/proc/thread-self/ns/net').st_ino}"
    own.mkdir()
    home = namespace_fd("cgroup")
    try:
        _enter_new_root(own)
        yield
    finally:
        setns(home, CLONE_NEWCGROUP)
        os.close(home)
        _remove(own)


def command_in(group: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a program in the control group ``group``, which is made if it is not there."""
    directory = ROOT / group.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    return ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(directory), *command]


def _enter_new_root(own: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", _NEW_ROOT, str(own), str(CLONE_NEWCGROUP)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        if maker.stdout.readline() != b"up\n":
            raise OSError("no new root of control groups")
        root = os.open(f"/proc/{maker.pid}/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(root, CLONE_NEWCGROUP)
        finally:
            os.close(root)


def _remove(own: Path) -> None:
    (own / "cgroup.kill").write_text("1")
    eventually(lambda: "populated 0" in (own / "cgroup.events").read_text(), _END_TIMEOUT, "all in it have ended")
    for directory, _, _ in os.walk(own, topdown=False):
        os.rmdir(directory)
