"""Point 5: the network outlives the agent, and the agent takes up what it finds."""

import contextlib
import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.demo import internet, uplink
from agent.demo.isolation import NETNS_DIR, add_named, delete_named
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, assert_works, connects, eventually_works, host_end, shape
from tests.harness.remains import remains
from tests.harness.running import Agent
from tests.harness.waiting import eventually

NAMES = [f"n{number}" for number in range(10)]
ENDS: dict[str, Callable[[Agent], object]] = {"SIGTERM": Agent.stop, "SIGKILL": Agent.kill}


def _devices() -> dict[str, tuple[int, int]]:
    """Number of each host end and of the device inside: one made anew gets another."""
    return {name: (host_end(name)["ifindex"], observe.links(name)["eth0"]["ifindex"]) for name in NAMES}


def _addresses(agent: Agent) -> dict[str, tuple[str, str]]:
    return {name: (found["address"], found["address6"]) for name, found in agent.namespaces().items()}


def _all_saved(directory: Path) -> bool:
    # A draft that is not in its place yet may be lost by a kill.
    kept = "".join(path.read_text() for path in directory.glob("*.json"))
    return all(f'"{name}"' in kept for name in NAMES)


def _populate(agent: Agent) -> None:
    netns.add_many(NAMES)
    for name in NAMES:
        agent.wait_ready(name)


@pytest.mark.parametrize("end", ENDS)
def test_a_restart_is_not_felt(private_host: PrivateHost, agent: Agent, end: str) -> None:
    _populate(agent)
    talking = ("n0", "n1", private_host.internet)
    addresses, devices, shapes = _addresses(agent), _devices(), [shape(name) for name in NAMES]
    bridge = observe.links()[BRIDGE]["ifindex"]
    with (
        netns.Heartbeat("n0", uplink.BEYOND4, internet.ECHO_PORT) as out4,
        netns.Heartbeat("n1", uplink.BEYOND6, internet.ECHO_PORT) as out6,
    ):
        before = observe.tcp_retransmits(*talking)
        for _ in range(2):
            out4.await_beats(10)
            ENDS[end](agent)
            out4.await_beats(10)
            assert connects("n2", "n3")
            agent.start()
            out4.await_beats(10)
        out6.await_beats(10)
        assert observe.tcp_retransmits(*talking) == before, "not one packet was lost"
    assert _addresses(agent) == addresses
    assert _devices() == devices
    assert [shape(name) for name in NAMES] == shapes
    assert observe.links()[BRIDGE]["ifindex"] == bridge
    assert {found["state"] for found in agent.namespaces().values()} == {"ready"}


def test_sigterm_is_obeyed_in_time_also_with_many_namespaces_and_watchers(agent: Agent) -> None:
    netns.add_many([f"m{number}" for number in range(200)])
    agent.wait_ready("m100")
    watcher = netns.spawn(agent.command("watch"))
    try:
        assert agent.stop() < 2.0
        assert watcher.wait(5) == 4
    finally:
        watcher.kill()
        watcher.wait()


def test_sigint_is_like_sigterm(agent: Agent) -> None:
    os.kill(agent.pid, signal.SIGINT)
    assert agent.wait_end(2.5) == 0


def test_what_is_as_it_should_be_is_adopted_without_a_change(start_agent: StartAgent) -> None:
    """Whether a port of the bridge or routed: there are thousands, and each is looked at."""
    agent = start_agent({"network.default": {"bridge_ports": 5}})
    _populate(agent)
    for end in ENDS.values():
        end(agent)
        agent.start()
        looks = agent.metrics()["vethd_reconcile_total"]
        assert {dict(labels)["result"] for labels, count in looks.items() if count} == {"unchanged"}


def test_what_happened_in_between_is_made_up_for(agent: Agent) -> None:
    _populate(agent)
    before = _addresses(agent)
    eventually(lambda: _all_saved(Path(agent.tables["agent"]["state_dir"])), 5, "the leases are on disk")
    agent.kill()
    netns.delete_many(["n0", "n1"])
    add_named("n1")
    add_named("new")
    observe.run("ip", "link", "del", host_end("n2")["ifname"])
    observe.run("ip", "link", "set", host_end("n3")["ifname"], "nomaster")
    observe.run("ip", "route", "flush", "table", "main", netns="n4")
    observe.run("nft", "flush", "ruleset")
    observe.set_sysctl("net/ipv4/ip_forward", "0")
    agent.start()
    after = _addresses(agent)
    assert set(after) == {*NAMES[1:], "new"}
    # The address of the old n1 may still be held when the new one asks.
    assert {name: after[name] for name in NAMES[2:]} == {name: before[name] for name in NAMES[2:]}
    for name in after:
        assert_works(name)
    eventually(lambda: len(observe.host_ends()) == len(after), 2, "no host end is left over")


def test_new_ones_come_before_those_that_work_already(agent: Agent) -> None:
    standing = [f"n{number}" for number in range(200)]
    netns.add_many(standing)
    for name in standing:
        agent.wait_ready(name)
    agent.stop()
    new = {"new0", "new1", "new2"}
    for name in new:
        add_named(name)
    mark = agent.mark()
    agent.start()
    ready = agent.wait_event("ready", since=mark)
    networked = agent.events("networked", since=mark)
    assert {found["name"] for found in networked} == new
    took = [found["ms"] / 1000 for found in networked]
    all_took = max(_seconds(ready) - _seconds(found) + seconds for found, seconds in zip(networked, took, strict=True))
    assert max(took) < all_took / 2


def _seconds(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(record["timestamp"]).timestamp()


def test_the_bridge_deleted_in_between(agent: Agent) -> None:
    _populate(agent)
    agent.stop()
    observe.run("ip", "link", "del", BRIDGE)
    agent.start()
    for name in NAMES:
        assert_works(name)


def _leases(agent: Agent) -> int:
    return int(agent.ask("/v1/status")[1]["networks"][0]["leases"])


def test_a_name_gets_its_address_again(agent: Agent) -> None:
    _populate(agent)
    before = _addresses(agent)
    netns.delete_many(["n3"])
    eventually(lambda: _leases(agent) == len(before) - 1, 2, "the lease of n3 is free")
    netns.add_many(["x1", "x2"])
    agent.wait_ready("x2")
    add_named("n3")
    found = agent.wait_ready("n3")
    assert (found["address"], found["address6"]) == before["n3"]


@pytest.mark.parametrize("end", ENDS)
def test_leases_outlive_a_reboot(tmp_path: Path, end: str) -> None:
    disk = {"agent": {"state_dir": str(tmp_path / "state")}}
    with PrivateHost() as host, Agent(host, tmp_path, disk).running() as agent:
        _populate(agent)
        before = _addresses(agent)
        eventually(lambda: _all_saved(tmp_path / "state"), 5, "the leases are on disk")
        ENDS[end](agent)
    with PrivateHost() as host, Agent(host, tmp_path, disk).running() as agent:
        netns.add_many(["stranger", *reversed(NAMES)])
        for name in reversed(NAMES):
            agent.wait_ready(name)
        after = _addresses(agent)
    assert {name: after[name] for name in NAMES} == before


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 1000, b"[]", b'{"leases": 7}'], ids=repr)
def test_a_broken_state_file_stops_nobody(agent: Agent, content: bytes) -> None:
    _populate(agent)
    before = _addresses(agent)
    agent.stop()
    files = [path for path in Path(agent.tables["agent"]["state_dir"]).rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(content)
    agent.start()
    assert _addresses(agent) == before, "the kernel remembers"


def test_no_state_directory_to_write_to_stops_nobody(start_agent: StartAgent) -> None:
    agent = start_agent({"agent": {"state_dir": "/proc/vethd"}}, start=False)
    agent.start()
    netns.add_netns("web")
    agent.wait_ready("web")
    assert_works("web")


def test_a_stopped_agent_catches_up_with_more_than_any_queue_holds(agent: Agent) -> None:
    _populate(agent)
    os.kill(agent.pid, signal.SIGSTOP)
    for _ in range(40):
        names = [f"t{number}" for number in range(100)]
        netns.add_many(names)
        netns.delete_many(names)
    for name in NAMES[:5]:
        observe.run("ip", "link", "del", host_end(name)["ifname"])
    delete_named("n9")
    add_named("late")
    os.kill(agent.pid, signal.SIGCONT)
    agent.wait_ready("late", timeout=20)
    eventually(lambda: set(agent.namespaces()) == {*NAMES[:9], "late"}, 20, "what is there is known, and no more")
    for name in agent.namespaces():
        eventually_works(name, 10)
    eventually(lambda: len(observe.host_ends()) == len(NAMES), 5, "one host end each")


def test_reload_takes_a_new_config(agent: Agent) -> None:
    _populate(agent)
    agent.configure({"network.default": {"mtu": 1350}, "discovery": {"exclude": ["secret*"]}})
    with netns.Heartbeat("n0", uplink.BEYOND4, internet.ECHO_PORT) as stream:
        os.kill(agent.pid, signal.SIGHUP)
        eventually(lambda: observe.links("n0")["eth0"]["mtu"] == 1350, 5, "the new MTU is there")
        stream.await_beats(10)
    netns.add_netns("secret1")
    assert agent.cli("wait", "secret1").returncode == 3
    netns.add_netns("cni-now-allowed")
    agent.wait_ready("cni-now-allowed")


@pytest.mark.parametrize("broken", ["[agent", '[network.default]\nsubnet = "10.0.0.0/33"\n', "[typo]\n"])
def test_reload_refuses_a_bad_config_without_harm(agent: Agent, broken: str) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    mark = agent.mark()
    agent.config.write_text(broken)
    os.kill(agent.pid, signal.SIGHUP)
    eventually(lambda: [r for r in agent.records[mark:] if r["level"] in {"warning", "error"}], 5, "it says so")
    assert_works("web")
    netns.add_netns("later")
    agent.wait_ready("later")


ALIASES = {"none": "", "somebody else's": "lab:web", "that of a path": "vethd:../../web"}


@pytest.mark.parametrize("alias", ALIASES)
def test_what_lost_its_name_goes_with_the_others_whatever_its_alias_says(agent: Agent, alias: str) -> None:
    """Others may have changed it while no agent was there."""
    names = ["web", "db"]
    netns.add_many(names)
    with contextlib.ExitStack() as stack:
        for name in names:
            agent.wait_ready(name)
            stack.enter_context(open(NETNS_DIR / name))
        agent.kill()
        observe.run("ip", "link", "set", str(host_end("web")["ifname"]), "alias", ALIASES[alias])
        for name in names:
            delete_named(name)
        agent.start()
        eventually(lambda: remains(agent) == [], 5, "nothing is left")
    assert not [line for line in agent.lines if "mistake" in line]
