"""``vethd exec``: a program inside, as `ip netns exec` runs it, once its namespace is networked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.demo import uplink
from tests.conftest import StartAgent
from tests.harness import netns
from tests.harness.expect import GATEWAY4, address4
from tests.harness.programs import TELLTALE, running
from tests.harness.running import Agent

ETC_NETNS = Path("/etc/netns")
# All that tells where a program is.
WHERE = (
    "readlink /proc/self/ns/net; ls /sys/class/net; ls /sys; cat /etc/hosts /etc/resolv.conf; pwd; id; ip -o address"
)


@pytest.fixture
def web(agent: Agent) -> Agent:
    """The agent, with one namespace networked."""
    netns.add_netns("web")
    agent.wait_ready("web")
    return agent


@pytest.fixture
def etc_web(web: Agent) -> Path:
    """The directory /etc/netns/web of the private host, which must be one of its own."""
    mounts = [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    assert any(fields[4] == "/etc" and "vethd-host" in fields for fields in mounts), "this /etc is the machine's own"
    directory = ETC_NETNS / "web"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def mounts() -> str:
    return Path("/proc/thread-self/mountinfo").read_text()


def test_it_is_where_ip_netns_exec_is(web: Agent, etc_web: Path) -> None:
    (etc_web / "hosts").write_text("192.0.2.7 seven\n")
    (etc_web / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    before = mounts()
    ours = web.cli("exec", "web", "--", "sh", "-c", WHERE)
    theirs = subprocess.run(
        ["ip", "netns", "exec", "web", "sh", "-c", WHERE], capture_output=True, text=True, check=True
    )
    assert ours.returncode == 0
    assert ours.stderr == ""
    assert ours.stdout == theirs.stdout
    assert "192.0.2.7 seven\nnameserver 192.0.2.53" in ours.stdout
    assert f"inet {address4('web')}/16" in ours.stdout
    assert mounts() == before


def test_a_file_without_a_counterpart_is_told_and_no_hindrance(web: Agent, etc_web: Path) -> None:
    for name in ("no\nsuch", "hosts"):
        (etc_web / name).write_text("192.0.2.7 seven\n")
    done = web.cli("exec", "web", "--", "cat", "/etc/hosts")
    assert (done.returncode, done.stdout) == (0, "192.0.2.7 seven\n")
    assert len(done.stderr.splitlines()) == 1
    assert "/etc/netns/web/no\\nsuch" in done.stderr


def test_it_waits_until_the_namespace_is_networked(agent: Agent) -> None:
    with running(agent, "exec", "web", "--", "ping", "-n", "-c", "1", "-W", "1", uplink.BEYOND4) as program:
        netns.add_netns("web")
        assert program.line().startswith("PING")
        assert program.end() == 0


def test_the_exit_code_is_the_programs(web: Agent) -> None:
    for end, code in {"exit 0": 0, "exit 3": 3, "exit 255": 255, "kill -KILL $$": -signal.SIGKILL}.items():
        assert web.cli("exec", "web", "--", "sh", "-c", end).returncode == code


def test_the_process_is_the_program(web: Agent) -> None:
    with running(
        web, "exec", "web", "--", sys.executable, "-c", f"import os; print(os.getpid())\n{TELLTALE}"
    ) as program:
        assert int(program.line()) == program.process.pid
        assert program.line() == "up"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            program.process.send_signal(number)
            assert program.line() == number.name
        program.input.close()
        assert program.end() == 5


def test_input_and_output_are_the_programs(web: Agent) -> None:
    data = bytes(range(256)) * 1000
    env = {**os.environ, "VETHD_CONFIG": str(web.config)}
    command = web.command("exec", "web", "--", "sh", "-c", "echo told >&2; exec cat")
    done = subprocess.run(command, input=data, capture_output=True, check=True, env=env)
    assert (done.stdout, done.stderr) == (data, b"told\n")


def test_a_program_inherits_what_was_given_and_nothing_of_ours(web: Agent, tmp_path: Path) -> None:
    """Neither signals that Python ignores, nor a locale that it sets, nor open files."""
    env = {"PATH": os.environ["PATH"], "VETHD_CONFIG": str(web.config), "ODD": "\udcff\n"}
    given, theirs = os.open(tmp_path / "given", os.O_RDWR | os.O_CREAT), tmp_path / "program"
    theirs.write_text("#!/bin/sh\nenv -0\ngrep -e SigIgn -e SigBlk /proc/self/status\nls /proc/$$/fd; pwd; umask")
    theirs.chmod(0o755)
    outputs = [
        subprocess.run(
            [*before, theirs], capture_output=True, check=True, env=env, pass_fds=[given], cwd=Path.cwd(), umask=0o027
        )
        for before in (web.command("exec", "web", "--"), ["ip", "netns", "exec", "web"])
    ]
    os.close(given)
    assert outputs[0].stdout == outputs[1].stdout
    assert b"LC_CTYPE" not in outputs[0].stdout


def test_a_name_and_a_path_lead_there_whatever_their_bytes(agent: Agent) -> None:
    name = b"-\xff\n\xe2\x80\xae"
    netns.add_netns(name)
    agent.wait_ready(name)
    for given in (name, b"/run/netns/" + name):
        done = agent.cli("exec", "--", given, "--", "ping", "-n", "-c", "1", "-W", "1", GATEWAY4)
        assert done.returncode == 0, done.stderr


def test_a_script_without_a_first_line_is_the_shells(web: Agent, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("exit 6\n")
    script.chmod(0o755)
    assert web.cli("exec", "web", "--", str(script)).returncode == 6


def test_a_program_that_cannot_be_run(web: Agent) -> None:
    Path("/run/plain").touch(0o644)
    for program, code in {"no-such-program": 127, "/run/plain": 126, "/run": 126}.items():
        done = web.cli("exec", "web", "--", program)
        assert (done.returncode, done.stdout) == (code, "")
        assert len(done.stderr.splitlines()) == 1
        assert program in done.stderr


def test_one_that_is_not_networked_runs_nothing(start_agent: StartAgent) -> None:
    agent = start_agent(start=False)
    told = {"before the agent runs": 4, "left alone": 3, "in vain": 1}
    line = ("--timeout", "0.2", "--", "echo", "ran")
    before = agent.cli("exec", "web", *line)
    agent.start()
    netns.add_netns("cni-x")
    done = dict(zip(told, (before, agent.cli("exec", "cni-x", *line), agent.cli("exec", "web", *line)), strict=True))
    assert {what: end.returncode for what, end in done.items()} == told
    assert {end.stdout for end in done.values()} == {""}
    assert {len(end.stderr.splitlines()) for end in done.values()} == {1}


def test_only_root_may_enter(start_agent: StartAgent) -> None:
    """A group may ask the agent, and gains no more by that."""
    agent = start_agent({"agent": {"group": "nogroup"}})
    agent.config = Path("/run/vethd.toml")
    agent.configure({})
    netns.add_netns("web")
    agent.wait_ready("web")
    nobody = ("setpriv", "--reuid=65534", "--regid=nogroup", "--clear-groups", "--")
    for command in (["exec", "web", "--", "true"], ["new", "db"]):
        done = subprocess.run(
            [*nobody, *agent.command(*command)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "VETHD_CONFIG": str(agent.config)},
        )
        assert done.returncode == 1
        assert "become root" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert os.listdir("/run/netns") == ["web"]
