"""Namespaces without a name, by a whole agent: which are networked, by what rule, and until when."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import pytest

from agent.demo import internet, uplink
from agent.demo.isolation import MS_BIND, mount, unmount
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe, unnamed
from tests.harness.expect import assert_works
from tests.harness.movers import moved
from tests.harness.running import Agent
from tests.harness.unnamed import ANY_PROCESS, asleep, eventually_is, found, inside, rule
from tests.harness.waiting import eventually

# Some milliseconds at most, on a machine that has nothing else to do; the kernel takes namespaces down one after
# the other, those of all tests at that.
SOON = 5.0
LO_ALONE = {"lo"}


@pytest.fixture
def agent(start_agent: StartAgent) -> Agent:
    """One that networks whatever processes hold."""
    return start_agent({"rule": [ANY_PROCESS]})


@contextmanager
def held(pid: int, way: str) -> Iterator[Path]:
    """Keep the namespace of a process, and lead to it, without a process that is in it."""
    if way == "open file":
        descriptor = os.open(inside(pid), os.O_RDONLY)
        try:
            yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        path = Path("/run/kept")
        path.touch()
        mount(str(inside(pid)), str(path), flags=MS_BIND)
        try:
            yield path
        finally:
            unmount(str(path))


def address_of(agent: Agent, pid: int) -> str:
    return str(found(agent, pid)["address"])


def run_nothing_but(agent: Agent, *expected: str) -> bool:
    """Whether the log holds these events alone, and nothing that an operator has to look into."""
    return {str(record["event"]) for record in agent.records} <= {"ready", *expected}


def test_unshare_is_networked_and_forgotten_with_its_last_process(agent: Agent) -> None:
    traces = unnamed.Traces(agent)
    with asleep() as pid:
        record = eventually_is(agent, pid, "ready")
        assert record["name"] == f"pid:{pid}:sleep"
        assert record["source"] == "process"
        assert record["rule"] == 'rule 1: match source = "process": network default'
        assert_works(inside(pid))
    traces.eventually_gone()
    assert run_nothing_but(agent, "networked", "removed")


@pytest.mark.parametrize("way", ["clone", "fork", "name", "daemon", "nothing"])
def test_however_a_program_does_it(agent: Agent, way: str) -> None:
    with moved(way) as mover:
        eventually_is(agent, mover.pid, "ready")
        assert_works(inside(mover.pid))


def test_a_program_that_is_there_at_start(start_agent: StartAgent) -> None:
    with asleep() as pid:
        agent = start_agent({"rule": [ANY_PROCESS]})
        assert found(agent, pid)["state"] == "ready"
        assert_works(inside(pid))


def test_rules_tell_programs_apart(start_agent: StartAgent) -> None:
    rules = [rule(command="sleep 1*"), rule(user="nobody"), {"match": {}, "leave": True}]
    agent = start_agent({"rule": rules})
    other_user = ("unshare", "--net", "setpriv", "--reuid=nobody", "--clear-groups", "sleep", "2000")
    with asleep() as chosen, unnamed.running("unshare", "--net", "sleep", "2000") as other:
        assert eventually_is(agent, chosen, "ready")["rule"] == 'rule 1: match command = "sleep 1*": network default'
        eventually(lambda: "match everything: leave" in found(agent, other).get("rule", ""), SOON, "left by the last")
        with unnamed.running(*other_user) as user:
            assert eventually_is(agent, user, "ready")["rule"] == 'rule 2: match user = "nobody": network default'
        assert set(observe.links(inside(other))) == LO_ALONE


def connectors_of(agent: Agent) -> int:
    """How many sockets to the kernel's process connector the agent has, in the initial network namespace."""
    connector = "11"
    lines = (line.split() for line in Path("/proc/1/net/netlink").read_text().splitlines()[1:])
    there = {f"socket:[{fields[9]}]" for fields in lines if fields[1] == connector}
    files: list[str] = []
    for file in Path(f"/proc/{agent.pid}/fd").iterdir():
        # It serves requests meanwhile.
        with suppress(FileNotFoundError):
            files.append(os.readlink(file))
    return sum(file in there for file in files)


def test_without_a_rule_nothing_is_even_watched(start_agent: StartAgent) -> None:
    agent = start_agent()
    with asleep() as pid:
        netns.add_netns("web")
        agent.wait_ready("web")
        assert connectors_of(agent) == 0
        assert found(agent, pid) == {}
        assert set(observe.links(inside(pid))) == LO_ALONE
        # Told to, it watches at once, and need not be told to stop.
        agent.reload({"rule": [ANY_PROCESS]})
        eventually_is(agent, pid, "ready")
        assert connectors_of(agent) == 1
        agent.reload({"rule": []})
        eventually_is(agent, pid, "left")
        assert found(agent, pid)["rule"] == "no rule names it"
        assert set(observe.links(inside(pid))) == LO_ALONE


def test_rules_are_exchanged_while_programs_run(start_agent: StartAgent) -> None:
    agent = start_agent({"rule": [rule(command="sleep 1*")]})
    traces = unnamed.Traces(agent)
    with asleep() as first, unnamed.running("unshare", "--net", "sleep", "2000") as second:
        eventually_is(agent, first, "ready")
        eventually_is(agent, second, "left")
        agent.reload({"rule": [rule(command="sleep 2*")]})
        eventually_is(agent, second, "ready")
        eventually_is(agent, first, "left")
        assert_works(inside(second))
        assert set(observe.links(inside(first))) == LO_ALONE
        assert len(observe.host_ends()) == 1
    traces.eventually_gone()


def test_root_of_another_user_namespace_is_let_in_by_its_own_rule_alone(start_agent: StartAgent) -> None:
    agent = start_agent({"rule": [ANY_PROCESS]})
    with asleep("--user", "--map-root-user") as pid:
        record = eventually_is(agent, pid, "left")
        assert record["rule"] == 'another user namespace owns it: only a rule with userns = "any" would network it'
        assert set(observe.links(inside(pid))) == LO_ALONE
        agent.reload({"rule": [rule(source="process", userns="any")]})
        rule_text = eventually_is(agent, pid, "ready")["rule"]
        assert rule_text == 'rule 1: match source = "process", userns = "any": network default'
        assert_works(inside(pid))


def test_a_name_takes_it_over_and_gives_it_back(agent: Agent) -> None:
    with asleep() as pid:
        eventually_is(agent, pid, "ready")
        address = address_of(agent, pid)
        with netns.Heartbeat(inside(pid), uplink.BEYOND4, internet.ECHO_PORT) as heart:
            observe.run("ip", "netns", "attach", "web", str(pid))
            assert agent.wait_ready("web")["address"] == address
            eventually(lambda: found(agent, pid)["rule"] == "is another name of /run/netns/web", SOON, "an alias")
            assert agent.namespaces()["web"]["rule"] == "discovery.directories: network default"
            heart.await_beats(10)
            netns.del_netns("web")
            eventually(lambda: found(agent, pid)["rule"].startswith("rule 1: match source"), SOON, "by its rule again")
            heart.await_beats(10)
        assert address_of(agent, pid) == address
        assert agent.events("removed") == []
    eventually(lambda: agent.events("removed", address=address.partition("/")[0]), SOON, "gone with the process")


def test_a_name_alone_is_enough_to_keep_it(start_agent: StartAgent) -> None:
    """The default config: what has a name is networked, and what loses it is not."""
    agent = start_agent()
    with asleep() as pid:
        observe.run("ip", "netns", "attach", "web", str(pid))
        agent.wait_ready("web")
        assert_works(inside(pid))
        netns.del_netns("web")
        eventually(lambda: set(observe.links(inside(pid))) == LO_ALONE, SOON, "offline again")


def test_it_is_told_to_whoever_asks(agent: Agent) -> None:
    with asleep() as pid:
        eventually_is(agent, pid, "ready")
        name = f"pid:{pid}:sleep"
        (line,) = (line for line in agent.cli("list").stdout.splitlines() if line.startswith(name))
        assert line.split()[1:3] == ["ready", "default"]
        explained = agent.cli("explain", name).stdout
        assert 'rule          rule 1: match source = "process": network default' in explained
        assert f"path          /proc/{pid}/ns/net\ncommand       sleep 1000\n" in explained
        assert "user          root" in explained
        assert agent.cli("explain", str(inside(pid))).stdout == explained, "by its path, too"
        assert agent.cli("wait", name).returncode == 0
    eventually(lambda: "removed" in agent.cli("explain", name).stdout, SOON, "it is remembered for a while")


def test_whoever_is_left_goes_on(agent: Agent) -> None:
    """Its first process ends, and others stay: the namespace is where it was."""
    with moved("fork") as mover:
        eventually_is(agent, mover.pid, "ready")
        address = address_of(agent, mover.pid)
        with held(mover.pid, "open file") as path, netns.Heartbeat(path, uplink.BEYOND4, internet.ECHO_PORT) as heart:
            mover.kill()
            eventually(lambda: found(agent, mover.pid) == {}, SOON, "somebody else stands for it")
            heart.await_beats(10)
        (record,) = unnamed.namespaces_of_processes(agent)
        assert (record["state"], record["address"]) == ("ready", address)
    assert run_nothing_but(agent, "networked", "removed")


def test_another_program_in_it_is_no_repair(agent: Agent) -> None:
    shell = "for each in 1 2 3 4 5 6; do read line; done; exec sleep 1000"
    command = ["unshare", "--net", "sh", "-c", shell]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:
        eventually_is(agent, process.pid, "ready")
        assert process.stdin is not None
        process.stdin.write(b"\n" * 6)
        eventually(lambda: found(agent, process.pid)["name"] == f"pid:{process.pid}:sleep", SOON, "it is renamed")
        alias = f"vethd:pid:{process.pid}:sleep"
        eventually(lambda: alias in {link.get("ifalias") for link in observe.host_ends().values()}, SOON, "marked")
        process.kill()
    assert agent.events("repaired") == []


def test_another_program_in_it_keeps_the_network(start_agent: StartAgent) -> None:
    """Also where the rule names the program that was there first."""
    agent = start_agent({"rule": [rule(command="sh -c read *")]})
    command = ["unshare", "--net", "sh", "-c", "read line; exec sleep 1000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:
        eventually_is(agent, process.pid, "ready")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        eventually(lambda: found(agent, process.pid)["command"] == "sleep 1000", SOON, "it is another program")
        assert_works(inside(process.pid))
        agent.reload({"rule": [rule(command="sh -c write *")]})
        eventually_is(agent, process.pid, "left")
        process.kill()


@pytest.mark.parametrize("way", ["bind mount", "open file"])
def test_it_stays_networked_until_nothing_holds_it(agent: Agent, way: str) -> None:
    traces = unnamed.Traces(agent)
    with asleep() as pid:
        eventually_is(agent, pid, "ready")
        with held(pid, way) as path:
            os.kill(pid, 9)
            reason = "no process is in it any more: a mount or an open file keeps it"
            eventually(lambda: found(agent, pid)["reason"] == reason, SOON, "it is known to be without process")
            assert_works(path)
            # Somebody enters, and leaves again.
            with unnamed.running("nsenter", f"--net={path}", "sleep", "1000") as guest:
                eventually_is(agent, guest, "ready")
                eventually(lambda: found(agent, pid) == {}, SOON, "the guest stands for it")
            eventually(lambda: found(agent, guest)["reason"] == reason, SOON, "without process again")
            assert_works(path)
            assert agent.events("removed") == []
        traces.eventually_gone()
    assert run_nothing_but(agent, "networked", "removed")


@pytest.mark.parametrize("end", [Agent.stop, Agent.kill])
def test_a_restart_is_not_felt(private_host: PrivateHost, agent: Agent, end: Callable[[Agent], object]) -> None:
    with asleep() as pid:
        eventually_is(agent, pid, "ready")
        address, device = address_of(agent, pid), found(agent, pid)["device"]
        index = observe.links()[device]["ifindex"]
        talking = (inside(pid), private_host.internet)
        with netns.Heartbeat(inside(pid), uplink.BEYOND4, internet.ECHO_PORT) as heart:
            before = observe.tcp_retransmits(*talking)
            heart.await_beats(10)
            end(agent)
            heart.await_beats(10)
            agent.start()
            heart.await_beats(10)
            assert observe.tcp_retransmits(*talking) == before, "not one packet was lost"
        assert found(agent, pid)["state"] == "ready"
        assert address_of(agent, pid) == address
        assert observe.links()[device]["ifindex"] == index
        assert len(agent.events("networked")) == 1


def seconds_to_network(agent: Agent, name: str) -> float:
    begin = time.monotonic()
    netns.add_netns(name)
    agent.wait_ready(name)
    return time.monotonic() - begin


def test_two_hundred_short_lived_ones_leave_nothing_and_delay_nobody(agent: Agent) -> None:
    traces = unnamed.Traces(agent)
    names = iter(f"web-{number}" for number in range(1000))
    crowd = "seq 200 | xargs -P 10 -I {} unshare --net sleep 0.05"
    with asleep() as pid:
        eventually_is(agent, pid, "ready")
        alone = [seconds_to_network(agent, next(names)) for _ in range(10)]
        with netns.Heartbeat(inside(pid), uplink.BEYOND4, internet.ECHO_PORT) as heart:
            with subprocess.Popen(["sh", "-c", crowd]) as shell:
                crowded: list[float] = []
                while shell.poll() is None:
                    crowded.append(seconds_to_network(agent, next(names)))
            heart.await_beats(10)
        for name in filter(lambda name: name.startswith("web-"), agent.namespaces()):
            netns.del_netns(name)
    traces.eventually_gone(10)
    told = f"median {median(alone) * 1000:.1f} ms alone, {median(crowded) * 1000:.1f} ms in the crowd"
    sys.stdout.write(f"{len(agent.events('networked'))} networked; others: {told}, longest {max(crowded):.3f} s\n")
    # A packet that is lost is sent again after a second: nobody waits as long as that.
    assert max(crowded) < 0.9
    assert len(agent.events("networked")) > 20, "on a busy machine some are over before anybody could look"
    assert run_nothing_but(agent, "networked", "removed")


@pytest.mark.serial
def test_it_is_quick(agent: Agent) -> None:
    took = []
    for _ in range(50):
        with moved("exec") as mover:
            netns.await_default_route(inside(mover.pid))
            took.append(time.monotonic() - mover.since)
    told = f"median {median(took) * 1000:.1f} ms, longest {max(took) * 1000:.1f} ms"
    sys.stdout.write(f"from unshare to usable: {told}\n")
    # Five times of what is aimed at: the machine may be busy with others.
    assert median(took) < 0.1
