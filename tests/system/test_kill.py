"""Point 5, the hard part: killed between any two steps in the kernel, the next start puts right what was half done.

With VETHD_FAULT_KILL_AFTER=N the agent kills itself right after the N-th change that it makes in the kernel.
"""

import contextlib
import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent.demo.isolation import add_named, delete_named
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import address4, assert_works, host_end, why_not_working
from tests.harness.running import Agent
from tests.harness.tracing import injected
from tests.harness.waiting import eventually

FAULT = "VETHD_FAULT_KILL_AFTER"
MOST_STEPS = 60
HANDS = 2


@dataclass(frozen=True)
class Work:
    """Something that makes the agent change the kernel step by step, and network `web`.

    `web` is there before it begins if `begin` is true.
    """

    begin: bool
    act: Callable[[], object]
    done: Callable[[], object]
    fewest_steps: int


def _break_web() -> None:
    observe.run("ip", "link", "del", host_end("web")["ifname"])


WORK = {
    "networking": Work(False, lambda: add_named("web"), lambda: not why_not_working("web"), 5),
    "repairing": Work(True, _break_web, lambda: not why_not_working("web"), 5),
}


@pytest.fixture
def stopped(start_agent: StartAgent) -> Agent:
    """An agent that has networked one namespace and was stopped."""
    agent = start_agent()
    netns.add_netns("other")
    agent.wait_ready("other")
    agent.stop()
    return agent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", WORK)
@pytest.mark.parametrize("first", range(1, HANDS + 1))
def test_killed_after_any_step_of(stopped: Agent, kind: str, first: int) -> None:
    """Shared out: each of the tests takes the steps `first`, `first` + HANDS and so on."""
    work = WORK[kind]
    _lay_out(stopped.start(), work.begin)
    stopped.stop()
    for steps in itertools.count(first, HANDS):
        assert steps < MOST_STEPS, "it never came to an end"
        mark = stopped.mark()
        stopped.start(ready=False, env={FAULT: str(steps)})
        # It may not even come that far.
        with contextlib.suppress(AssertionError):
            stopped.wait_event("ready", since=mark)
        work.act()
        killed = _was_killed(stopped, work)
        stopped.start()
        _assert_right(stopped, {"other", "web"})
        _lay_out(stopped, work.begin)
        stopped.stop()
        if not killed:
            assert steps > work.fewest_steps
            return


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sends", [1, 2, 3, 5, 8, 13, 21, 34, 55])
def test_killed_while_it_starts(start_agent: StartAgent, sends: int) -> None:
    """By a tracer, at the N-th message that any thread sends: to the kernel, mostly."""
    netns.add_many(["web", "other"])
    agent = start_agent(start=False)
    inject = f"inject=sendto,sendmsg:signal=SIGKILL:when={sends}"
    agent.start(ready=False, prefix=("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", inject))
    with contextlib.suppress(AssertionError):
        agent.wait_event("ready")
    if agent.process is not None and agent.process.poll() is None:
        agent.kill()
    else:
        agent.wait_end()
    agent.start()
    _assert_right(agent, {"web", "other"})


@pytest.mark.parametrize("sends", range(1, 9))
def test_killed_while_it_takes_down(private_host: PrivateHost, agent: Agent, sends: int) -> None:
    """By a tracer, at the N-th message that any thread sends."""
    netns.add_many(["web", "other"])
    for name in ("web", "other"):
        agent.wait_ready(name)
    process = agent.process
    assert process is not None
    with injected(private_host, agent.pid, "sendto,sendmsg", f"signal=SIGKILL:when={sends}"):
        delete_named("web")
        eventually(
            lambda: process.poll() is not None or agent.events("removed"), 10, "it is dead, or has done its work"
        )
    was_killed = process.poll() is not None
    if was_killed:
        agent.wait_end()
    else:
        agent.kill()
    assert was_killed or sends > 4
    agent.start()
    _assert_right(agent, {"other"})


def _lay_out(agent: Agent, web: bool) -> None:
    """Bring `web` into being, networked, or out of it."""
    there = "web" in observe.run("ip", "netns", "list")
    if web and not there:
        add_named("web")
        agent.wait_ready("web")
    elif there and not web:
        delete_named("web")
        eventually(lambda: len(observe.host_ends()) == 1, 3, "web is taken down")


def _was_killed(agent: Agent, work: Work) -> bool:
    """Wait until the agent has either killed itself or done its work; then it is stopped."""
    assert agent.process is not None
    process = agent.process
    eventually(lambda: process.poll() is not None or work.done(), 10, "the agent is dead, or has done its work")
    # The work may look done before the last steps are.
    process.terminate()
    code = agent.wait_end()
    assert code in {0, -signal.SIGKILL}, agent.tail()
    return code != 0


def _assert_right(agent: Agent, names: set[str]) -> None:
    """All is as if nothing had ever gone wrong: every namespace works, and there is no remnant."""
    assert {name: found["state"] for name, found in agent.namespaces().items()} == dict.fromkeys(names, "ready")
    for name in names:
        assert_works(name)
        assert set(observe.links(name)) == {"lo", "eth0"}
    assert len({address4(name) for name in names}) == len(names)
    ends = {host_end(name)["ifname"] for name in names}
    eventually(lambda: set(observe.host_ends()) == ends, 2, "no host end is left over")
    eventually(lambda: _guests() == ends, 2, "no set element is left over")


def _guests() -> set[str]:
    """The host ends that the rules know."""
    sets = {item["set"]["name"]: item["set"] for item in observe.nft_json() if "set" in item}
    return {observe.key(element) for element in sets["guests"].get("elem", [])}
