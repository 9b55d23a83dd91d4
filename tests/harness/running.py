"""The real agent: its real command line as a process, its logs, its socket, its metrics."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from agent.demo.private_host import PrivateHost
from agent.demo.process import AgentProcess, Record

Tables = Mapping[str, Mapping[str, Any]]
METRICS = "127.0.0.1:9853"
SOCKET = "/run/vethd/vethd.sock"
STATE = "/run/vethd.state"


def to_toml(tables: Tables) -> str:
    """Tables by their dotted names; strings, numbers, truths and lists of them read the same in JSON."""
    return "\n".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for table, keys in tables.items()
    )


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

    `tables` are laid over the defaults table by table: ``{"network.default": {"mtu": 1400}}``.
    `directory` holds the config. State lives in the host's memory, as its disk is not to be waited for;
    `tables` may put it elsewhere.
    """

    def __init__(self, host: PrivateHost, directory: Path, tables: Tables | None = None) -> None:
        super().__init__(host, directory / "vethd.toml")
        self.tables: dict[str, dict[str, Any]] = {
            "agent": {"state_dir": STATE, "socket": SOCKET},
            "metrics": {"listen": METRICS},
        }
        self.configure(tables or {})

    def configure(self, tables: Tables) -> None:
        """Write the config anew, with `tables` laid over what was there."""
        for table, keys in tables.items():
            self.tables.setdefault(table, {}).update(keys)
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
