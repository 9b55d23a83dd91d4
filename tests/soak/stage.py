"""Where it happens: a private host, an agent, steady namespaces that talk all the time, and others that come and go."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.demo.isolation import add_named, delete_named, prepare_netns_dir
from agent.demo.private_host import PrivateHost
from agent.reconciler.contest import CONTESTED, DELAY_SECONDS
from tests.harness import observe
from tests.harness.expect import eventually_works
from tests.harness.remains import MOST_THREADS, Held, held, remains
from tests.harness.running import Agent, Tables
from tests.harness.streams import Stream
from tests.harness.waiting import eventually
from tests.soak.lives import Lives, unexplained

# Of the steady ones two are ports of the bridge and two are routed; so are those that come and go, as it happens.
_PORTS = 20
_STEADY_PORTS, _STEADY_ROUTED = ("s1", "s2"), ("s3", "s4")
STEADY = (*_STEADY_PORTS, *_STEADY_ROUTED)
_TABLES: Tables = {"network.default": {"subnet": "172.27.0.0/21", "bridge_ports": _PORTS}}
_SOON = 8.0
_PATIENCE = DELAY_SECONDS + 1.0


class Stage:
    """A context manager; to be used by one thread, which is in the private host meanwhile."""

    def __init__(self, directory: Path, seed: int, environment: Mapping[str, str] | None = None) -> None:
        self._directory = directory
        self._seed = seed
        self._environment = environment or {}
        self._stack = contextlib.ExitStack()
        self._before = Held(0, 0, 0)
        self._streams: dict[str, Stream] = {}
        self._beats = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.host = stack.enter_context(PrivateHost())
            self.agent = Agent(self.host, self._directory, _TABLES)
            stack.callback(self.agent.close)
            self.agent.start(env=self._environment)
            self._make_steady()
            stack.callback(self._close_streams)
            self._open_streams()
            self.lives = stack.enter_context(Lives(self.agent, self._seed))
            self._stack = stack.pop_all()
        self._before = held(self.agent.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def restart(self) -> None:
        """Start an agent that has ended."""
        self.agent.start(env=self._environment)

    def lost(self) -> int:
        """How many packets of the steady ones' streams were lost so far."""
        for stream in self._streams.values():
            stream.await_beats(3)
        return sum(stream.lost() for stream in self._streams.values())

    def beats(self) -> int:
        """How many packets there were to be lost, there and back."""
        return 2 * (self._beats + sum(stream.beats for stream in self._streams.values()))

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """No stream for the length of the block: without rules the host itself resets what it is answered."""
        self._close_streams()
        try:
            yield
        finally:
            self._open_streams()

    def wrongs(self) -> list[str]:
        """Wait until the agent has done what there is to do; what is wrong then, one line each."""
        self.lives.settle()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not remains(self.agent), _SOON, "nothing is left")
        found = [f"left over: {line}" for line in remains(self.agent)]
        found += [f"held twice: {mac}" for mac, count in _addresses().items() if count > 1]
        found += [f"{name} does not work: {why}" for name in STEADY if (why := _why_not_soon(name))]
        problems = self.agent.ask("/v1/status")[1]["problems"]
        # Said for some seconds after the last of many repairs, and true.
        found += [f"told as a problem: {line}" for line in problems if CONTESTED not in line]
        return found

    def leaks(self) -> list[str]:
        """Files and threads of the agent beyond those at its start, once nothing is going on."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: held(self.agent.pid).files <= self._before.files, _SOON, "no file is left open")
        now = held(self.agent.pid)
        found = [f"{now.files} files, {self._before.files} before"] if now.files > self._before.files else []
        return found + ([f"{now.threads} threads"] if now.threads > MOST_THREADS else [])

    def unexplained(self, since: int = 0) -> list[str]:
        return [f"logged: {line}" for line in unexplained(self.agent, since)]

    def mistakes(self) -> list[str]:
        """What the agent logged that no trouble from outside explains."""
        return [f"logged: {line}" for line in self.agent.lines if "mistake" in line]

    def _open_streams(self) -> None:
        for name in STEADY:
            self._streams[name] = Stream(self.host, name)
            self._streams[name].__enter__()

    def _close_streams(self) -> None:
        while self._streams:
            _, stream = self._streams.popitem()
            self._beats += stream.beats
            stream.__exit__(None, None, None)

    def _make_steady(self) -> None:
        prepare_netns_dir()
        fillers = [f"f{number}" for number in range(_PORTS - len(_STEADY_PORTS))]
        for name in (*_STEADY_PORTS, *fillers, *_STEADY_ROUTED):
            add_named(name)
            self.agent.wait_ready(name)
        for name in fillers:
            delete_named(name)
        eventually(lambda: set(self.agent.namespaces()) == set(STEADY), _SOON, "the fillers are gone")


def _why_not_soon(name: str) -> str:
    """What is damaged again and again is repaired once a second at most, and until then it need not work."""
    try:
        eventually_works(name, _PATIENCE)
    except AssertionError as error:
        return str(error)
    return ""


def _addresses() -> Counter[str]:
    """How many host ends carry each address: it stands in the last four bytes of the MAC."""
    return Counter(link["address"][6:] for link in observe.host_ends().values())
