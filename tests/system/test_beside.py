"""Beside others that network namespaces themselves: they are neither touched nor delayed, whatever rules say.

Two hosts do the same by turns, one with vethd on it and, less often, one without.
"""

import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Self, TypeVar

import pytest

from agent.demo.private_host import PrivateHost
from tests.harness import observe
from tests.harness.running import Agent
from tests.system.tools import containers
from tests.system.tools.ground import ground, need, started

T = TypeVar("T")
ROUNDS, COMPARED = 30, 10
PORT = 4321
# Networks all that nobody else does.
FOR_ALL = {"match": {"userns": "any"}, "network": "default"}


def shell(tool: str) -> str:
    """What runs in a container: it tells all that it has, and talks to the host."""
    return f"ip -o -4 address show; ip -4 route; nc {containers.GATEWAYS[tool]} {PORT}"


def podman(_: int) -> str:
    return containers.podman("bridge", shell("podman"))


def lxc(number: int) -> str:
    return containers.lxc("lxc-execute", containers.LXC_VETH, shell("lxc"), f"c{number}")


def cni(number: int) -> str:
    return containers.cni(f"cni-{number}", shell("cni"))


TOOLS: dict[str, tuple[Callable[[int], str], tuple[str, ...]]] = {
    "podman": (podman, ("podman", "conmon")),
    "lxc": (lxc, ("lxc-execute",)),
    "cni": (cni, ("/usr/lib/cni/bridge",)),
}


class Host:
    """A private host with a thread of its own, for the length of a block."""

    def __init__(self, directory: Path, with_vethd: bool) -> None:
        self._directory = directory
        self._with_vethd = with_vethd
        self._thread = ThreadPoolExecutor(1)
        self._stack = contextlib.ExitStack()
        self.agent: Agent | None = None

    def __enter__(self) -> Self:
        self.do(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.do(self._stack.close)
        finally:
            self._thread.shutdown()

    def do(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def timed(self, work: Callable[[int], str], number: int) -> tuple[float, str]:
        def measured() -> tuple[float, str]:
            begin = perf_counter()
            said = work(number)
            return perf_counter() - begin, said

        return self.do(measured)

    def _enter(self) -> None:
        with contextlib.ExitStack() as stack:
            host = stack.enter_context(PrivateHost())
            stack.enter_context(ground())
            containers.make_bridge()
            stack.enter_context(started("busybox", "nc", "-ll", "-p", str(PORT), "-e", "echo", "answered"))
            if self._with_vethd:
                self.agent = stack.enter_context(Agent(host, self._directory, {"rule": [FOR_ALL]}).running())
            self._stack = stack.pop_all()


def others_things() -> list[str]:
    """All of the host that is not vethd's: devices, routes, rules."""
    devices = [name for name in observe.links() if not name.startswith("vethd")]
    # Whether a bridge has carrier depends on when it is asked.
    routes = [line.replace("linkdown", "").strip() for line in observe.run("ip", "route").splitlines()]
    rules = [line for line in observe.run("iptables-save").splitlines() if not line.startswith(("#", ":"))]
    return [*sorted(devices), *sorted(line for line in routes if "vethd" not in line), *rules]


@pytest.mark.serial
@pytest.mark.parametrize("tool", TOOLS)
def test_they_are_neither_touched_nor_delayed(tmp_path: Path, tool: str) -> None:
    work, programs = TOOLS[tool]
    need(*programs)
    with Host(tmp_path, with_vethd=True) as beside, Host(tmp_path, with_vethd=False) as alone:
        took: dict[Host, list[float]] = {beside: [], alone: []}
        for number in range(ROUNDS):
            hosts = (beside, alone) if number % (ROUNDS // COMPARED) == 0 else (beside,)
            for host in hosts:
                seconds, said = host.timed(work, number)
                took[host].append(seconds)
                assert "answered" in said
                assert "172.27." not in said
        assert beside.do(others_things) == alone.do(others_things)
        agent = beside.agent
        assert agent is not None
        assert {str(record["event"]) for record in agent.records} == {"ready"}, (
            "nothing of theirs was ours for a moment"
        )
        assert beside.do(lambda: agent.ask("/v1/status"))[1]["networks"][0]["leases"] == 0
    # The first one makes bridges and rules.
    ours, theirs = (median(took[host][1:]) * 1000 for host in (beside, alone))
    sys.stdout.write(f"{tool}: {ours:.0f} ms beside vethd, {theirs:.0f} ms without: {ours / theirs:.2f}\n")
    # Wide, as the machine may be busy: what is done for each is the same.
    assert ours < 1.5 * theirs
