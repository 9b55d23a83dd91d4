"""What is read of processes: real ones, oddly named ones, and ones that are not there."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.kernel import procfs
from tests.harness.netns import Lines

_ODD = b") R 1 (\n\xff"
_NOBODY_S = 54321
_NOBODY = 1 << 30

_PROGRAM = """
import os, sys
open("/proc/self/comm", "wb", buffering=0).write(os.fsencode(sys.argv[2]))
os.setuid(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def odd() -> Iterator[int]:
    """A process of a user without a name, called by what others would stumble over."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_NOBODY_S), os.fsdecode(_ODD)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert Lines(process.stdout).readline() == "ready\n"
        yield process.pid
        process.kill()


def test_a_process_is_described(odd: int) -> None:
    process = procfs.describe(odd)
    assert process is not None
    assert os.fsencode(process.name) == _ODD
    assert process.arguments.startswith(f"{sys.executable} -I -S -c")
    assert process.arguments.endswith(os.fsdecode(_ODD))
    assert process.cgroup.startswith("/")
    assert process.user == str(_NOBODY_S)


def test_a_known_user_has_a_name() -> None:
    process = procfs.describe(os.getpid())
    assert process is not None
    assert process.user == "root"


def test_a_process_s_parent_is_found_whatever_it_is_called(odd: int) -> None:
    assert procfs.parent_of(odd) == os.getpid()


def test_namespaces_are_those_that_the_files_lead_to(odd: int) -> None:
    assert procfs.netns_of(odd) == os.stat(procfs.netns_path(odd)).st_ino
    assert procfs.mntns_of(odd) == os.stat(f"/proc/{odd}/ns/mnt").st_ino


def test_all_processes_are_found_where_they_are(odd: int) -> None:
    inode = procfs.netns_of(odd)
    assert inode is not None
    assert {odd, os.getpid()} <= set(procfs.processes_by_netns()[inode])


def test_who_is_not_there_is_nowhere() -> None:
    assert procfs.netns_of(_NOBODY) is None
    assert procfs.mntns_of(_NOBODY) is None
    assert procfs.parent_of(_NOBODY) is None
    assert procfs.describe(_NOBODY) is None


def test_who_has_ended_is_nowhere() -> None:
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # The end of its output: it has ended, and nobody has waited for it yet.
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert procfs.netns_of(process.pid) is None
        described = procfs.describe(process.pid)
        assert described is not None
        assert described.arguments == ""
