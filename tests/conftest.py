"""Fixtures of the system tests, and the check that the suite leaves the machine as it was.

`private_host` is the ground under every system test: it raises where it cannot be had (no root,
say), so that such a test fails; it is never skipped.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.demo.isolation import in_initial_namespace
from agent.demo.private_host import PrivateHost
from tests.harness import machine
from tests.harness.running import Agent, Tables

_BEFORE = pytest.StashKey[machine.Snapshot]()
_LEFT_BEHIND = pytest.StashKey[list[str]]()


class StartAgent(Protocol):
    """Start an agent in the test's private host; `tables` are laid over the default config."""

    def __call__(self, tables: Tables | None = None, *, start: bool = True) -> Agent: ...


def pytest_configure() -> None:
    """What a shell runs in the background ignores these, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def private_host() -> Iterator[PrivateHost]:
    """A new `PrivateHost`, in which the test's thread and all that it starts are."""
    with PrivateHost() as host:
        yield host
    assert in_initial_namespace()


@pytest.fixture
def start_agent(private_host: PrivateHost, tmp_path: Path) -> Iterator[StartAgent]:
    """Start agents with a config of the test's own, all with one state directory."""
    agents: list[Agent] = []

    def start_one(tables: Tables | None = None, *, start: bool = True) -> Agent:
        agents.append(Agent(private_host, tmp_path, tables))
        return agents[-1].start() if start else agents[-1]

    yield start_one
    for agent in agents:
        agent.close()
        # Shown by pytest when the test has failed.
        sys.stdout.write(agent.tail(80))


@pytest.fixture
def agent(start_agent: StartAgent) -> Agent:
    """An agent with the default config, ready."""
    return start_agent()


def _is_controller(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    if _is_controller(session.config):
        machine.mark_processes()
        session.config.stash[_BEFORE] = machine.snapshot()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the workers have been sent away: is anything left, is anything changed?"""
    before = session.config.stash.get(_BEFORE, None)
    if before is None:
        return
    left = machine.await_end_of_processes() + machine.differences(before, machine.snapshot())
    session.config.stash[_LEFT_BEHIND] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(_LEFT_BEHIND, None)
    if left is None:
        return
    if left:
        terminalreporter.section("the machine is not as it was", red=True, bold=True)
        for line in left:
            terminalreporter.line(line, red=True)
    else:
        terminalreporter.line(
            "nothing left behind: processes, mounts, namespaces, devices, rules and files are as before"
        )
