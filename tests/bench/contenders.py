"""Who networks namespaces: what all contenders have in common, and vethd."""

import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from agent.demo.private_host import PrivateHost
from tests.bench.eyes import Eyes, NotUsable
from tests.harness.expect import GATEWAY4
from tests.harness.running import Agent, Tables
from tests.harness.waiting import eventually

_FORGOTTEN_TIMEOUT = 60.0
_ALL_FORGOTTEN_TIMEOUT = 180.0


class Contender(ABC):
    """One way to network a namespace; everything is called in its private host, on one thread."""

    title: ClassVar[str]
    gateway: ClassVar[str]
    program: ClassVar[Path | None] = None
    """What must be installed for it."""

    @abstractmethod
    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        """Whatever is done once a host; `stack` ends it."""

    @abstractmethod
    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        """Have a new namespace networked; returns when `eyes` see it and whoever was called has returned."""

    @abstractmethod
    def release(self, netns: str, number: int) -> None:
        """What has to be done before the namespace is deleted."""

    def await_forgotten(self, netns: str) -> None:  # noqa: B027  nobody else keeps more than the kernel's objects
        """Until nothing is left of a deleted namespace whose host end is gone."""


class Vethd(Contender):
    """The agent by its real command line, told nothing."""

    title = "vethd"
    gateway = GATEWAY4
    tables: ClassVar[Tables] = {}
    agent: Agent
    _mark = 0

    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        self.agent = stack.enter_context(Agent(host, Path(directory), self.tables).running())

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        try:
            eyes.await_usable()
        except NotUsable as failure:
            told = self.agent.ask("/v1/explain", {"name": netns}), self.agent.ask("/v1/status")
            raise NotUsable(f"{failure}; the agent says {told}; its last lines:\n{self.agent.tail()}") from failure

    def release(self, netns: str, number: int) -> None:
        """Nothing: the agent sees that the name is gone."""
        self._mark = self.agent.mark()

    def await_forgotten(self, netns: str) -> None:
        """The agent says so when set elements, neighbours and connections are gone and the lease is free."""
        self.agent.wait_event("removed", timeout=_FORGOTTEN_TIMEOUT, since=self._mark, name=netns)

    def await_only(self, count: int) -> None:
        """Until the agent has forgotten all but so many namespaces."""
        eventually(lambda: self._leases() == count, _ALL_FORGOTTEN_TIMEOUT, f"all but {count} are forgotten")

    def _leases(self) -> int:
        return int(self.agent.ask("/v1/status")[1]["networks"][0]["leases"])


class OnTheEdge(Vethd):
    """With two ports on its bridge, so that of a few namespaces some are routed."""

    tables: ClassVar[Tables] = {"network.default": {"bridge_ports": 2}}
