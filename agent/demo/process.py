"""The real agent as a process of its own, and what it logs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from agent.demo.private_host import PrivateHost

Record = dict[str, Any]
READY_TIMEOUT = 30.0
EVENT_TIMEOUT = 10.0
STOP_TIMEOUT = 2.5


class AgentProcess:
    """`vethd run` by its real command line in a private host, over and over: `start`, `stop`, `kill`.

    What it writes is kept across restarts: `lines` as they came, `records` those that are JSON.
    """

    def __init__(self, host: PrivateHost, config: Path) -> None:
        self._host = host
        self.config = config
        self.process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        self.records: list[Record] = []
        self._grown = threading.Condition()
        self._reader: threading.Thread | None = None

    def start(self, *, ready: bool = True, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Self:
        """Start it, and unless told otherwise wait for its `ready`. `prefix`: a tracer's command."""
        assert self.process is None, "already running"
        mark = self.mark()
        self.process = self._host.spawn(
            [*prefix, *self.command("run"), "--config", str(self.config), "--log-format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,))
        self._reader.start()
        if ready:
            self.wait_event("ready", timeout=READY_TIMEOUT, since=mark)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None, "not running"
        return self.process.pid

    def stop(self) -> float:
        """SIGTERM; seconds it took. Fails unless it ended by itself, well, and in time."""
        process = self._running()
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still there {STOP_TIMEOUT} s after SIGTERM") from None
        took = time.monotonic() - begin
        self._ended()
        assert code == 0, f"exit code {code} after SIGTERM"
        return took

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._running().kill()
        self.wait_end()

    def wait_end(self, timeout: float = READY_TIMEOUT) -> int:
        """The exit code of a process that ends by itself."""
        code = self._running().wait(timeout)
        self._ended()
        return code

    def close(self) -> None:
        if self.process is not None:
            self.kill()

    def mark(self) -> int:
        """A place in the log: `wait_event(..., since=mark)` looks only behind it."""
        with self._grown:
            return len(self.records)

    def wait_event(self, event: str, timeout: float = EVENT_TIMEOUT, since: int = 0, **fields: object) -> Record:
        """The first log record named `event` that has all of `fields`."""

        def found() -> Record | None:
            for record in self.records[since:]:
                if record.get("event") == event and fields.items() <= record.items():
                    return record
            if self._reader is not None and not self._reader.is_alive():
                raise AssertionError(f"the agent ended before {event!r} {fields}; its last lines:\n{self.tail()}")
            return None

        deadline = time.monotonic() + timeout
        with self._grown:
            while (record := found()) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no {event!r} {fields} within {timeout} s; last lines:\n{self.tail()}")
                self._grown.wait(min(left, 0.2))
            return record

    def events(self, event: str, since: int = 0, **fields: object) -> list[Record]:
        with self._grown:
            return [r for r in self.records[since:] if r.get("event") == event and fields.items() <= r.items()]

    def tail(self, count: int = 15) -> str:
        return "\n".join(self.lines[-count:])

    def cli(self, *args: str | bytes, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command of the real command line in the host."""
        return subprocess.run(
            [*self.command(), *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "VETHD_CONFIG": str(self.config)},
        )

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "agent", *args]

    def _running(self) -> subprocess.Popen[str]:
        assert self.process is not None, "not running"
        return self.process

    def _ended(self) -> None:
        process, reader = self._running(), self._reader
        process.wait()
        assert reader is not None
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
        self.process = self._reader = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if isinstance(record, dict):
                    self.records.append(record)
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()
