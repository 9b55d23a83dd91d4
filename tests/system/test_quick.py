"""How long a script waits for what is there already."""

import statistics
import time

import pytest

from agent.cli.client import Client
from tests.harness import netns
from tests.harness.running import SOCKET, Agent

WITHIN_SECONDS = 0.002
TIMES = 200


@pytest.mark.serial
def test_waiting_for_a_namespace_that_is_networked_takes_no_time(agent: Agent) -> None:
    netns.add_many([f"n{number}" for number in range(50)])
    for number in range(50):
        agent.wait_ready(f"n{number}")
    client, took = Client(SOCKET), []
    for number in range(TIMES):
        begin = time.perf_counter()
        answer = client.post("/v1/wait", {"name": f"n{number % 50}", "timeout": 1})
        took.append(time.perf_counter() - begin)
        assert answer["outcome"] == "ready"
    assert statistics.median(took) < WITHIN_SECONDS
