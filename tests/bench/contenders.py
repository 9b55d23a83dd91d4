"""Who networks namespaces: what all contenders have in common, and vethd."""

import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from agent.demo.private_host import PrivateHost
from tests.bench.eyes import Eyes
from tests.harness.expect import GATEWAY4
from tests.harness.running import Agent


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
        """Have a new namespace networked; returns when it is, as far as its user can tell."""

    @abstractmethod
    def release(self, netns: str, number: int) -> None:
        """What has to be done before the namespace is deleted."""


class Vethd(Contender):
    """The agent by its real command line, told nothing."""

    title = "vethd"
    gateway = GATEWAY4
    agent: Agent

    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        self.agent = stack.enter_context(Agent(host, Path(directory)).running())

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        eyes.await_usable()

    def release(self, netns: str, number: int) -> None:
        """Nothing: the agent sees that the name is gone."""
