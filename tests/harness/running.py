"""The real agent: its real command line as a process, its logs, its socket, its metrics."""

import contextlib
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from agent.demo.private_host import PrivateHost
from agent.demo.process import AgentProcess, Record

Table = Mapping[str, Any]
Tables = Mapping[str, Table | Sequence[Table]]
METRICS = "127.0.0.1:9853"
SOCKET = "/run/vethd/vethd.sock"
STATE = "/run/vethd.state"


def to_toml(tables: Tables) -> str:
    """Tables by their dotted names; a list of them becomes a block for each: ``{"rule": [{"leave": True}]}``."""
    blocks: list[tuple[str, Table]] = []
    for name, content in tables.items():
        if isinstance(content, Mapping):
            blocks.append((f"[{name}]", content))
        else:
            blocks += [(f"[[{name}]]", table) for table in content]
    return "\n".join(
        f"{head}\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items()) for head, table in blocks
    )


def _value(value: object) -> str:
    """Strings, numbers, truths and lists of them read the same in JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("vethd", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Agent(AgentProcess):
    """One configuration, and the process that runs with it while it runs.

    `tables` are laid over the defaults table by table: ``{"network.default": {"mtu": 1400}}``; a list of
    tables takes the place of the one before.
    `directory` holds the config. State lives in the host's memory, as its disk is not to be waited for;
    `tables` may put it elsewhere.
    """

    def __init__(self, host: PrivateHost, directory: Path, tables: Tables | None = None) -> None:
        super().__init__(host, directory / "vethd.toml")
        self.tables: dict[str, Any] = {
            "agent": {"state_dir": STATE, "socket": SOCKET},
            "metrics": {"listen": METRICS},
        }
        self.configure(tables or {})

    def configure(self, tables: Tables) -> None:
        """Write the config anew, with `tables` laid over what was there."""
        for name, content in tables.items():
            if isinstance(content, Mapping):
                self.tables.setdefault(name, {}).update(content)
            else:
                self.tables[name] = content
        self.config.write_text(to_toml(self.tables))

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """For tests that make their private hosts themselves."""
        try:
            yield self.start()
        finally:
            self.close()

    def ask(self, path: str, body: Record | None = None, timeout: float = 30.0) -> tuple[int, Any]:
        """Status and answer of the control socket: GET, or POST when there is a body."""
        connection = _UnixConnection(self.tables["agent"]["socket"], timeout)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def namespaces(self) -> dict[str, Record]:
        status, answer = self.ask("/v1/namespaces")
        assert status == 200, answer
        return {item["name"]: item for item in answer["namespaces"]}

    def reload(self, tables: Tables) -> Record:
        """Configure, have it read, and wait for what the agent says to that."""
        self.configure(tables)
        mark = self.mark()
        os.kill(self.pid, signal.SIGHUP)
        return self.wait_event("config reloaded", since=mark)

    def by_path(self) -> dict[str, Record]:
        """All namespaces by the files that lead to them."""
        status, answer = self.ask("/v1/namespaces")
        assert status == 200, answer
        return {item["path"]: item for item in answer["namespaces"]}

    def wait_ready(self, name: str | bytes, timeout: float = 10.0) -> Record:
        """Wait as `vethd wait` does; the namespace, which must be networked by then."""
        status, answer = self.ask("/v1/wait", {"name": os.fsdecode(name), "timeout": timeout})
        assert status == 200, answer
        assert answer["outcome"] == "ready", answer
        namespace: Record = answer["namespace"]
        return namespace

    def metrics(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        """Sample name to labels to value, as a scraper in the host gets them."""
        connection = http.client.HTTPConnection(self.tables["metrics"]["listen"], timeout=10)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            text = response.read().decode()
            assert response.status == 200, text
        finally:
            connection.close()
        found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum over all series of `name` that have `labels`; None when there is no such series."""
        series = self.metrics().get(name, {})
        values = [value for having, value in series.items() if labels.items() <= having]
        return sum(values) if values else None


@contextlib.contextmanager
def held_up(agent: Agent) -> Iterator[None]:
    """The agent stands still for the length of the block: what it would have heard queues up, or is lost."""
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent.pid, signal.SIGCONT)
