"""The floor: the least that networks a namespace, done in vethd's own host among all that it has there."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.demo.isolation import add_named, delete_named
from tests.bench.contenders import Vethd
from tests.bench.eyes import Eyes, await_gone
from tests.bench.ground import Ground
from tests.bench.quiet import await_quiet
from tests.bench.results import FloorTrial
from tests.harness.expect import BRIDGE, GATEWAY4, GATEWAY6, SUBNET4, SUBNET6

# Out of the agent's sight.
_DIRECTORY = Path("/run/floor")
_HOST_END = "floor0"
# Of the network's subnets, and not to be leased while anything is measured.
_ADDRESS4, _ADDRESS6 = IPv4Interface("172.27.255.9/16"), IPv6Interface("fd00:7e74:1::ffff/64")


class FloorFailed(Exception):
    """The program did not do its work; the message is what it said."""


class Floor:
    """The program, running in the host of a ground; a context manager.

    The agent is halted while the program works: the kernel's state is that which vethd works in, and
    nothing is done but this.
    """

    def __init__(self, program: Path, ground: Ground[Vethd]) -> None:
        self._ground = ground
        arguments = (BRIDGE, GATEWAY4, SUBNET4.partition("/")[2], GATEWAY6, SUBNET6.partition("/")[2])
        self._process = subprocess.Popen(
            [str(program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        _DIRECTORY.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def trial(self, *, routed: bool, connecting: bool = False) -> FloorTrial:
        """The life of one namespace; `connecting` to see whether it is networked indeed. Raises FloorFailed."""
        await_quiet()
        path = _DIRECTORY / self._ground.new_name()[1]
        with _halted(self._ground.contender.agent.pid):
            add_named(path)
            begin = time.perf_counter()
            with Eyes(path) as eyes:
                self._ask(path, "routed" if routed else "port")
                eyes.await_usable()
                usable = time.perf_counter() - begin
                work = self._answer()
                host_end = eyes.host_end()
                if connecting and max(eyes.connect(self._ground.targets)) > 4:
                    raise FloorFailed("what the floor has networked reaches nobody")
            delete_named(path)
            await_gone([host_end])
        return FloorTrial(usable, work)

    def _ask(self, path: Path, shape: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path} {_HOST_END} {_ADDRESS4.ip} {_ADDRESS6.ip} {shape}\n".encode())

    def _answer(self) -> float:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().decode().strip()
        if not answer.isdecimal():
            raise FloorFailed(f"the floor: {answer or 'the program has ended'}")
        return int(answer) / 1e9


@contextmanager
def _halted(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
