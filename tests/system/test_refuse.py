"""Point 7: what cannot be done is refused by one line that says what, where and what to do."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, DEVICE, assert_works
from tests.harness.running import Agent
from tests.harness.waiting import eventually

UNPRIVILEGED = ("setpriv", "--reuid=65534", "--clear-groups", "--")


def _refused(agent: Agent, *words: str, code: int = 1, prefix: tuple[str, ...] = ()) -> str:
    """The one line with which a start is refused; it holds all `words`, and the host is untouched."""
    before = _traces()
    agent.start(ready=False, prefix=prefix)
    assert agent.wait_end() == code, agent.tail()
    assert len(agent.lines) == 1, agent.tail()
    assert not [word for word in words if word not in agent.lines[0]], agent.lines[0]
    assert _traces() == before
    return agent.lines[0]


def _traces() -> tuple[object, ...]:
    return (set(observe.links()), observe.nft_json("--stateless"), observe.sysctl("net/ipv4/ip_forward"))


def test_not_root(start_agent: StartAgent) -> None:
    agent = start_agent(start=False)
    # A place that anyone can read.
    agent.config = Path("/run/vethd.toml")
    agent.configure({})
    _refused(agent, "root", prefix=UNPRIVILEGED)


@pytest.mark.parametrize("capability", ["net_admin", "sys_admin"])
def test_a_capability_is_missing(start_agent: StartAgent, capability: str) -> None:
    agent = start_agent(start=False)
    prefix = ("setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}", "--")
    _refused(agent, f"CAP_{capability.upper()}", prefix=prefix)


def test_another_runs_already(start_agent: StartAgent) -> None:
    first = start_agent()
    netns.add_netns("web")
    first.wait_ready("web")
    second = start_agent(start=False)
    _refused(second, "another vethd")
    assert first.ask("/v1/status")[1]["pid"] == first.pid
    assert_works("web")


def test_another_runs_already_with_another_socket(start_agent: StartAgent) -> None:
    start_agent()
    second = start_agent({"agent": {"socket": "/run/other.sock"}, "metrics": {"listen": "127.0.0.1:9999"}}, start=False)
    _refused(second, "another vethd")


def test_a_killed_ones_remains_are_no_hindrance(agent: Agent) -> None:
    agent.kill()
    assert os.path.exists(agent.tables["agent"]["socket"])
    agent.start()


def test_subnet_is_in_use(start_agent: StartAgent) -> None:
    observe.run("ip", "link", "add", "lan0", "type", "bridge")
    observe.run("ip", "link", "set", "lan0", "up")
    observe.run("ip", "address", "add", "172.27.5.1/24", "dev", "lan0")
    _refused(start_agent(start=False), "172.27.0.0/16", "lan0", code=2)


def test_ipv6_subnet_is_in_use(start_agent: StartAgent) -> None:
    observe.run("ip", "link", "add", "lan0", "type", "bridge")
    observe.run("ip", "link", "set", "lan0", "up")
    observe.run("ip", "-6", "route", "add", "fd00:7e74:1::/64", "dev", "lan0")
    _refused(start_agent(start=False), "fd00:7e74:1::/64", "lan0", code=2)


def test_metrics_port_is_taken(start_agent: StartAgent) -> None:
    with netns.listen(None, "127.0.0.1", 9853):
        _refused(start_agent(start=False), "127.0.0.1:9853")


CONFIG_ERRORS = {
    "unknown table": ("[discover]\n", ["discover"]),
    "unknown key": ("[agent]\nstatedir = '/x'\n", ["agent", "statedir"]),
    "no TOML": ("[agent\n", ["TOML"]),
    "overlapping subnets": (
        "[network.a]\nsubnet='10.0.0.0/16'\nbridge='a'\n[network.b]\nsubnet='10.0.1.0/24'\nbridge='b'\nsubnet6=''\n",
        ["overlap"],
    ),
    "bridge name too long": ("[network.default]\nbridge='sixteen-bytes-xx'\n", ["network.default", "bridge", "15"]),
    "no subnet": ("[network.default]\nsubnet='home'\n", ["network.default", "subnet", "home"]),
    "tiny MTU": ("[network.default]\nmtu=60\n", ["network.default", "mtu"]),
    "wrong kind": ("[network.default]\nnat='yes'\n", ["network.default", "nat"]),
    "bad port": ("[network.default]\nhost_access=['tcp/0']\n", ["host_access"]),
    "bad listen": ("[metrics]\nlisten='everywhere'\n", ["metrics", "listen"]),
    "reaches nothing": ("[network.default]\nreach=['nowhere']\n", ["reach", "nowhere"]),
}


@pytest.mark.parametrize("error", CONFIG_ERRORS)
def test_config_errors(start_agent: StartAgent, error: str) -> None:
    agent = start_agent(start=False)
    text, words = CONFIG_ERRORS[error]
    agent.config.write_text(text)
    _refused(agent, str(agent.config), *words, code=2)


def test_config_is_missing(start_agent: StartAgent) -> None:
    agent = start_agent(start=False)
    agent.config.unlink()
    _refused(agent, str(agent.config), code=2)


def test_subnet_is_exhausted(start_agent: StartAgent) -> None:
    """A /29 has 8 addresses: network, gateway and broadcast are not leased."""
    agent = start_agent({"network.default": {"subnet": "172.27.0.0/29"}})
    names = [f"n{number}" for number in range(5)]
    netns.add_many([*names, "late"])
    eventually(lambda: len(agent.namespaces()) == 6, 2, "all are known")
    eventually(lambda: "pending" not in {n["state"] for n in agent.namespaces().values()}, 5, "all are settled")
    (failed,) = [found for found in agent.namespaces().values() if found["state"] == "failed"]
    assert "no free address" in failed["reason"]
    waited = agent.cli("wait", failed["name"], "--timeout", "0.2")
    assert waited.returncode == 1
    assert "no free address" in waited.stderr
    assert set(observe.links(failed["name"])) == {"lo"}
    for name in {*names, "late"} - {failed["name"]}:
        assert_works(name)
    freed = names[0] if failed["name"] != names[0] else names[1]
    netns.del_netns(freed)
    eventually(lambda: agent.namespaces()[failed["name"]]["state"] == "ready", 5, "the address is given to it")
    assert_works(failed["name"])


def test_a_foreign_bridge_has_our_name(start_agent: StartAgent) -> None:
    observe.run("ip", "link", "add", BRIDGE, "type", "bridge")
    _refused(start_agent(start=False), BRIDGE)


def test_a_foreign_device_that_is_no_bridge_has_our_name(start_agent: StartAgent) -> None:
    observe.run("ip", "link", "add", BRIDGE, "type", "veth", "peer", "name", "other")
    _refused(start_agent(start=False), BRIDGE)


def test_a_foreign_device_inside_has_the_name_of_ours(agent: Agent) -> None:
    observe.run("ip", "netns", "add", "first")
    agent.wait_ready("first")
    agent.stop()
    netns.add_netns("web")
    observe.run("ip", "link", "add", DEVICE, "type", "bridge", netns="web")
    agent.start()
    found = agent.namespaces()["web"]
    assert found["state"] == "failed"
    assert DEVICE in found["reason"]
    assert len(found["reason"].splitlines()) == 1
    assert_works("first")
    observe.run("ip", "link", "del", DEVICE, netns="web")
    eventually(lambda: agent.namespaces()["web"]["state"] == "ready", 10, "it is tried again")
    assert_works("web")


def test_bad_usage(start_agent: StartAgent) -> None:
    agent = start_agent(start=False)
    for args in (["no-such-command"], ["wait"], ["run", "--no-such-option"]):
        done = agent.cli(*args)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_demo_without_root(start_agent: StartAgent) -> None:
    agent = start_agent(start=False)
    done = subprocess.run([*UNPRIVILEGED, *agent.command("demo")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "root" in done.stderr
    assert len(done.stderr.splitlines()) == 1
