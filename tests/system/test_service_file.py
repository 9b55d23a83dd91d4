"""The unit that we ship: how much it shuts the agent in, and that the agent has what it needs in there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.demo.isolation import add_named, delete_named
from agent.kernel.privileges import names_of, read
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import eventually_works, host_end
from tests.harness.waiting import eventually

UNIT = Path(__file__).resolve().parents[2] / "config" / "vethd.service"
MOST_EXPOSED = 4.0
NAMES = ("web", "db")
BLINDING = ("PrivateNetwork", "PrivateUsers", "DynamicUser", "ProtectKernelTunables", "ProcSubset", "MountFlags")

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze (Debian package systemd)"
)


def settings(key: str) -> list[str]:
    """The values of a key, in the order of the file."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def analyze(*arguments: str) -> str:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=True).stdout


def calls_in(group: str) -> set[str]:
    """The system calls of a group, and of those within it."""
    listed = analyze("syscall-filter", group).split("\n")[1:]
    names = {line.strip() for line in listed if line.strip() and not line.strip().startswith("#")}
    nested = {name for name in names if name.startswith("@")}
    return (names - nested).union(*map(calls_in, nested))


def allowed_calls() -> set[str]:
    """What SystemCallFilter= lets through, systemd.exec(5): later lines add to, or take from, those before."""
    allowed = calls_in("@default")
    for setting in settings("SystemCallFilter"):
        words = setting.removeprefix("~").split()
        named = set[str]().union(*(calls_in(word) if word.startswith("@") else {word} for word in words))
        allowed = allowed - named if setting.startswith("~") else allowed | named
    return allowed


@needs_analyze
def test_it_is_exposed_less_than_most_services() -> None:
    # It exits with 1 where the level, times ten, is above the threshold.
    analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10 - 1:.0f}", str(UNIT))


@needs_analyze
def test_the_measure_tells_a_service_that_is_open(tmp_path: Path) -> None:
    unit = tmp_path / "open.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(subprocess.CalledProcessError):
        analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10 - 1:.0f}", str(unit))


@needs_analyze
def test_nothing_in_it_is_misspelt() -> None:
    told = json.loads(analyze("security", "--offline=true", "--json=short", str(UNIT)))
    assert {"NoNewPrivileges=", "RestrictSUIDSGID="} <= {item["name"] for item in told if item["set"]}
    command = ["systemd-analyze", "verify", "--man=no", str(UNIT)]
    complaints = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    # The program is not where it will be installed.
    assert [line for line in complaints.splitlines() if re.search(r"vethd\.service:\d+:", line)] == []


def test_what_would_blind_or_bind_the_agent_is_left_out() -> None:
    assert {key: settings(key) for key in BLINDING if settings(key)} == {}
    assert settings("RestrictNamespaces") == ["net"]


@needs_analyze
def test_it_makes_no_system_call_that_is_shut_off(start_agent: StartAgent, tmp_path: Path) -> None:
    """With rules about processes, too: from the start over repair and reload to the end."""
    trace = tmp_path / "trace"
    agent = start_agent({"rule": [{"match": {"source": "process"}, "leave": True}]}, start=False)
    agent.start(prefix=("strace", "-D", "-f", "-qq", "--signal=none", "-o", str(trace)))
    for name in NAMES:
        netns.add_netns(name)
        agent.wait_ready(name)
    observe.run("ip", "link", "del", host_end("web")["ifname"])
    observe.run("nft", "flush", "ruleset")
    eventually_works("web")
    delete_named("db")
    add_named("db")
    agent.wait_ready("db")
    assert agent.metrics()
    agent.reload({"network.default": {"mtu": 1400}})
    for name in NAMES:
        netns.del_netns(name)
    eventually(lambda: not observe.host_ends(), 5, "all is taken down")
    agent.stop()
    done = re.findall(r"^\d+ +(\w+)\((.*)$", trace.read_text(errors="replace"), re.MULTILINE)
    assert {"setns", "sendmsg"} <= {call for call, _ in done}
    # systemd itself starts the program, and a refused limit of open files is put up with: the unit sets its own.
    shut_off = {call for call, _ in done} - allowed_calls() - {"execve"}
    raising = [rest for call, rest in done if call in {"prlimit64", "setrlimit"} and "NULL" not in rest.split(",")[2]]
    assert shut_off <= {"prlimit64"}, sorted(shut_off)
    assert all("RLIMIT_NOFILE" in rest for rest in raising)


def test_the_capabilities_that_it_grants_are_those_that_are_kept(start_agent: StartAgent) -> None:
    agent = start_agent()
    (granted,) = settings("CapabilityBoundingSet")
    held = read(agent.pid)
    assert held.no_new
    # CHOWN is for a control socket that is given to a group.
    assert set(names_of(held.effective)) | {"CAP_CHOWN"} == set(granted.split())
