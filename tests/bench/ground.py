"""Where one contender is measured: a private host of its own, and the namespaces in it."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from agent.demo.internet import ECHO_PORT
from agent.demo.isolation import add_named, delete_named, prepare_netns_dir
from agent.demo.private_host import PrivateHost
from agent.demo.uplink import BEYOND4
from tests.bench.contenders import Contender
from tests.bench.eyes import Eyes, await_gone
from tests.bench.quiet import ALL_GONE_SECONDS, await_quiet
from tests.bench.results import Connects, Trial
from tests.harness import netns

_PORT = 7000

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Contender)


class Ground(Generic[C]):
    """A context manager; to be used by one thread, which is in the private host meanwhile."""

    def __init__(self, contender: C) -> None:
        self.contender = contender
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self._host_ends: dict[str, int] = {}
        self._given_up = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.host = stack.enter_context(PrivateHost())
            prepare_netns_dir()
            self.contender.prepare(self.host, stack)
            self._listener = stack.enter_context(netns.listen(None, "0.0.0.0", _PORT))
            self._listener.setblocking(False)
            # What is left would be taken down by the kernel, but while others are being measured.
            stack.callback(self._delete_all)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """Of the namespaces that are there, the oldest first."""
        return list(self._host_ends)

    @property
    def targets(self) -> list[tuple[str, int]]:
        """Who answers a TCP connect: the host by its gateway's address, and somebody beyond the NAT."""
        return [(self.contender.gateway, _PORT), (BEYOND4, ECHO_PORT)]

    def new_name(self) -> tuple[int, str]:
        number = next(self._numbers)
        return number, f"n{number}"

    def note(self, name: str, eyes: Eyes) -> None:
        """A namespace is there, and networked."""
        self._host_ends[name] = eyes.host_end()

    def fill(self, level: int, seconds: float) -> list[Connects]:
        """Have `level` networked namespaces there, or as many as there are after `seconds`; their first packets."""
        connects = []
        deadline = time.monotonic() + seconds
        while len(self._host_ends) < level and time.monotonic() < deadline and not self._given_up:
            connects.append(self.add())
        return connects

    def give_up(self) -> None:
        """Have `fill` end early: somebody wants to go. To be called from any thread."""
        self._given_up = True

    def add(self) -> Connects:
        """One more namespace, and its first packets."""
        number, name = self.new_name()
        add_named(name)
        with Eyes(name) as eyes:
            self.contender.network(name, number, eyes)
            connects = self._connect(number, eyes)
            self.note(name, eyes)
        return connects

    def trial(self) -> Trial:
        """The life of one namespace."""
        await_quiet()
        number, name = self.new_name()
        add_named(name)
        begin = time.perf_counter()
        with Eyes(name) as eyes:
            self.contender.network(name, number, eyes)
            usable = time.perf_counter() - begin
            connects = self._connect(number, eyes)
            host_end = eyes.host_end()
        begin = time.perf_counter()
        self.contender.release(name, number)
        delete_named(name)
        await_gone([host_end])
        gone = time.perf_counter() - begin
        self.contender.await_forgotten(name)
        return Trial(usable, connects, gone, time.perf_counter() - begin)

    def delete(self, names: Iterable[str]) -> None:
        """Without waiting until anything is gone."""
        for name in names:
            delete_named(name)
            del self._host_ends[name]

    def delete_and_wait(self, names: list[str]) -> float:
        """Seconds from the beginning until all their host ends are gone."""
        host_ends = [self._host_ends[name] for name in names]
        begin = time.perf_counter()
        self.delete(names)
        await_gone(host_ends)
        return time.perf_counter() - begin

    def _delete_all(self) -> None:
        self.delete_and_wait(self.names)
        await_quiet(ALL_GONE_SECONDS)

    def _connect(self, number: int, eyes: Eyes) -> Connects:
        """In turns the one and the other target is the first that the namespace sends anything to."""
        if number % 2:
            beyond, gateway = eyes.connect(self.targets[::-1])
        else:
            gateway, beyond = eyes.connect(self.targets)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
        return Connects(gateway, beyond)


class Apart(Generic[C]):
    """A ground on a thread of its own, so that several can stand side by side. A context manager."""

    def __init__(self, contender: C) -> None:
        self.ground = Ground(contender)
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._thread)
            self._thread.submit(self.ground.__enter__).result()
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ground.give_up()
        with self._thread:
            self._thread.submit(self.ground.__exit__, kind, error, trace).result()

    def start(self, method: Callable[Concatenate[Ground[C], P], R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function of the ground done over there."""
        return self._thread.submit(method, self.ground, *args, **kwargs)
