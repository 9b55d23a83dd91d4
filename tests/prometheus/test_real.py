"""A running agent, real traffic and trouble, and a real Prometheus that is asked what every panel asks."""

import contextlib
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, host_end
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import eventually
from tests.prometheus.server import Panel, Prometheus, filled, get, metric_names, panels

NODE_EXPORTER = "127.0.0.1:9100"
NAMES = ("web", "db")
LABEL_FLAG = "--collector.netdev.label-ifalias"


@pytest.fixture
def busy(start_agent: StartAgent) -> Iterator[Agent]:
    """An agent with two namespaces that have connections open, in both directions and by two protocols."""
    agent = start_agent({"metrics": {"conntrack_interval": 1}})
    with contextlib.ExitStack() as undo:
        for name in NAMES:
            netns.add_netns(name)
            agent.wait_ready(name)
            sock = undo.enter_context(netns.socket_in(name, uplink.BEYOND4))
            sock.connect((uplink.BEYOND4, internet.ECHO_PORT))
            netns.udp_echo(name, uplink.BEYOND4)
        yield agent


def _trouble(agent: Agent, name: str) -> None:
    """What panels of repairs and of plumbing need to have something to show."""
    before = agent.metric("vethd_drift_repaired_total") or 0
    observe.run("ip", "route", "del", "default", netns="web")
    eventually(lambda: (agent.metric("vethd_drift_repaired_total") or 0) > before, 5, "the route is put back")
    netns.add_netns(name)
    agent.wait_ready(name)
    for each in NAMES:
        netns.udp_echo(each, uplink.BEYOND4)
        netns.tcp_connect(each, uplink.BEYOND4, internet.ECHO_PORT)


def test_every_metric_that_is_asked_for_exists(busy: Agent) -> None:
    _trouble(busy, "more")
    eventually(lambda: busy.metric("vethd_conntrack_entries", netns="web"), 5, "connections are counted")
    exist = set(busy.metrics())
    asked = {name for panel in panels() for name in metric_names(panel.expr)}
    alerts = (Path(__file__).parents[2] / "dashboards" / "alerts.yml").read_text(encoding="utf-8")
    asked |= metric_names(alerts)
    assert len(asked) > 30
    assert asked <= exist


def test_promtool_finds_nothing_wrong_with_the_metrics(busy: Agent) -> None:
    status, text = get(METRICS, "/metrics")
    assert status == 200
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_panel_shows_something(busy: Agent, private_host: PrivateHost, tmp_path: Path) -> None:
    prometheus = Prometheus(private_host, tmp_path)
    begin = time.time()
    eventually(lambda: prometheus.query('up{job="vethd"} == 1'), 10, "the agent was scraped")
    eventually(lambda: prometheus.query('vethd_conntrack_entries{netns="web"}'), 10, "connections were scraped")
    _trouble(busy, "more")
    # A rate takes two scrapes with what happened between them.
    eventually(
        lambda: prometheus.query('rate(vethd_network_transmit_bytes_total{netns="web"}[3s]) > 0'),
        10,
        "Prometheus has seen the traffic",
    )
    eventually(
        lambda: prometheus.query("rate(vethd_drift_repaired_total[3s])"),
        10,
        "Prometheus has seen the repair",
    )
    empty = list(panels())

    def shown() -> bool:
        empty[:] = [panel for panel in empty if not _shows(prometheus, panel, begin)]
        return not empty

    with contextlib.suppress(AssertionError):
        eventually(shown, 10, "every panel shows something")
    assert empty == []
    _check_rules(prometheus)
    assert prometheus.stop() == 0


def _shows(prometheus: Prometheus, panel: Panel, begin: float) -> bool:
    expr = filled(panel.expr, "web" if panel.dashboard == "vethd-namespace" else ".*")
    if panel.instant:
        return any(not math.isnan(float(series["value"][1])) for series in prometheus.query(expr))
    found = prometheus.query_range(expr, begin, time.time())
    return any(not math.isnan(float(value)) for series in found for _, value in series["values"])


def _check_rules(prometheus: Prometheus) -> None:
    """All alerts work on real series, and say what an alert has to."""
    eventually(
        lambda: all(rule["health"] == "ok" for rule in prometheus.rules()),
        10,
        "every alert was evaluated",
    )
    rules = prometheus.rules()
    assert {rule["labels"]["severity"] for rule in rules} == {"warning", "critical"}
    for rule in rules:
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"]), rule["name"]
        assert rule["state"] == "inactive", rule["name"]


def test_prometheus_tells_the_bytes_that_were_sent(busy: Agent, private_host: PrivateHost, tmp_path: Path) -> None:
    prometheus = Prometheus(private_host, tmp_path)
    query = 'vethd_network_transmit_bytes_total{netns="web",network="default"}'
    netns.udp_echo("web", uplink.BEYOND4)

    def seen() -> int:
        found = observe.ip_json("-stats", "link", "show", "dev", DEVICE, netns="web")
        return int(found[0]["stats64"]["tx"]["bytes"])

    def told() -> bool:
        found = prometheus.query(query)
        return bool(found) and int(found[0]["value"][1]) == seen()

    eventually(told, 10, "Prometheus tells what `ip` tells")


@pytest.fixture
def node_exporter(busy: Agent, private_host: PrivateHost) -> str:
    command = ["prometheus-node-exporter", "--collector.disable-defaults", "--collector.netdev", "--collector.netclass"]
    if _has_label_flag():
        command.append(LABEL_FLAG)
    private_host.spawn([*command, f"--web.listen-address={NODE_EXPORTER}"], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return get(NODE_EXPORTER, "/metrics")[0] == 200
        return False

    eventually(answers, 10, "node_exporter answers")
    return NODE_EXPORTER


def test_node_exporter_can_name_the_namespaces_too(
    node_exporter: str, private_host: PrivateHost, tmp_path: Path
) -> None:
    prometheus = Prometheus(private_host, tmp_path, (node_exporter,))
    join = "node_network_receive_bytes_total * on (instance, device) group_left (ifalias) node_network_info"
    found = eventually(
        lambda: {
            series["metric"]["ifalias"]: series["metric"]["device"]
            for series in prometheus.query(f'{join}{{device=~"vh.*"}}')
        },
        10,
        "node_exporter was scraped",
    )
    assert found == {f"vethd:{name}": host_end(name)["ifname"] for name in NAMES}


def test_node_exporter_labels_traffic_by_alias_where_it_can(node_exporter: str) -> None:
    if not _has_label_flag():
        pytest.skip(f"this prometheus-node-exporter has no {LABEL_FLAG}")
    _, text = get(node_exporter, "/metrics")
    for name in NAMES:
        assert f'node_network_receive_bytes_total{{device="{host_end(name)["ifname"]}",ifalias="vethd:{name}"}}' in text


def _has_label_flag() -> bool:
    done = subprocess.run(["prometheus-node-exporter", "--help"], capture_output=True, text=True, check=False)
    assert "--collector.netdev" in done.stdout + done.stderr
    return LABEL_FLAG in done.stdout + done.stderr
