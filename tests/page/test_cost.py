"""What the live page costs the agent's host: little while somebody looks, nothing while nobody does."""

import http.client
import json
import time
from pathlib import Path

import pytest

from tests.harness import netns
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import eventually
from tests.page.traffic import talking

PORT = 9853
NAMESPACES, BUSY, SAMPLES = 100, 20, 10
MOST_OF_A_CORE = 0.02
QUIET_SECONDS = 3.0
# A message that tells of the host alone, and what each busy namespace adds to it.
MOST_BYTES, MOST_BYTES_EACH, NUMBERS_EACH = 2000, 60, 4


@pytest.fixture
def names(agent: Agent) -> list[str]:
    """So many namespaces, networked a while ago."""
    found = [f"web-{number}" for number in range(NAMESPACES)]
    netns.add_many(found)
    for name in found:
        agent.wait_ready(name)
    return found


def seconds_of_cpu(agent: Agent) -> float:
    """Of all threads, as the scheduler counts it, in nanoseconds (proc(5), schedstat)."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{agent.pid}/task").glob("*/schedstat")) / 1e9


def wakings(agent: Agent) -> int:
    """How often a thread woke that is not the loop's: those read counters, and wait for work otherwise."""
    others = [file for file in Path(f"/proc/{agent.pid}/task").iterdir() if int(file.name) != agent.pid]
    lines = [line for file in others for line in (file / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


class Viewer:
    """One who looks, by an event stream."""

    def __init__(self) -> None:
        self._connection = http.client.HTTPConnection(METRICS, timeout=10)
        self._connection.request("GET", "/api/live")
        self._response = self._connection.getresponse()

    def next(self) -> tuple[str, dict[str, list[object]], int]:
        """The next message: its kind, what it tells, its bytes."""
        event, data, end = (self._response.readline() for _ in range(3))
        assert end == b"\n"
        return event.decode().split()[1], json.loads(data.removeprefix(b"data: ")), len(data)

    def close(self) -> None:
        self._connection.close()


class Quiet:
    """Tells whether no thread woke for a while: the host is looked at twice a minute, a page once a second."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._woken = -1
        self._since = 0.0

    def lasts(self) -> bool:
        woken = wakings(self._agent)
        if woken != self._woken:
            self._woken, self._since = woken, time.monotonic()
        return time.monotonic() - self._since > QUIET_SECONDS


def test_one_viewer_costs_little_and_none_costs_nothing(agent: Agent, names: list[str]) -> None:
    viewer = Viewer()
    with talking(dict.fromkeys(names[:BUSY], 5000)):
        assert viewer.next()[0] == "whole"
        eventually(lambda: len(viewer.next()[1]["rates"]) >= BUSY * NUMBERS_EACH, 10, "rates are told")
        begin, before = time.monotonic(), seconds_of_cpu(agent)
        news = [viewer.next() for _ in range(SAMPLES)]
        spent, passed = seconds_of_cpu(agent) - before, time.monotonic() - begin
    assert passed > 0.8 * SAMPLES, "a sample a second"
    assert spent < MOST_OF_A_CORE * passed
    for event, told, size in news:
        assert event == "news"
        assert (told["rows"], told["gone"]) == ([], []), "only what has changed is told"
        assert size < MOST_BYTES + len(told["rates"]) // NUMBERS_EACH * MOST_BYTES_EACH
    woken = wakings(agent)
    eventually(lambda: wakings(agent) > woken, 3, "each sample wakes a thread")
    viewer.next()
    viewer.close()
    eventually(lambda: not _is_looked_at(agent), 2, "the agent has noticed that nobody looks")
    eventually(Quiet(agent).lasts, 20, "nothing is read for a page that nobody looks at")


def _is_looked_at(agent: Agent) -> bool:
    """Whether anybody is connected: state 1 is ESTABLISHED (proc_net_tcp)."""
    connections = Path(f"/proc/{agent.pid}/net/tcp").read_text().splitlines()[1:]
    return any(fields[1].endswith(f":{PORT:04X}") and fields[3] == "01" for fields in map(str.split, connections))
