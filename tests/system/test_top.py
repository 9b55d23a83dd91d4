"""``vethd top`` against a running agent, on pipes and on a terminal."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.demo import internet, uplink
from tests.harness import netns, observe
from tests.harness.expect import DEVICE
from tests.harness.running import Agent
from tests.harness.waiting import eventually

HOSTILE = "[red]\x1b[31m\n"
_TIMEOUT = 10.0


@pytest.fixture
def web(agent: Agent) -> Agent:
    """The agent, with two namespaces networked: web and one of a hostile name."""
    for name in ("web", HOSTILE):
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


class Screen:
    """A terminal of 120 columns and 30 lines with a program on it."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 120))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        # The terminal's own size counts, not what the test runner says of its own.
        env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        env["TERM"] = "xterm-256color"
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        self.shown = ""

    def until(self, pattern: str) -> None:
        """Read on until what came since the last time matches."""
        deadline = time.monotonic() + _TIMEOUT
        while not re.search(pattern, self.shown):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.shown[-2000:]!r}"
            if select.select([self._ours], [], [], left)[0]:
                self.shown += os.read(self._ours, 65536).decode()
        self.shown = ""

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self) -> int:
        """The exit code; the terminal must be as it was."""
        self.until(re.escape("\x1b[?1049l"))
        code = self.process.wait(_TIMEOUT)
        assert termios.tcgetattr(self._theirs) == self.before
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextlib.contextmanager
def on_screen(agent: Agent, *more: str) -> Iterator[Screen]:
    screen = Screen(agent.command("top", "--interval", "0.1", *more))
    try:
        yield screen
    finally:
        screen.close()


def carried(agent: Agent, name: str) -> dict[str, Any]:
    status, answer = agent.ask("/v1/traffic")
    assert status == 200
    (found,) = [each for each in answer["namespaces"] if each["name"] == name]
    return dict(found)


def counters(name: str) -> tuple[int, ...]:
    seen = observe.run("ip", "-json", "-stats", "link", "show", "dev", DEVICE, netns=name)
    found = json.loads(seen)[0]["stats64"]
    return tuple(found[side][counter] for counter in ("bytes", "packets") for side in ("rx", "tx"))


def test_the_agent_tells_what_the_namespace_sees(web: Agent) -> None:
    netns.tcp_connect("web", uplink.BEYOND4, internet.ECHO_PORT)

    def told() -> tuple[int, ...]:
        found = carried(web, "web")
        return tuple(found[f"{side}_{counter}"] for counter in ("bytes", "packets") for side in ("receive", "transmit"))

    # The connection's end may still be under way.
    eventually(lambda: told() == counters("web"), 5, "the agent tells what `ip` tells")
    assert min(told()) > 0
    found = carried(web, "web")
    assert (found["network"], found["device"]) == ("default", web.namespaces()["web"]["device"])


def test_once(web: Agent) -> None:
    shown = web.cli("top", "--once", "--interval", "0.1", "--sort", "name")
    assert shown.returncode == 0, shown.stderr
    heading, first, second = shown.stdout.splitlines()
    assert heading.split()[:4] == ["NAME", "NETWORK", "RECEIVES", "SENDS"]
    assert first.startswith("[red]\\e[31m\\n  default")
    assert second.startswith("web ")


def test_json_tells_rates_that_add_up_to_what_was_sent(web: Agent) -> None:
    told: list[dict[str, Any]] = []

    def read_on(lines: netns.Lines) -> dict[str, Any]:
        line = json.loads(lines.readline())
        (found,) = [each for each in line["namespaces"] if each["name"] == "web"]
        assert {each["name"] for each in line["namespaces"]} == {"web", HOSTILE}
        told.append({"sent": found["transmit_bytes_per_second"] * line["seconds"], **found})
        return dict(found)

    with netns.reading(web.command("top", "--json", "--interval", "0.1")) as lines:
        first = read_on(lines)["transmit_bytes"]
        netns.tcp_connect("web", uplink.BEYOND4, internet.ECHO_PORT)
        now = carried(web, "web")["transmit_bytes"]
        eventually(lambda: read_on(lines)["transmit_bytes"] >= now, _TIMEOUT, "what was sent is told")
    assert now > first
    assert sum(each["sent"] for each in told[1:]) == pytest.approx(told[-1]["transmit_bytes"] - first, abs=1)


def test_the_screen_sorts_by_keys_and_ends_by_q(web: Agent) -> None:
    with on_screen(web) as screen:
        screen.until(r"2 namespaces receive .* by use")
        screen.until(r"\[red\]\\e\[31m\\n")
        screen.press(b"n")
        screen.until("by name")
        screen.press(b"q")
        assert screen.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_puts_the_terminal_back(web: Agent, number: signal.Signals) -> None:
    with on_screen(web, "--sort", "name") as screen:
        screen.until("by name")
        screen.process.send_signal(number)
        assert screen.end() == 0


def test_sigterm_ends_it_on_a_pipe(web: Agent) -> None:
    command = web.command("top", "--interval", "0.1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("NAME")
        process.send_signal(signal.SIGTERM)
        assert process.wait(_TIMEOUT) == 0


def test_it_ends_with_4_when_the_agent_does(web: Agent) -> None:
    with on_screen(web) as screen:
        screen.until("2 namespaces")
        web.stop()
        assert screen.end() == 4
