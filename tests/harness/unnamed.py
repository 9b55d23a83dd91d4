"""Programs in network namespaces that no file names, and what the agent says of them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.demo.isolation import refuse_initial_namespace
from tests.harness import netns
from tests.harness.running import Agent, Record
from tests.harness.waiting import eventually

SOON = 5.0


def rule(network: str = "default", **match: str) -> dict[str, Any]:
    """One `[[rule]]` of the config."""
    return {"match": match, "network": network}


ANY_PROCESS = rule(source="process")


@contextlib.contextmanager
def running(*command: str, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a program in the host for the length of the block; its process id."""
    refuse_initial_namespace()
    environment = {**os.environ, **(env or {})}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def asleep(*prefix: str) -> contextlib.AbstractContextManager[int]:
    """A program that does nothing in a new network namespace, as `unshare -n` makes it."""
    return running(*prefix, "unshare", "--net", "sleep", "1000")


def inside(pid: int) -> Path:
    return netns.of_process(pid)


def found(agent: Agent, pid: int) -> Record:
    """What the agent knows of the namespace that a process stands for; empty when it knows nothing."""
    return agent.by_path().get(str(inside(pid)), {})


def eventually_is(agent: Agent, pid: int, state: str, timeout: float = SOON) -> Record:
    """What the agent knows, once the namespace is in this state."""

    def is_so() -> Record | None:
        record = found(agent, pid)
        return record if record.get("state") == state else None

    record = eventually(is_so, timeout, f"the namespace of process {pid} is {state}")
    assert record is not None
    return record


def namespaces_of_processes(agent: Agent) -> list[Record]:
    """All that processes stand for, but for those that somebody else has networked: the internet is one."""
    return [
        record
        for record in agent.by_path().values()
        if record["source"] == "process" and not record["rule"].startswith("has a device")
    ]


def eventually_nothing_is_left(agent: Agent, timeout: float = SOON) -> None:
    """No device, lease, set element or tracked connection, and no memory of a namespace."""

    def traces() -> list[object]:
        status, answer = agent.ask("/v1/status")
        assert status == 200, answer
        return [
            *observe.host_ends(),
            *(record["name"] for record in namespaces_of_processes(agent)),
            *(network["name"] for network in answer["networks"] if network["leases"]),
            *(line for line in observe.conntrack_list() if "src=172.27." in line and f"src={GATEWAY4} " not in line),
            *set_elements(),
        ]

    eventually(lambda: not traces(), timeout, "nothing is left")
