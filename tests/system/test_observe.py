"""Looking without touching: `mode = "observe"`, and `run --dry-run`."""

import subprocess
import sys

import pytest

from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import GATEWAY4
from tests.harness.waiting import eventually

OBSERVING = {"agent": {"mode": "observe"}}


def whole_host(*names: str) -> list[object]:
    """Everything of the host and of some namespaces that a change could have hit."""
    seen: list[object] = [observe.nft_text()]
    for name in (None, *names):
        for family in ("-4", "-6"):
            routes = observe.ip_json(family, "route", "show", "table", "all", netns=name)
            # The uplink's link-local address comes some time after the uplink.
            seen.append(sorted(str(route) for route in routes if not route["dst"].startswith("fe80")))
        seen.append(
            sorted((link["ifname"], link.get("ifalias"), *link["flags"]) for link in observe.links(name).values())
        )
        seen.append(observe.run("ip", "-o", "address", "show", "scope", "global", netns=name))
    seen += [observe.sysctl(setting) for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")]
    return seen


def test_observing_changes_nothing_at_all(start_agent: StartAgent) -> None:
    netns.add_netns("before")
    untouched = whole_host("before")
    agent = start_agent(OBSERVING)
    netns.add_netns("web")
    eventually(lambda: "web" in agent.namespaces(), 2, "it is seen")
    eventually(lambda: agent.namespaces()["web"]["state"] == "left", 2, "it is judged")
    netns.del_netns("web")
    eventually(lambda: "web" not in agent.namespaces(), 2, "it is seen to go")
    assert agent.namespaces()["before"]["rule"] == (
        "agent.mode is observe, else: discovery.directories: network default"
    )
    assert whole_host("before") == untouched
    agent.stop()
    assert whole_host("before") == untouched


def test_what_was_networked_before_stays_so(start_agent: StartAgent) -> None:
    agent = start_agent()
    netns.add_netns("web")
    agent.wait_ready("web")
    agent.stop()
    agent.configure(OBSERVING)
    agent.start()
    eventually(lambda: agent.namespaces()["web"]["state"] == "left", 2, "it is judged")
    assert netns.ping("web", GATEWAY4) == 1


# Every start loads them, whatever is there.
RULES = "host: load the nftables tables inet vethd and bridge vethd"


def dry_run(config: str) -> list[str]:
    command = [sys.executable, "-m", "agent", "run", "--dry-run", "--config", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_dry_run_tells_what_a_run_would_do_and_does_nothing(
    private_host: PrivateHost, start_agent: StartAgent
) -> None:
    agent = start_agent(start=False)
    for name in ("cni-1", "web", "db"):
        netns.add_netns(name)
    observe.run("ip", "link", "add", "theirs", "type", "veth", "peer", "name", "net1", "netns", "db")
    before = whole_host("web", "db")
    told = dry_run(str(agent.config))
    assert whole_host("web", "db") == before
    host = [line for line in told if line.startswith("host: ")]
    assert host[:4] == [
        "host: make the bridge vethd0",
        "host: set up the bridge vethd0",
        "host: give vethd0 the address 172.27.0.1/16",
        "host: give vethd0 the address fd00:7e74:1::1/64",
    ]
    assert "host: write 1 to net/ipv4/ip_forward" in host
    assert host[-1] == RULES
    assert told[len(host) :] == [
        'cni-1: left alone: discovery.exclude: "cni-*"',
        "db: left alone: has a device of somebody else: net1 (veth)",
        "web: 172.27.0.2 on network default, 20 steps (discovery.directories: network default)",
    ]


def test_a_dry_run_beside_a_running_agent_finds_nothing_to_do(start_agent: StartAgent) -> None:
    agent = start_agent()
    netns.add_netns("web")
    agent.wait_ready("web")
    assert dry_run(str(agent.config)) == [
        RULES,
        "web: 172.27.0.2 on network default, nothing to do (discovery.directories: network default)",
    ]


def network_by_hand(name: str) -> None:
    for command in (
        f"link add theirs type veth peer name eth0 netns {name}",
        "address add 10.5.0.1/24 dev theirs",
        "link set theirs up",
    ):
        observe.run("ip", *command.split())
    for command in ("address add 10.5.0.2/24 dev eth0", "link set eth0 up"):
        observe.run("ip", *command.split(), netns=name)


def carried(name: str) -> tuple[int, int]:
    (link,) = observe.ip_json("-statistics", "link", "show", "eth0", netns=name)
    return link["stats64"]["rx"]["bytes"], link["stats64"]["tx"]["bytes"]


@pytest.mark.parametrize("order", ["before the agent", "after it was seen"])
def test_traffic_of_what_others_network_is_told(start_agent: StartAgent, order: str) -> None:
    netns.add_netns("web")
    if order == "before the agent":
        network_by_hand("web")
    agent = start_agent(OBSERVING)
    if order == "after it was seen":
        eventually(lambda: agent.namespaces()["web"]["state"] == "left", 2, "it is judged")
        network_by_hand("web")
    labels = {"netns": "web", "network": "observed", "device": "theirs"}

    def told(direction: str) -> int:
        return int(agent.metric(f"vethd_network_{direction}_bytes_total", **labels) or 0)

    eventually(lambda: told("transmit") > 0, 2, "it is found")
    before = told("receive")
    assert netns.ping("web", "10.5.0.1", count=5) == 5
    eventually(lambda: (told("receive"), told("transmit")) == carried("web"), 2, "exactly what it carried")
    assert told("receive") > before
    info = agent.metric("vethd_netns_info", netns="web", address="10.5.0.2", device="theirs")
    assert info == 1
    netns.del_netns("web")
    eventually(lambda: agent.metric("vethd_netns_info", netns="web") is None, 2, "it is forgotten")
