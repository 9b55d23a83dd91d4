"""The kernel says no: whatever it refuses, one namespace waits, says why, and is networked once it may be."""

import contextlib
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from agent.demo.isolation import add_named, delete_named, prepare_netns_dir
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import assert_works, eventually_works, host_end
from tests.harness.refusals import Refusals
from tests.harness.remains import held, remains
from tests.harness.running import Agent, Tables
from tests.harness.waiting import eventually

# A reply that never comes, and system calls that fail, are here besides what the kernel answers.
CODES = (
    "ENOBUFS", "EBUSY", "ENOMEM", "EEXIST", "ENODEV", "EPERM", "EINTR", "send-ENOBUFS", "receive-ENOBUFS", "SILENCE",
)  # fmt: skip
TIMES = 2
# As many calls as that are made for a namespace, at the least, from its appearance until it is forgotten.
FEWEST_CALLS = 25
MOST_CALLS = 90
KINDS: dict[str, Tables] = {"a port": {}, "routed": {"network.default": {"bridge_ports": 1}}}
# The names of its devices tell its requests from all others.
ONE_OF_TWO: Tables = {
    "network.default": {},
    "network.other": {"subnet": "10.99.0.0/24", "subnet6": "", "bridge": "vethd1", "interface": "bad0"},
}
RULE = '\n[[rule]]\nmatch = { name = "bad*" }\nnetwork = "other"\n'


@pytest.fixture
def refusals(tmp_path: Path) -> Refusals:
    return Refusals(tmp_path)


@pytest.fixture
def two_networks(start_agent: StartAgent, refusals: Refusals) -> Agent:
    agent = start_agent(ONE_OF_TWO, start=False)
    agent.config.write_text(agent.config.read_text() + RULE)
    return agent.start(env=refusals.environment)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [0, 5])
def test_each_call_fails_in_turn(
    private_host: PrivateHost, start_agent: StartAgent, refusals: Refusals, kind: str, shift: int
) -> None:
    """The n-th call and the next fail, with the one error or the other; a namespace comes, and goes."""
    agent = start_agent(KINDS[kind], start=False).start(env=refusals.environment)
    prepare_netns_dir()
    add_named("stable")
    agent.wait_ready("stable")
    before = held(agent.pid)
    with netns.Heartbeat("stable", uplink.BEYOND4, internet.ECHO_PORT) as stream:
        stream.await_beats(10)
        lost = observe.tcp_retransmits("stable", private_host.internet)
        for number in itertools.count():
            assert number < MOST_CALLS, "it never came to an end"
            code = CODES[(number + shift) % len(CODES)]
            refusals.begin(code, skip=number, count=TIMES)
            _live_and_die(agent, f"n{number}", f"{code} at call {number}")
            if not refusals.struck():
                break
        refusals.end()
        stream.await_beats(10)
        assert observe.tcp_retransmits("stable", private_host.internet) == lost, "not one packet of another was lost"
    assert number >= FEWEST_CALLS
    eventually(lambda: not remains(agent), 5, "nothing is left")
    after = held(agent.pid)
    assert (after.files, after.threads) == (before.files, before.threads)
    assert not agent.ask("/v1/status")[1]["problems"]
    assert not [line for line in agent.lines if "mistake" in line]


def _live_and_die(agent: Agent, name: str, what: str) -> None:
    add_named(name)
    eventually(lambda: agent.namespaces().get(name, {}).get("state") == "ready", 8, f"{name} is ready: {what}")
    assert_works(name)
    delete_named(name)
    eventually(lambda: set(agent.namespaces()) == {"stable"} and len(observe.host_ends()) == 1, 8, f"gone: {what}")
    eventually(lambda: not remains(agent), 8, f"nothing is left: {what}")
