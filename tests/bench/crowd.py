"""What it costs to have many: memory, rest, a scrape, and a start."""

import http.client
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from agent.demo.isolation import add_named
from tests.bench.contenders import Vethd
from tests.bench.eyes import Eyes
from tests.bench.ground import Ground
from tests.bench.quiet import ALL_GONE_SECONDS, await_quiet
from tests.bench.results import Crowd, Start
from tests.bench.sizes import Sizes
from tests.harness.running import METRICS
from tests.harness.waiting import eventually

_CALM_SECONDS = 5.0
_ADOPT_TIMEOUT = 60.0
_CPUCLOCK_SCHED = 2


def resident(ground: Ground[Vethd]) -> int:
    """Bytes of the agent that are in memory."""
    status = Path(f"/proc/{ground.contender.agent.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def rest(ground: Ground[Vethd], sizes: Sizes) -> Crowd:
    """With all that are there."""
    pid = ground.contender.agent.pid
    ground.contender.await_only(len(ground.names))
    await_quiet(ALL_GONE_SECONDS)
    # Nothing tells that all is done which the work before has left to do.
    time.sleep(_CALM_SECONDS)
    before = _cpu_seconds(pid)
    time.sleep(sizes.rest_seconds)
    share = (_cpu_seconds(pid) - before) / sizes.rest_seconds
    held = resident(ground)
    scrapes = tuple(_scrape() for _ in range(sizes.warm_up + sizes.scrapes))[sizes.warm_up :]
    return Crowd(len(ground.names), sizes.rest_seconds, share, held, scrapes)


def starts(ground: Ground[Vethd], times: int) -> Start:
    """Starts of the agent among all that are there; each time one more namespace is made at that instant."""
    agent = ground.contender.agent
    adopted, first = [], []
    for _ in range(times):
        ground.contender.await_only(len(ground.names))
        agent.stop()
        await_quiet(ALL_GONE_SECONDS)
        mark, begin = agent.mark(), time.perf_counter()
        agent.start(ready=False)
        name = ground.new_name()[1]
        add_named(name)
        with Eyes(name) as eyes:
            eyes.await_usable()
            first.append(time.perf_counter() - begin)
            agent.wait_event("ready", timeout=_ADOPT_TIMEOUT, since=mark)
            adopted.append(time.perf_counter() - begin)
            ground.note(name, eyes)
        # Told by the agent itself, and by no log line that might come early.
        eventually(partial(_all_ready, ground), _ADOPT_TIMEOUT, "all are adopted")
        ground.delete_and_wait([name])
    return Start(len(ground.names), tuple(adopted), tuple(first))


def _all_ready(ground: Ground[Vethd]) -> bool:
    told = ground.contender.agent.ask("/v1/status")[1]["namespaces"]
    return bool(told["ready"] == len(ground.names) and sum(told.values()) == told["ready"])


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, to the nanosecond: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def _scrape() -> float:
    begin = time.perf_counter()
    with closing(http.client.HTTPConnection(METRICS, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, text
    return time.perf_counter() - begin
