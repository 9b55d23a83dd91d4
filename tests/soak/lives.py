"""How namespaces come and go: fast, in each other's way, half made, held by somebody, under other names."""

import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from agent.demo import internet, uplink
from agent.demo.isolation import (
    MS_BIND,
    NETNS_DIR,
    add_named,
    delete_named,
    mount,
    prepare_netns_dir,
    refuse_initial_namespace,
)
from tests.harness import netns
from tests.harness.running import Agent
from tests.harness.waiting import eventually

# So many are there at a time, at most; whoever asks for more removes the oldest.
_MOST = 60
_AT_ONCE = 100
_HALF_WAY = 0.004
_CATCH_UP = 30.0


class Lives:
    """Makes and removes namespaces as chance has it; a context manager, which leaves none behind.

    ``made`` counts namespaces, ``ways`` how they lived; ``names`` are those that are there now.
    """

    def __init__(self, agent: Agent, seed: int, most: int = _MOST) -> None:
        self._agent = agent
        self._random = random.Random(seed)
        self._most = most
        self._number = 0
        self._holders: list[int | subprocess.Popen[bytes]] = []
        self._placeholders: list[str] = []
        self.names: list[str] = []
        self.made = 0
        self.ways: Counter[str] = Counter()
        self._way: dict[str, tuple[Callable[[], None], int]] = {
            "removed later": (self._plain, 8),
            "removed at once": (self._flash, 4),
            "the same name again": (self._again, 4),
            "renamed": (self._renamed, 2),
            "removed half-way": (self._half_way, 6),
            "never finished": (self._never_finished, 1),
            "held by an open file": (self._held_by_file, 2),
            "held by a process": (self._held_by_process, 1),
            "talking": (self._talking, 4),
        }

    def __enter__(self) -> "Lives":
        prepare_netns_dir()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def live(self, count: int) -> None:
        """Make so many namespaces, and let most of them go."""
        aim = self.made + count
        weights = [weight for _, weight in self._way.values()]
        while self.made < aim:
            (way,) = self._random.choices(list(self._way), weights)
            self._way[way][0]()
            self.ways[way] += 1
            while len(self.names) > self._most:
                self._remove(self.names.pop(self._random.randrange(len(self.names))))
            if len(self._holders) > 5:
                self._let_go(self._holders.pop(0))
            if len(self._placeholders) > 5:
                os.unlink(NETNS_DIR / self._placeholders.pop(0))

    def end(self) -> None:
        """Remove all that are there."""
        while self.names:
            self._remove(self.names.pop())
        while self._holders:
            self._let_go(self._holders.pop())
        while self._placeholders:
            os.unlink(NETNS_DIR / self._placeholders.pop())

    def settle(self) -> None:
        """Wait until the agent has made of it what it should."""
        eventually(self._is_settled, _CATCH_UP, "all that are there are networked, and no others are known")

    def _is_settled(self) -> bool:
        found = {name: each["state"] for name, each in self._agent.namespaces().items() if name.startswith("n")}
        return found == dict.fromkeys(self.names, "ready") | dict.fromkeys(self._placeholders, "pending")

    def _new(self) -> str:
        self._number += 1
        return f"n{self._number}"

    def _make(self, name: str) -> None:
        add_named(name)
        self.made += 1

    def _remove(self, name: str) -> None:
        delete_named(name)

    def _pause(self) -> None:
        # A moment at random, in the midst of the agent's work.
        time.sleep(self._random.random() * _HALF_WAY)

    def _plain(self) -> None:
        name = self._new()
        self._make(name)
        self.names.append(name)

    def _flash(self) -> None:
        name = self._new()
        self._make(name)
        self._remove(name)

    def _again(self) -> None:
        name = self._new()
        self._make(name)
        if self._random.random() < 0.5:
            self._pause()
        self._remove(name)
        self._make(name)
        self.names.append(name)

    def _renamed(self) -> None:
        """As `mv` does not: a file that something is mounted on is busy."""
        former, name = self._new(), self._new()
        self._make(former)
        self._pause()
        refuse_initial_namespace()
        (NETNS_DIR / name).touch(exist_ok=False)
        mount(str(NETNS_DIR / former), str(NETNS_DIR / name), flags=MS_BIND)
        if self._random.random() < 0.5:
            self._pause()
        delete_named(former)
        self.names.append(name)

    def _half_way(self) -> None:
        name = self._new()
        self._make(name)
        self._pause()
        self._remove(name)

    def _never_finished(self) -> None:
        """Who would have mounted the namespace has died."""
        name = self._new()
        (NETNS_DIR / name).touch(exist_ok=False)
        self._placeholders.append(name)

    def _held_by_file(self) -> None:
        name = self._new()
        self._make(name)
        self._holders.append(os.open(NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC))
        self._pause()
        self._remove(name)

    def _held_by_process(self) -> None:
        name = self._new()
        self._make(name)
        with netns.enter(name):
            self._holders.append(netns.spawn(["sleep", "300"]))
        self._remove(name)

    def _let_go(self, holder: int | subprocess.Popen[bytes]) -> None:
        if isinstance(holder, int):
            os.close(holder)
        else:
            holder.kill()
            holder.wait()

    def _talking(self) -> None:
        """It has connections, which go with it, and which it does not live to see the end of."""
        name = self._new()
        self._make(name)
        self.names.append(name)
        with contextlib.suppress(OSError, TimeoutError):
            netns.await_default_route(name, timeout=1.0)
            netns.udp_echo(name, uplink.BEYOND4, timeout=0.2)
            netns.tcp_connect(name, uplink.BEYOND6, internet.ECHO_PORT, timeout=0.2)


def unexplained(agent: Agent, since: int = 0) -> list[str]:
    """Lines of the log above info: in a healthy host there is a reason for none."""
    records = agent.records[since:]
    loud = [record for record in records if record.get("level") not in {"info", "debug"}]
    return [*map(str, loud), *(line for line in agent.lines if "mistake" in line or "Traceback" in line)]


def resident(agent: Agent) -> int:
    """Its own memory in kB."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])
