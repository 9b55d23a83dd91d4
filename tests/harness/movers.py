"""Programs of a test that are in network namespaces without a name."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from agent.demo.isolation import refuse_initial_namespace
from tests.harness import moving
from tests.harness.netns import Lines


class Mover:
    """One run of `tests.harness.moving`: ``pid`` is inside since ``since`` (seconds, monotonic clock)."""

    def __init__(self, way: str, *arguments: str) -> None:
        refuse_initial_namespace()
        command = [sys.executable, "-I", "-S", moving.__file__, way, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.pid, self.since = self.said()

    @property
    def path(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    def said(self) -> tuple[int, float]:
        """The next process that it says to be inside, and since when."""
        assert self.process.stdout is not None
        pid, since = Lines(self.process.stdout).readline().split()
        return int(pid), float(since)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def end(self) -> None:
        """End the program and all that it has made, by closing their input."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(10)

    def kill(self) -> None:
        """End the program alone."""
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def moved(way: str, *arguments: str) -> Iterator[Mover]:
    mover = Mover(way, *arguments)
    try:
        yield mover
    finally:
        mover.end()
