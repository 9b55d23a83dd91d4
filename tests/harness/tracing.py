"""Faults that a tracer puts into a process that runs: strace(1), -e inject."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from agent.demo.private_host import PrivateHost
from tests.harness.waiting import eventually


@contextlib.contextmanager
def injected(host: PrivateHost, pid: int, calls: str, fault: str) -> Iterator[None]:
    """For the length of the block: ``error=ENOBUFS`` in each of the ``calls``, or ``signal=SIGKILL:when=3``.

    Calls are counted thread by thread.
    """
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={calls}"]
    tracer = host.spawn([*command, "-e", f"inject={calls}:{fault}"])
    try:
        eventually(lambda: _is_traced(pid), 5, "the tracer is there")
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def _is_traced(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return all(re.search(r"TracerPid:\s*[1-9]", task.read_text()) for task in tasks)
