"""Programs started by vethd's command line and left running: what they say, and what is said to them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.harness.netns import Lines
from tests.harness.running import Agent

# Says "up", then each signal that it gets; ends with 5 at the end of its input.
TELLTALE = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: print(signal.Signals(number).name, flush=True))
print("up", flush=True)
while sys.stdin.readline():
    pass
sys.exit(5)
"""


class Program:
    """A running command line of vethd, or what it became."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self.process = process
        self.input = process.stdin
        self._lines = Lines(process.stdout)

    def line(self) -> str:
        """The next line it says."""
        return self._lines.readline().rstrip("\n")

    def end(self) -> int:
        """Its exit code once it has ended; negative for a signal."""
        return self.process.wait(10)


@contextlib.contextmanager
def running(agent: Agent, *args: str | bytes, config: Path | None = None) -> Iterator[Program]:
    """Run a command line of vethd for the length of the block."""
    env = {**os.environ, "VETHD_CONFIG": str(config or agent.config)}
    command = [*agent.command(), *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env) as process:
        try:
            yield Program(process)
        finally:
            process.kill()
