"""The doctor: each check on facts made up for it, and its eyes and remedies on real firewalls."""

import dataclasses
import json
import os
import re
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from agent import config
from agent.cli.main import main
from agent.demo.private_host import PrivateHost
from agent.doctor import Agent, ConfigFile, Facts, Finding, examine, firewall, gather, host, service, surroundings
from agent.doctor.facts import Destination, Device
from agent.sources.processes import UNFILTERED

STATUS = {"version": "0.1.0", "pid": os.getpid(), "ready": True, "problems": []}
HEALTHY = Facts(
    config=config.load(None),
    config_file=ConfigFile("/etc/vethd/vethd.toml", exists=True, owner=0, mode=0o644, problem=""),
    agent=Agent(STATUS, ""),
    uid=0,
    capabilities=0x1FFFFFFFFFF,
    shares_mounts=True,
    mounts="",
    dead_names=(),
    ruleset=({"table": {"family": "inet", "name": "vethd"}},),
    ruleset_problem="",
    legacy_tables=(),
    sysctls={
        "net.ipv4.ip_forward": 1,
        "net.ipv6.conf.all.forwarding": 1,
        "net.netfilter.nf_conntrack_count": 10,
        "net.netfilter.nf_conntrack_max": 100,
        "net.ipv6.conf.up0.accept_ra": 1,
    },
    devices=(Device("lo", 65536), Device("up0", 1500), Device("vethd0", 1500)),
    routes=(
        Destination(ip_network("0.0.0.0/0"), "up0"),
        Destination(ip_network("::/0"), "up0"),
        Destination(ip_network("172.27.0.0/16"), "vethd0"),
    ),
    programs=frozenset({"systemd"}),
)


def sysctls(**changed: int) -> dict[str, int]:
    return dict(HEALTHY.sysctls) | {name.replace("__", "."): value for name, value in changed.items()}


def found(facts: Facts, finding: str) -> Finding:
    (only,) = [each for each in examine(facts) if each.id == finding]
    return only


def test_a_healthy_host_needs_nothing() -> None:
    assert {finding.severity for finding in examine(HEALTHY)} == {"ok"}


@pytest.mark.parametrize(
    ("finding", "severity", "changed"),
    [
        ("not-root", "critical", {"uid": 1000}),
        ("capabilities", "critical", {"capabilities": 1 << 12}),
        ("config", "critical", {"config_file": ConfigFile("f", exists=True, owner=0, mode=0o644, problem="f: x")}),
        ("config-permissions", "warning", {"config_file": ConfigFile("f", True, 0, 0o664, "")}),
        ("config-permissions", "warning", {"config_file": ConfigFile("f", True, 1000, 0o644, "")}),
        ("agent", "warning", {"agent": Agent(None, "the agent is not running")}),
        ("agent", "info", {"agent": Agent(STATUS | {"ready": False}, "")}),
        ("agent-problem", "warning", {"agent": Agent(STATUS | {"problems": ["the table was flushed"]}, "")}),
        ("process-source", "info", {"agent": Agent(STATUS | {"process_source": UNFILTERED}, "")}),
        ("process-source", "warning", {"agent": Agent(STATUS | {"process_source": "no connector"}, "")}),
        ("wish-file", "warning", {"agent": Agent(STATUS | {"problems": ["wish not taken: a.toml: mtu"]}, "")}),
        ("wish-file", "warning", {"agent": Agent(None, "x"), "wish_problems": ("a.toml: mtu",)}),
        ("mount-propagation", "critical", {"shares_mounts": False, "mounts": "1 0 0:1 / / rw - ext4 a rw"}),
        ("mount-propagation", "info", {"shares_mounts": False, "mounts": None}),
        ("dead-name", "info", {"dead_names": ("/run/netns/x",)}),
        ("nftables", "critical", {"ruleset_problem": "no such file"}),
        ("nftables", "critical", {"ruleset": ()}),
        ("legacy-iptables", "info", {"legacy_tables": ("filter",)}),
        ("bridge-netfilter", "info", {"sysctls": sysctls(**{"net__bridge__bridge-nf-call-iptables": 1})}),
        ("forwarding4", "critical", {"sysctls": sysctls(net__ipv4__ip_forward=0)}),
        ("forwarding6", "critical", {"sysctls": sysctls(net__ipv6__conf__all__forwarding=0)}),
        ("accept-ra", "info", {"routes": HEALTHY.routes[:1]}),
        ("conntrack", "warning", {"sysctls": sysctls(net__netfilter__nf_conntrack_count=80)}),
        ("conntrack", "critical", {"sysctls": sysctls(net__netfilter__nf_conntrack_count=95)}),
        ("subnet-overlap", "critical", {"routes": (Destination(ip_network("172.27.4.0/24"), "tun0"),)}),
        ("subnet-overlap", "critical", {"routes": (Destination(ip_network("172.16.0.0/12"), "tun0"),)}),
        ("subnet-overlap", "critical", {"routes": (Destination(ip_network("fd00:7e74:1::/64"), "tun0"),)}),
        ("uplink", "info", {"routes": ()}),
        ("mtu", "warning", {"devices": (Device("up0", 1400), Device("vethd0", 1500))}),
        ("network-manager", "warning", {"programs": frozenset({"NetworkManager"})}),
        (
            "networkd",
            "warning",
            {"programs": frozenset({"systemd-network"}), "configured": {"/etc/a.network": "[Match]\nName=v*\n"}},
        ),
    ],
)
def test_each_check_finds_what_it_is_for_and_says_what_to_do(
    finding: str, severity: str, changed: dict[str, Any]
) -> None:
    told = found(dataclasses.replace(HEALTHY, **changed), finding)
    assert told.severity == severity
    assert told.fix or told.severity == "info"
    assert "\n" not in told.message + told.fix


@pytest.mark.parametrize(("remark", "told"), [("", ["ok"]), (None, [])])
def test_the_process_source_is_spoken_of_where_rules_ask(remark: str | None, told: list[str]) -> None:
    facts = dataclasses.replace(HEALTHY, agent=Agent(STATUS | {"process_source": remark}, ""))
    assert [finding.severity for finding in service.processes(facts)] == told


def test_a_wish_is_told_once() -> None:
    facts = dataclasses.replace(HEALTHY, agent=Agent(STATUS | {"problems": ["wish not taken: a.toml: mtu"]}, ""))
    assert [finding.message for finding in examine(facts) if "a.toml" in finding.message] == [
        "not in force: a.toml: mtu"
    ]


def test_what_cannot_be_seen_is_not_called_ok() -> None:
    blind = dataclasses.replace(HEALTHY, uid=1000, capabilities=0, ruleset=(), ruleset_problem="it takes root to look")
    assert not {"forward-drop", "nftables"} & {finding.id for finding in examine(blind)}


def test_what_is_off_before_the_agent_has_started_is_no_fault() -> None:
    stopped = dataclasses.replace(HEALTHY, agent=Agent(None, "not running"), sysctls=sysctls(net__ipv4__ip_forward=0))
    assert found(stopped, "forwarding4").severity == "info"
    assert "vethd0 goes on working" in found(stopped, "agent").message


@pytest.mark.parametrize(
    ("mountinfo", "receives"),
    [
        ("22 1 0:20 / /run rw shared:5 - tmpfs tmpfs rw", True),
        ("22 1 0:20 / /run rw master:5 - tmpfs tmpfs rw", True),
        ("22 1 0:20 / /run rw - tmpfs tmpfs rw", False),
        ("22 1 0:20 / /run rw shared:5 - tmpfs t rw\n23 22 0:20 /netns /run/netns rw - tmpfs t rw", False),
        ("22 1 0:20 / /run/net rw - tmpfs t rw\n21 1 8:1 / / rw shared:1 - ext4 /dev/sda rw", True),
    ],
)
def test_the_mount_that_holds_the_directory_decides(mountinfo: str, receives: bool) -> None:
    assert host.propagates(mountinfo, "/run/netns") is receives


SHIPPED = Path(__file__).resolve().parents[2] / "config"


def test_the_drop_ins_that_we_ship_satisfy_the_doctor() -> None:
    facts = dataclasses.replace(
        HEALTHY,
        programs=frozenset({"NetworkManager", "systemd-network"}),
        configured={
            "/etc/NetworkManager/conf.d/90-vethd.conf": (SHIPPED / "networkmanager.conf").read_text(),
            "/etc/systemd/network/10-vethd.network": (SHIPPED / "vethd.network").read_text(),
            "/etc/systemd/network/80-all.network": "[Match]\nName=*\n[Network]\nDHCP=yes\n",
        },
    )
    assert [finding.severity for finding in surroundings.managers(facts)] == ["ok", "ok"]


def test_networkd_with_other_devices_of_its_own_is_no_danger() -> None:
    facts = dataclasses.replace(
        HEALTHY,
        programs=frozenset({"systemd-network"}),
        configured={"/etc/systemd/network/20-wired.network": "[Match]\nName=en* eth0\n[Network]\nDHCP=yes\n"},
    )
    assert [finding.severity for finding in surroundings.managers(facts)] == ["ok"]


def test_the_shipped_config_is_the_built_in_one() -> None:
    shipped = config.load(SHIPPED / "vethd.toml")
    assert dataclasses.replace(shipped, source=None) == config.load(None)


def look(agent: Agent = HEALTHY.agent) -> Facts:
    """The facts of the host that this thread is in."""
    return gather.gather(config.load(None), gather.config_file("/etc/vethd/vethd.toml", ""), agent)


FIREWALLS = {
    "docker": """
        iptables -P FORWARD DROP
        iptables -N DOCKER-USER
        iptables -A FORWARD -j DOCKER-USER
        iptables -A DOCKER-USER -j RETURN
        iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
    """,
    "plain iptables": "iptables -P FORWARD DROP; iptables -A FORWARD -i wg0 -j ACCEPT",
    "ip6tables": "ip6tables -P FORWARD DROP",
    "nft policy": 'nft "add table inet f; add chain inet f pass { type filter hook forward priority 0; policy drop; }"',
    "nft last rule": """
        nft "add table inet f; add chain inet f pass { type filter hook forward priority 0; policy accept; }"
        nft add rule inet f pass ct state established accept
        nft add rule inet f pass counter reject with icmpx admin-prohibited
    """,
}


@pytest.mark.parametrize("firewall_of", FIREWALLS)
def test_a_firewall_that_drops_is_found_and_its_remedy_works(firewall_of: str, private_host: PrivateHost) -> None:
    assert next(firewall.forward_drop(look())).severity == "ok"
    subprocess.run(["sh", "-ec", FIREWALLS[firewall_of]], check=True)
    told = next(finding for finding in firewall.forward_drop(look()) if finding.id == "forward-drop")
    assert told.severity == "critical"
    subprocess.run(["sh", "-ec", told.fix], check=True)
    told = next(finding for finding in firewall.forward_drop(look()) if finding.id == "forward-drop")
    assert told.severity == "ok"


def test_a_policy_of_accept_and_other_hooks_are_no_danger(private_host: PrivateHost) -> None:
    subprocess.run(["sh", "-ec", "iptables -A FORWARD -s 203.0.113.1 -j DROP; iptables -P INPUT DROP"], check=True)
    assert [finding.severity for finding in firewall.forward_drop(look()) if finding.id == "forward-drop"] == ["ok"]


def test_the_facts_of_a_real_host(private_host: PrivateHost) -> None:
    subprocess.run(["sh", "-ec", "ip netns add live; touch -d '1 hour ago' /run/netns/dead"], check=True)
    facts = look()
    assert facts.uplink(4) == "up0"
    assert facts.uplink(6) == "up0"
    assert facts.mtu("up0") == 1500
    assert facts.sysctls["net.ipv4.ip_forward"] == 0
    assert {"net.ipv6.conf.up0.accept_ra", "net.netfilter.nf_conntrack_count"} <= facts.sysctls.keys()
    assert facts.uid == 0
    assert facts.mounts is not None
    assert host.propagates(facts.mounts, "/run/netns")
    assert next(surroundings.subnets(facts)).severity == "ok"
    subprocess.run(["ip", "route", "add", "172.27.9.0/24", "dev", "up0"], check=True)
    assert next(surroundings.subnets(look())).severity == "critical"


def test_a_placeholder_is_told_from_a_namespace(private_host: PrivateHost, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["sh", "-ec", "ip netns add live; touch /run/netns/dead"], check=True)
    assert look().dead_names == ()  # it may become one yet
    monkeypatch.setattr(gather, "SETTLED_SECONDS", 0.0)
    assert look().dead_names == ("/run/netns/dead",)


def test_the_command_exits_1_when_there_is_something_to_do_and_changes_nothing(
    private_host: PrivateHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vethd.toml"
    file.write_text(f'[agent]\nsocket = "{tmp_path}/none"\n')
    before = _state()
    assert main(["doctor", "--config", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "warning   agent: the agent is not running" in shown
    assert "\n          do: " in shown
    assert main(["doctor", "--json", "--config", str(file)]) == 1
    told = json.loads(capsys.readouterr().out)["findings"]
    assert all(set(finding) == {"id", "severity", "message", "fix"} for finding in told)
    assert _state() == before


def test_a_broken_config_is_a_finding_not_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "vethd.toml"
    file.write_text("[agent]\nnonsense = 1\n")
    assert main(["doctor", "--json", "--config", str(file)]) == 1
    told = {finding["id"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert told["config"]["severity"] == "critical"
    assert "agent.nonsense" in told["config"]["message"]


def test_services_own_checks_stand_alone() -> None:
    assert [finding.id for finding in service.agent(HEALTHY)] == ["agent"]


def _state() -> str:
    command = "ip -d link; ip address; ip route; ip -6 route; nft list ruleset; sysctl -a 2>/dev/null | grep forward"
    return subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout


def test_the_readme_tells_of_every_finding() -> None:
    root = SHIPPED.parent
    source = "".join(file.read_text() for file in (root / "agent" / "doctor").glob("*.py"))
    named = set(re.findall(r'Finding\(\s*f?"([^"]+)"', source)) - {"rights"}  # which is never worse than ok
    versions = {name.replace("{version}", version) for name in named for version in "46"}
    readme = (root / "README.md").read_text().partition("## Troubleshooting")[2].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", readme, re.MULTILINE) for name in re.findall("`(.+?)`", row)}
    assert told == versions
