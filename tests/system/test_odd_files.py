"""Files of every kind where namespaces are expected, many at once: no harm, no line in the log, no work for ever."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo.isolation import MS_BIND, MS_PRIVATE, mount
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import assert_works
from tests.harness.waiting import eventually

# Of its own, and private: a mount namespace cannot be mounted where it would propagate to others (namespaces(7)).
PLACE = Path("/run/odd")
OTHER_KINDS = ["mnt", "uts", "ipc", "cgroup", "pid", "pid_for_children", "user", "time"]
MANY = 20
REST_SECONDS = 2.0


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process in namespaces of its own, but for that of the network."""
    command = ["unshare", "--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "sleep", "60"]
    with subprocess.Popen(command) as process:
        try:
            ours = namespace_of_children("self")
            eventually(lambda: namespace_of_children(process.pid) not in (None, ours), 5, "it has left ours")
            yield process.pid
        finally:
            process.kill()


def namespace_of_children(pid: int | str) -> str | None:
    """None from the moment a process has unshared until its first child is there (kernel/pid_namespace.c)."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid_for_children")
    except FileNotFoundError:
        return None


def strew(stranger: int) -> set[str]:
    """Files that are no network namespace; their names."""
    for number in range(MANY):
        (PLACE / f"file-{number}").write_text("x")
        (PLACE / f"directory-{number}").mkdir()
        os.mkfifo(PLACE / f"fifo-{number}")
        (PLACE / f"host-{number}").symlink_to("/proc/thread-self/ns/net")
        (PLACE / f"dangling-{number}").symlink_to("nowhere")
        (PLACE / f"loop-{number}").symlink_to(f"loop-{number}")
        os.mknod(PLACE / f"device-{number}", 0o600 | 0o020000, os.makedev(1, 5))
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(PLACE / f"socket-{number}"))
    for kind in OTHER_KINDS:
        path = PLACE / f"ns-{kind}"
        path.touch()
        # One of mounts that the kernel takes for older than ours cannot be bound (fs/namespace.c, mnt_ns_loop).
        with contextlib.suppress(OSError) if kind == "mnt" else contextlib.nullcontext():
            mount(f"/proc/{stranger}/ns/{kind}", str(path), flags=MS_BIND)
    return set(os.listdir(PLACE))


def cpu_seconds(pid: int) -> float:
    """By the scheduler, to the nanosecond, of all its threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resting(pid: int) -> float:
    """CPU seconds that it takes while nothing happens."""
    begin = cpu_seconds(pid)
    time.sleep(REST_SECONDS)
    return cpu_seconds(pid) - begin


def test_what_is_no_network_namespace_costs_nothing(start_agent: StartAgent, stranger: int) -> None:
    PLACE.mkdir()
    mount("vethd-test", str(PLACE), "tmpfs")
    mount("", str(PLACE), flags=MS_PRIVATE)
    agent = start_agent({"discovery": {"directories": ["/run/netns", str(PLACE)]}})
    netns.add_netns("first")
    agent.wait_ready("first")
    alone = resting(agent.pid)
    links, files = set(observe.links()), len(os.listdir(f"/proc/{agent.pid}/fd"))
    strewn = strew(stranger)
    netns.add_netns("later")
    agent.wait_ready("later")
    assert_works("later")
    known = {name: found for name, found in agent.namespaces().items() if name in strewn}
    assert {found["state"] for found in known.values()} <= {"pending", "left"}
    assert not any(found["device"] for found in known.values())
    assert len(set(observe.links()) - links) == 1, "that of the one that is a namespace"
    # It looks a last time once things are quiet.
    eventually(lambda: resting(agent.pid) < alone + 0.05, 10, "it rests as before")
    assert len(os.listdir(f"/proc/{agent.pid}/fd")) <= files + 1
    assert agent.cli("list").returncode == 0
    agent.stop()
    agent.start()
    agent.wait_ready("later")
    assert {record["level"] for record in agent.records} == {"info"}
    netns.del_netns("later")
    eventually(lambda: "later" not in agent.namespaces(), 5, "it is gone")
