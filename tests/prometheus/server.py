"""A real Prometheus in the private host, and what the dashboards ask of it."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from agent.demo.private_host import PrivateHost
from tests.harness.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"
CONFIG = ROOT / "config" / "prometheus.yml"
LISTEN = "127.0.0.1:9090"
_START_SECONDS = 20.0

Series = dict[str, Any]


class Panel(NamedTuple):
    """A panel's query, with Grafana's variables still in it."""

    dashboard: str
    title: str
    expr: str
    instant: bool


def get(listen: str, path: str) -> tuple[int, str]:
    """Status and text of an HTTP server in the private host."""
    connection = http.client.HTTPConnection(listen, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Prometheus:
    """Debian's `prometheus`, with the project's own config in a hurry: it scrapes every half second."""

    def __init__(self, host: PrivateHost, directory: Path, more_targets: tuple[str, ...] = ()) -> None:
        config = CONFIG.read_text(encoding="utf-8").replace("15s", "500ms")
        config = config.replace("../dashboards", str(DASHBOARDS))
        for target in more_targets:
            config += f'  - job_name: "{target}"\n    static_configs:\n      - targets: ["{target}"]\n'
        file = directory / "prometheus.yml"
        file.write_text(config, encoding="utf-8")
        with (directory / "prometheus.log").open("wb") as log:
            command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
            self._process = host.spawn([*command, f"--web.listen-address={LISTEN}"], stdout=log, stderr=log)
        eventually(self._is_ready, _START_SECONDS, "Prometheus is ready")

    def stop(self) -> int:
        """Its exit code."""
        self._process.terminate()
        return int(self._process.wait(20))

    def query(self, expr: str) -> list[Series]:
        """Series of an instant query, now."""
        return list(self._api("query", query=expr)["result"])

    def query_range(self, expr: str, start: float, end: float) -> list[Series]:
        """Series from `start` to `end` (Unix time), a value each half second."""
        return list(self._api("query_range", query=expr, start=start, end=end, step=0.5)["result"])

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._api("rules")["groups"] for rule in group["rules"]]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, "Prometheus has ended; see prometheus.log"
        with contextlib.suppress(OSError):
            return get(LISTEN, "/-/ready")[0] == http.client.OK
        return False

    def _api(self, what: str, **parameters: Any) -> dict[str, Any]:
        status, text = get(LISTEN, f"/api/v1/{what}?{urlencode(parameters)}")
        assert status == http.client.OK, f"{parameters}: {text}"
        return dict(json.loads(text)["data"])


def panels() -> Iterator[Panel]:
    """Every query of both dashboards."""
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield Panel(file.stem, panel["title"], target["expr"], target.get("instant", False))


def filled(expr: str, netns: str) -> str:
    """The query as Grafana sends it, with one namespace chosen and all else left at "All"."""
    values = {"instance": ".*", "network": ".*", "netns": netns, "__rate_interval": "3s", "__range": "1m"}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def metric_names(expr: str) -> set[str]:
    return set(re.findall(r"\b(?:vethd|process)_\w+", expr))
