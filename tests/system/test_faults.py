"""The kernel says no: whatever it refuses, one namespace waits, says why, and is networked once it may be."""

import time
from pathlib import Path
from typing import Any

import pytest

from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe, unnamed
from tests.harness.expect import assert_works, eventually_works, host_end
from tests.harness.refusals import Refusals
from tests.harness.remains import remains
from tests.harness.running import Agent, Tables
from tests.harness.tracing import injected
from tests.harness.waiting import eventually
from tests.soak.stage import Stage
from tests.soak.sweep import sweep

# As many calls as that are made for a namespace, at the least, from its appearance until it is forgotten.
FEWEST_CALLS = 25
# The names of its devices tell its requests from all others.
ONE_OF_TWO: Tables = {
    "network.default": {},
    "network.other": {"subnet": "10.99.0.0/24", "subnet6": "", "bridge": "vethd1", "interface": "bad0"},
    "rule": [unnamed.rule("other", name="bad*")],
}


@pytest.fixture
def refusals(tmp_path: Path) -> Refusals:
    return Refusals(tmp_path)


@pytest.fixture
def two_networks(start_agent: StartAgent, refusals: Refusals) -> Agent:
    return start_agent(ONE_OF_TWO, start=False).start(env=refusals.environment)


@pytest.mark.timeout(300)
def test_each_call_fails_in_turn(tmp_path: Path, refusals: Refusals) -> None:
    """Each with one error; `make soak` has each with every one."""
    with Stage(tmp_path, 0, refusals.environment) as stage:
        calls, wrongs = sweep(stage, refusals, 0)
        assert wrongs == []
        assert calls >= FEWEST_CALLS
        assert stage.wrongs() == []
        assert stage.leaks() == []
        assert stage.lost() == 0, "not one packet of another was lost"
        assert not [line for line in stage.agent.lines if "mistake" in line]


def test_one_that_fails_delays_no_other_and_says_why(two_networks: Agent, refusals: Refusals) -> None:
    agent = two_networks
    refusals.begin("EBUSY", holds="bad0")
    begin = time.monotonic()
    netns.add_netns("bad")
    failed = eventually(lambda: _of(agent, "bad", "failed"), 3, "it has failed")
    assert "EBUSY" in failed["reason"]
    for number in range(20):
        netns.add_netns(f"n{number}")
        assert agent.wait_ready(f"n{number}")["plumb_ms"] < 500
    assert [line for line in agent.ask("/v1/status")[1]["problems"] if "EBUSY" in line]
    assert "EBUSY" in agent.cli("status").stdout
    told = agent.cli("explain", "bad").stdout
    assert "EBUSY" in told
    assert "network other" in told
    # 50 ms, and each time twice as much.
    assert refusals.struck() <= 4 + 2 * (time.monotonic() - begin)
    refusals.end()
    eventually(lambda: _of(agent, "bad", "ready"), 10, "it is networked once it may be")
    assert not agent.ask("/v1/status")[1]["problems"]
    assert observe.addresses("bad0", "bad")


def test_a_device_half_way_does_not_outrun_the_retries(two_networks: Agent, refusals: Refusals) -> None:
    """The pair is made again and again, and what is heard of it is no reason to be faster."""
    agent = two_networks
    # Its address where one is added: attribute IFA_LOCAL of 8 bytes. The pair is there by then.
    refusals.begin("ENOBUFS", holds="\x08\x00\x02\x00\x0a\x63\x00")
    netns.add_netns("bad")
    eventually(lambda: _of(agent, "bad", "failed"), 3, "it has failed")
    assert "bad0" in observe.links("bad")
    eventually(lambda: _attempts(agent) >= 4, 5, "it is tried again")
    before, begin = _attempts(agent), time.monotonic()
    eventually(lambda: time.monotonic() - begin > 3, 5, "some time has passed")
    assert _attempts(agent) - before <= 6
    refusals.end()
    eventually(lambda: _of(agent, "bad", "ready"), 15, "it is networked once it may be")


def test_what_cannot_be_taken_down_delays_no_other_and_says_why(
    private_host: PrivateHost, start_agent: StartAgent, refusals: Refusals
) -> None:
    agent = start_agent(start=False).start(env=refusals.environment)
    for name in ("web", "db", "mail"):
        netns.add_netns(name)
        agent.wait_ready(name)
    end = host_end("web")["ifname"]
    with netns.enter("web"):
        # Else the kernel takes the device away itself, with the namespace.
        holder = netns.spawn(["sleep", "60"])
    try:
        with refusals.during("EBUSY", holds=end):
            netns.del_netns("web")
            netns.del_netns("db")
            eventually(lambda: len(observe.host_ends()) == 2, 3, "the other one is gone")
            trouble = eventually(lambda: agent.ask("/v1/status")[1]["problems"], 3, "it is told")
            assert "1 cannot be taken down" in trouble[0]
            assert "EBUSY" in trouble[0]
            assert "cannot be taken down" in agent.cli("explain", "web").stdout
            assert_works("mail")
        eventually(lambda: set(agent.namespaces()) == {"mail"} and len(observe.host_ends()) == 1, 8, "it is gone")
        eventually(lambda: not remains(agent), 3, "nothing is left of it")
        assert not agent.ask("/v1/status")[1]["problems"]
    finally:
        holder.kill()
        holder.wait()


HOST_CALLS = ("observe_host", "apply_host", "host_links", "Crew._load", "Ruleset.is_loaded")


@pytest.mark.parametrize("call", HOST_CALLS)
def test_the_host_s_side_heals_when_the_kernel_lets_it(start_agent: StartAgent, refusals: Refusals, call: str) -> None:
    agent = start_agent(start=False).start(env=refusals.environment)
    netns.add_netns("web")
    agent.wait_ready("web")
    refusals.begin("ENOBUFS", call=call)
    observe.run("nft", "flush", "ruleset")
    observe.run("ip", "link", "set", "vethd0", "down")
    if call in ("observe_host", "apply_host", "Crew._load"):
        eventually(lambda: [line for line in agent.ask("/v1/status")[1]["problems"] if "ENOBUFS" in line], 5, "told")
        netns.add_netns("late")
    refusals.end()
    eventually(lambda: not agent.ask("/v1/status")[1]["problems"], 8, "it is well again")
    eventually_works("web", 5)
    if call in ("observe_host", "apply_host", "Crew._load"):
        agent.wait_ready("late")
        assert_works("late")


def test_libnftables_has_no_room(private_host: PrivateHost, agent: Agent) -> None:
    """By a tracer: it alone of all that the agent uses speaks by sendmsg to the kernel."""
    netns.add_netns("web")
    agent.wait_ready("web")
    with injected(private_host, agent.pid, "sendmsg", "error=ENOBUFS"):
        observe.run("nft", "flush", "ruleset")
        eventually(lambda: agent.ask("/v1/status")[1]["problems"], 5, "it is told")
    eventually(lambda: "masquerade" in observe.nft_text(), 8, "the rules are back")
    eventually(lambda: not agent.ask("/v1/status")[1]["problems"], 3, "it is well again")
    eventually_works("web", 3)


def _of(agent: Agent, name: str, state: str) -> dict[str, Any]:
    found = agent.namespaces().get(name, {})
    return found if found.get("state") == state else {}


def _attempts(agent: Agent) -> float:
    return agent.metric("vethd_reconcile_total", result="failed") or 0
