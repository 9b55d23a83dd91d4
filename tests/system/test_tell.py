"""Point 6: the commands, the logs, the metrics and the health say what is, to people and to programs."""

import http.client
import json
import os
import re
import stat
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, address4, eventually_works, host_end
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import always, eventually

COMMANDS = ["run", "status", "list", "wait", "watch", "top", "doctor", "explain", "down", "check-config", "demo"]


@pytest.fixture
def web(agent: Agent) -> Agent:
    """The agent, with one namespace networked."""
    netns.add_netns("web")
    agent.wait_ready("web")
    return agent


def _get(path: str, accept: str = "*/*") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(METRICS, timeout=5)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_status(web: Agent) -> None:
    shown = web.cli("status")
    assert shown.returncode == 0
    assert all(word in shown.stdout for word in ("172.27.0.0/16", "fd00:7e74:1::/64", "vethd0", uplink.UPLINK))
    found = json.loads(web.cli("status", "--json").stdout)
    assert found["ready"] is True
    assert found["pid"] == web.pid
    assert found["uplink"] == {"device": uplink.UPLINK, "mtu": 1500}
    assert found["namespaces"] == {"ready": 1, "pending": 0, "left": 0, "failed": 0}
    assert found["problems"] == []
    (network,) = found["networks"]
    assert (network["gateway"], network["gateway6"]) == ("172.27.0.1", "fd00:7e74:1::1")
    assert (network["leases"], network["ports"], network["mtu"]) == (1, 1, 1500)
    assert network["capacity"] == 65533


def test_status_of_one(web: Agent) -> None:
    assert address4("web") in web.cli("status", "web").stdout
    found = json.loads(web.cli("status", "web", "--json").stdout)
    assert found["address"] in observe.addresses(DEVICE, "web")
    assert found["address6"] in observe.addresses(DEVICE, "web")
    assert found["device"] == host_end("web")["ifname"]
    assert found["plumb_ms"] > 0
    assert (found["path"], found["source"], found["state"]) == ("/run/netns/web", "named", "ready")
    unknown = web.cli("status", "nobody")
    assert unknown.returncode == 1
    assert len(unknown.stderr.splitlines()) == 1


def test_list(web: Agent) -> None:
    netns.add_netns("cni-x")
    eventually(lambda: "cni-x" in web.namespaces(), 2, "cni-x is known")
    heading, *rows = web.cli("list").stdout.splitlines()
    assert heading.split()[:2] == ["NAME", "STATE"]
    assert {row.split()[0]: row.split()[1] for row in rows} == {"cni-x": "left", "web": "ready"}
    found = json.loads(web.cli("list", "--json").stdout)["namespaces"]
    assert {item["name"]: item["state"] for item in found} == {"cni-x": "left", "web": "ready"}


def test_wait(agent: Agent) -> None:
    waiting = netns.spawn(agent.command("wait", "web", "--timeout", "20"))
    late = agent.cli("wait", "web", "--timeout", "0.2")
    assert late.returncode == 1
    assert len(late.stderr.splitlines()) == 1
    netns.add_netns("web")
    assert waiting.wait(20) == 0
    assert agent.cli("wait", "web").returncode == 0
    assert netns.ping("web", uplink.BEYOND6) == 1


def test_watch(web: Agent) -> None:
    with netns.reading(web.command("watch", "--json")) as watch:
        first = json.loads(watch.readline())
        assert (first["name"], first["initial"]) == ("web", True)
        netns.add_netns("db")
        assert _next(watch, "networked")["name"] == "db"
        observe.run("ip", "route", "del", "default", netns="db")
        assert _next(watch, "repaired")["name"] == "db"
        netns.del_netns("db")
        assert _next(watch, "removed")["name"] == "db"


def _next(watch: netns.Lines, event: str) -> dict[str, object]:
    while True:
        found: dict[str, object] = json.loads(watch.readline())
        if found["event"] == event:
            return found


def test_explain(web: Agent) -> None:
    shown = web.cli("explain", "web")
    assert shown.returncode == 0
    assert "discovery.directories" in shown.stdout
    netns.del_netns("web")
    eventually(lambda: not web.namespaces(), 2, "web is gone")
    eventually(lambda: "removed" in web.cli("explain", "web").stdout, 2, "it is remembered for a while")
    assert web.cli("explain", "never-seen").returncode == 1


def test_doctor(web: Agent) -> None:
    found = json.loads(web.cli("doctor", "--json").stdout)["findings"]
    assert found
    assert not [finding for finding in found if finding["severity"] == "critical"]
    observe.run("nft", "add", "table", "ip", "filter")
    observe.run("nft", "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
    shown = web.cli("doctor")
    assert shown.returncode == 1
    assert "FORWARD" in shown.stdout


@pytest.mark.parametrize("command", ["status", "list", "wait", "watch", "explain"])
def test_without_an_agent_the_commands_say_so(start_agent: StartAgent, command: str) -> None:
    agent = start_agent(start=False)
    done = agent.cli(command, *(["web"] if command in {"wait", "explain"} else []))
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(start_agent: StartAgent, command: str) -> None:
    done = start_agent(start=False).cli(command, "--help")
    assert done.returncode == 0
    assert f"vethd {command}" in done.stdout.partition("example")[2]


def test_check_config(start_agent: StartAgent, tmp_path: Path) -> None:
    agent = start_agent(start=False)
    assert agent.cli("check-config", str(agent.config)).returncode == 0
    assert agent.cli("check-config", "config/vethd.toml").returncode == 0
    broken = tmp_path / "broken.toml"
    broken.write_text("[network.default]\nsubnett = 1\n")
    done = agent.cli("check-config", str(broken))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "subnett" in done.stderr
    assert str(broken) in done.stderr


def test_socket_is_for_root_alone(agent: Agent) -> None:
    assert stat.S_IMODE(os.stat(agent.tables["agent"]["socket"]).st_mode) & 0o077 == 0


def test_health(agent: Agent) -> None:
    assert _get("/healthz")[0] == 200
    assert agent.ask("/healthz")[1]["status"] == "ok"


def test_one_line_of_log_for_each_namespace_and_none_while_nothing_changes(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    networked = agent.wait_event("networked", name="web")
    assert networked["level"] == "info"
    assert networked["address"].startswith(address4("web"))
    assert any(key.endswith("ms") and value > 0 for key, value in networked.items() if isinstance(value, int | float))
    netns.del_netns("web")
    removed = agent.wait_event("removed", name="web")
    assert removed["level"] == "info"
    assert len(agent.events("networked")) == len(agent.events("removed")) == 1
    mark = agent.mark()
    always(lambda: not [r for r in agent.records[mark:] if r["level"] != "debug"], 1.0, "nothing is said")


def test_all_output_is_json_when_asked_for(web: Agent) -> None:
    assert [line for line in web.lines if not line.startswith("{")] == []


def test_metrics_of_the_agent(web: Agent) -> None:
    netns.add_netns("cni-x")
    eventually(lambda: web.metric("vethd_namespaces", state="left") == 1, 2, "the one left alone is counted")
    assert web.metric("vethd_namespaces", network="default", state="ready") == 1
    assert web.metric("vethd_leases", network="default") == 1
    assert web.metric("vethd_lease_capacity", network="default") == 65533
    assert web.metric("vethd_bridge_ports", device="vethd0") == 1
    assert web.metric("vethd_plumb_duration_seconds_count") == 1
    assert web.metric("vethd_build_info") == 1
    assert (web.metric("vethd_reconcile_total") or 0) >= 1
    info = web.metrics()["vethd_netns_info"]
    found = web.namespaces()["web"]
    assert {frozenset(labels): value for labels, value in info.items()} == {
        frozenset(
            {
                "netns": "web",
                "network": "default",
                "source": "named",
                "device": found["device"],
                "address": found["address"].partition("/")[0],
                "address6": found["address6"].partition("/")[0],
            }.items()
        ): 1.0
    }


def test_traffic_is_counted_from_the_namespaces_side(web: Agent) -> None:
    with netns.socket_in("web", uplink.BEYOND4) as sock:
        sock.connect((uplink.BEYOND4, internet.ECHO_PORT))
        sock.sendall(b"x" * 100_000)
        received = 0
        while received < 100_000:
            received += len(sock.recv(65536))
    ways = [(way, unit) for way in ("receive", "transmit") for unit in ("bytes", "packets")]

    def told_and_true() -> bool:
        told = [web.metric(f"vethd_network_{way}_{unit}_total", netns="web") for way, unit in ways]
        (device,) = observe.ip_json("-stats", "link", "show", DEVICE, netns="web")
        return told == [device["stats64"]["rx" if way == "receive" else "tx"][unit] for way, unit in ways]

    eventually(told_and_true, 3, "the metrics say what ip says")
    for way in ("receive", "transmit"):
        assert web.metric(f"vethd_network_{way}_errs_total", netns="web") == 0
        assert web.metric(f"vethd_network_{way}_drop_total", netns="web") is not None
    assert (web.metric("vethd_network_receive_bytes_total", netns="web") or 0) > 100_000


def test_series_go_with_their_namespace_but_totals_stay(web: Agent) -> None:
    netns.ping("web", uplink.BEYOND4, count=3)
    before = web.metric("vethd_network_receive_bytes_total", netns="web") or 0
    netns.del_netns("web")
    eventually(lambda: "web" not in web.namespaces(), 2, "web is gone")
    eventually(lambda: "web" not in _get("/metrics")[2], 2, "no series mentions it")
    assert (web.metric("vethd_network_total_receive_bytes_total", network="default") or 0) >= before


def test_counters_never_go_back_over_a_repair_and_a_restart(web: Agent) -> None:
    name = "vethd_network_receive_bytes_total"
    netns.ping("web", uplink.BEYOND4, count=5)
    seen = [web.metric(name, netns="web") or 0]
    observe.run("ip", "link", "del", host_end("web")["ifname"])
    eventually_works("web")
    seen.append(web.metric(name, netns="web") or 0)
    web.stop()
    web.start()
    seen.append(web.metric(name, netns="web") or 0)
    netns.ping("web", uplink.BEYOND4)
    seen.append(web.metric(name, netns="web") or 0)
    assert seen == sorted(seen)


def test_metrics_are_negotiated(web: Agent) -> None:
    assert _get("/metrics")[1].startswith("text/plain")
    kind, text = _get("/metrics", "application/openmetrics-text; version=1.0.0")[1:]
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_a_hostile_name_cannot_break_the_metrics(agent: Agent) -> None:
    name = 'a"} 1\nevil_metric 1\n\\'
    netns.add_netns(name)
    agent.wait_ready(name)
    assert "evil_metric" not in agent.metrics()
    assert len(agent.metrics()["vethd_network_receive_bytes_total"]) == 1
    assert not re.search("^evil", _get("/metrics")[2], re.MULTILINE)


def test_in_a_pid_namespace_it_knows_its_own_work(start_agent: StartAgent) -> None:
    """The kernel tells who changed nftables by process numbers that mean nothing in there."""
    agent = start_agent(start=False)
    agent.start(prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave"))
    for number in range(3):
        netns.add_netns(f"n{number}")
        agent.wait_ready(f"n{number}")
    assert not agent.metric("vethd_drift_repaired_total")
    assert not agent.events("host-repaired")
    agent.kill()
