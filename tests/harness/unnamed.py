"""Programs in network namespaces that no file names, and what the agent says of them."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.demo.isolation import refuse_initial_namespace
from agent.demo.process import Record
from tests.harness import netns, observe
from tests.harness.running import Agent
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


@contextlib.contextmanager
def asleep(*options: str) -> Iterator[int]:
    """A program that does nothing, and is in a new network namespace by now: ``options`` are unshare's."""
    host = os.stat("/proc/thread-self/ns/net").st_ino
    with running("unshare", "--net", *options, "sleep", "1000") as pid:
        eventually(lambda: os.stat(inside(pid)).st_ino != host, SOON, "it is in a namespace of its own")
        yield pid


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


class Traces:
    """What namespaces leave in the host and in the agent, apart from what was there when this was made."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._files = self._count_files()
        self._before = _set_elements()

    def left(self) -> list[object]:
        status, answer = self._agent.ask("/v1/status")
        assert status == 200, answer
        files = self._count_files() - self._files
        return [
            *observe.host_ends(),
            *(record["name"] for record in namespaces_of_processes(self._agent)),
            *(f"{network['leases']} leases" for network in answer["networks"] if network["leases"]),
            *(line for line in observe.conntrack_list() if re.search(r"=172\.27\.0\.(?!1 )", line)),
            *(_set_elements() - self._before),
            *([f"{files} open files"] if files > 0 else []),
        ]

    def eventually_gone(self, timeout: float = SOON) -> None:
        left: list[object] = []

        def is_gone() -> bool:
            left[:] = self.left()
            return not left

        try:
            eventually(is_gone, timeout, "nothing is left")
        except AssertionError as error:
            raise AssertionError(f"{error}: {left[:20]}") from None

    def _count_files(self) -> int:
        return len(os.listdir(f"/proc/{self._agent.pid}/fd"))


def _set_elements() -> set[str]:
    """All but those that go by themselves after a while."""
    sets = [item[kind] for item in observe.nft_json() for kind in ("set", "map") if kind in item]
    elements = ((found["name"], element) for found in sets for element in found.get("elem", []))
    return {f"{name}: {observe.key(element)}" for name, element in elements if "'expires'" not in str(element)}
