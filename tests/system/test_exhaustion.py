"""When something runs out: what stands goes on, what cannot be done is told, and done once it can be."""

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from agent.demo.isolation import add_named, delete_named, mount, prepare_netns_dir, unmount
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import crowded, netns, observe
from tests.harness.expect import assert_works, connects, eventually_works, host_end
from tests.harness.remains import remains
from tests.harness.running import Agent
from tests.harness.streams import Stream
from tests.harness.waiting import eventually

STATE = "/run/small"
MS_REMOUNT, MS_RDONLY = 0x20, 0x1
SMALL_KB = 64
CLOCK = """
import time
from pathlib import Path

_offset, _real = Path({path!r}), time.time
time.time = lambda: _real() + (float(_offset.read_text()) if _offset.exists() else 0.0)
"""
HOUR = 3600.0


def problems(agent: Agent) -> list[str]:
    found: list[str] = agent.ask("/v1/status")[1]["problems"]
    return found


def told(agent: Agent, words: str, timeout: float = 5.0) -> str:
    """The problem that holds these words, once it is told; so does the doctor."""
    found = eventually(lambda: [line for line in problems(agent) if words in line], timeout, f"{words!r} is told")[0]
    assert words in agent.cli("doctor").stdout
    return found


def test_a_subnet_is_full(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"subnet": "172.27.0.0/29"}})
    prepare_netns_dir()
    for number in range(5):
        add_named(f"n{number}")
        agent.wait_ready(f"n{number}")
    assert agent.metric("vethd_leases_free", network="default") == 0
    add_named("late")
    assert "enlarge the subnet" in told(agent, "no free address")
    assert agent.metric("vethd_namespaces", state="failed") == 1
    delete_named("n2")
    eventually(lambda: agent.namespaces()["late"]["state"] == "ready", 3, "the address is given to it")
    assert problems(agent) == []
    assert connects("late", "n1")


def test_no_more_files_may_be_opened(private_host: PrivateHost, agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    end = host_end("web")["ifindex"]
    soft, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    with Stream(private_host, "web") as stream:
        stream.await_beats(5)
        # Room for whoever asks, and not for a look at a namespace besides.
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (_lowest_free(agent.pid) + 1, hard))
        netns.add_netns("late")
        observe.run("ip", "link", "set", host_end("web")["ifname"], "group", "0")
        assert "EMFILE" in told(agent, "namespaces failed")
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (soft, hard))
        eventually(lambda: agent.namespaces()["late"]["state"] == "ready", 8, "it is networked after all")
        eventually(lambda: not problems(agent), 8, "all is well again")
        stream.await_beats(5)
        assert stream.lost() == 0
    assert host_end("web")["ifindex"] == end, "it was never taken down"
    assert not [line for line in agent.lines if "Traceback" in line]


def _lowest_free(pid: int) -> int:
    taken = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(1 << 16) if number not in taken)


def test_with_64_files_it_works(start_agent: StartAgent) -> None:
    agent = start_agent(start=False).start(prefix=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh"))
    prepare_netns_dir()
    names = [f"n{number}" for number in range(40)]
    for name in names:
        add_named(name)
    for name in names:
        agent.wait_ready(name, 20)
    agent.metrics()
    for name in names[:30]:
        delete_named(name)
    eventually(lambda: set(agent.namespaces()) == set(names[30:]), 10, "the others are gone")
    assert problems(agent) == []
    assert not agent.events("failed")


def test_as_many_files_may_be_opened_as_the_hard_limit_says(start_agent: StartAgent) -> None:
    agent = start_agent(start=False).start(prefix=("sh", "-c", 'ulimit -Sn 64; ulimit -Hn 512; exec "$@"', "sh"))
    assert resource.prlimit(agent.pid, resource.RLIMIT_NOFILE) == (512, 512)


@pytest.fixture
def small(start_agent: StartAgent) -> Iterator[Agent]:
    """An agent whose state directory is on a small disk of its own."""
    os.makedirs(STATE)
    mount("small", STATE, "tmpfs", data=f"size={SMALL_KB}k")
    agent = start_agent({"agent": {"state_dir": f"{STATE}/state"}})
    yield agent
    agent.stop()
    unmount(STATE)


def test_the_disk_is_full(small: Agent) -> None:
    netns.add_netns("first")
    small.wait_ready("first")
    leases = Path(STATE, "state", "leases.json")
    eventually(lambda: leases.exists() and "first" in leases.read_text(), 5, "the lease is on disk")
    filler = Path(STATE, "filler")
    _fill(filler)
    netns.add_netns("second")
    assert "No space left on device" in told(small, "state is not kept")
    assert small.metric("vethd_trouble", part="state") == 1
    small.wait_ready("second")
    assert_works("second")
    netns.add_netns("third")
    small.wait_ready("third")
    eventually(lambda: not list(Path(STATE, "state").glob("*.new")), 3, "half a file is not left")
    assert "first" in leases.read_text(), "what was kept is kept"
    assert len(small.events("state not kept")) == 1, "it is logged once"
    filler.unlink()
    eventually(lambda: "third" in leases.read_text(), 10, "it is kept without anybody's doing")
    eventually(lambda: not problems(small), 3, "all is well again")
    assert small.metric("vethd_trouble") == 0


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(SMALL_KB):
            file.write(bytes(1024))


def test_the_disk_is_read_only(small: Agent) -> None:
    mount("small", STATE, "tmpfs", flags=MS_REMOUNT | MS_RDONLY, data=f"size={SMALL_KB}k")
    netns.add_netns("web")
    small.wait_ready("web")
    assert "Read-only file system" in told(small, "state is not kept")
    assert_works("web")
    mount("small", STATE, "tmpfs", flags=MS_REMOUNT, data=f"size={SMALL_KB}k")
    eventually(lambda: not problems(small), 10, "it is kept again")


@pytest.mark.timeout(180)
def test_no_more_connections_can_be_tracked(private_host: PrivateHost, start_agent: StartAgent) -> None:
    agent = start_agent({"metrics": {"conntrack_interval": 0.1}})
    for name in ("web", "goes"):
        netns.add_netns(name)
        agent.wait_ready(name)
        assert_works(name)
    with Stream(private_host, "web") as stream, crowded.full() as limit:
        stream.await_beats(5)
        assert not netns.reaches("web", uplink.BEYOND4, internet.ECHO_PORT, timeout=0.3)
        # A look at the host finds it, as the next one by the clock would.
        observe.set_sysctl("net/ipv4/ip_forward", "0")
        assert "nf_conntrack_max" in told(agent, "tracked connections")
        netns.add_netns("late")
        assert agent.wait_ready("late")["state"] == "ready"
        netns.del_netns("goes")
        eventually(lambda: set(agent.namespaces()) == {"web", "late"} and len(observe.host_ends()) == 2, 15, "gone")
        stream.await_beats(5)
    eventually(lambda: crowded.tracked()[0] < limit / 2, 10, "the table has room again")
    # Until the next look at the host, which could not be asked for it by a new connection until now.
    assert agent.metric("vethd_trouble", part="conntrack") == 1
    for name in ("web", "late"):
        eventually_works(name)
    observe.set_sysctl("net/ipv4/ip_forward", "0")
    eventually(lambda: not problems(agent), 5, "all is well again")
    eventually(lambda: not remains(agent), 5, "nothing is left")


@pytest.mark.parametrize("hours", [5, -10])
def test_the_clock_is_set(start_agent: StartAgent, tmp_path: Path, hours: int) -> None:
    """That of the wall, which nobody is to wait by. Only the agent sees it."""
    offset = tmp_path / "offset"
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(path=str(offset)))
    agent = start_agent(start=False).start(env={"PYTHONPATH": f"{tmp_path}:."})
    netns.add_netns("web")
    agent.wait_ready("web")
    draft = tmp_path / "draft"
    draft.write_text(str(hours * HOUR))
    draft.replace(offset)
    assert abs(agent.ask("/v1/traffic")[1]["time"] - time.time()) > HOUR, "the clock is another"
    netns.add_netns("late")
    assert agent.wait_ready("late")["plumb_ms"] < 2000
    observe.run("ip", "route", "del", "default", netns="web")
    eventually_works("web", 3)
    assert agent.cli("wait", "nobody", "--timeout", "0.2").returncode == 1
    netns.del_netns("late")
    eventually(lambda: set(agent.namespaces()) == {"web"}, 3, "it is gone")
    removed = agent.wait_event("removed", name="late")
    assert 0 <= removed["lifetime_seconds"] < 60
    status = agent.ask("/v1/status")[1]
    assert 0 <= status["uptime_seconds"] < 120
    assert (agent.metric("vethd_plumb_duration_seconds_sum") or 0) < 10
    assert status["problems"] == []
    assert agent.stop() < 2
