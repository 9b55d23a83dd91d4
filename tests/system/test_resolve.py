"""Point 6: names resolve inside: a named namespace has the host's name servers, or those that it wishes for."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartAgent
from tests.harness import netns
from tests.harness.running import Agent
from tests.harness.waiting import eventually

ETC_NETNS = Path("/etc/netns")
HOSTS = Path("/etc/resolv.conf")
BEHIND = Path("/run/systemd/resolve/resolv.conf")
PERSONS = "nameserver 203.0.113.1\n"


@pytest.fixture(autouse=True)
def own_etc(private_host: object) -> None:
    """The private host's /etc must be one of its own; it names one server and a search."""
    mounts = [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    assert any(fields[4] == "/etc" and "vethd-host" in fields for fields in mounts), "this /etc is the machine's own"
    replace("nameserver 192.0.2.53\nsearch corp.example\n")


def replace(content: str) -> None:
    """As whoever manages the host's file does it."""
    draft = HOSTS.with_suffix(".new")
    draft.write_text(content)
    draft.replace(HOSTS)


def file(name: str = "web") -> Path:
    return ETC_NETNS / name / "resolv.conf"


def said(name: str = "web") -> list[str]:
    """What a program in the namespace reads, without comments."""
    command = ["ip", "netns", "exec", name, "cat", "/etc/resolv.conf"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if not line.startswith("#")]


def add(agent: Agent, name: str = "web") -> None:
    netns.add_netns(name)
    agent.wait_ready(name)


def test_a_namespace_has_the_hosts_servers_once_it_is_ready(agent: Agent) -> None:
    add(agent)
    assert said() == ["nameserver 192.0.2.53", "search corp.example"]
    netns.del_netns("web")
    eventually(lambda: not file().parent.exists(), 5, "the file and its directory are gone")


def test_a_name_that_is_given_anew_at_once_keeps_its_file(agent: Agent) -> None:
    """What is done for the namespace that went must not take away what the next one of its name was given."""
    add(agent)

    def settled() -> bool:
        return len(agent.events("removed")) == len(agent.events("networked")) - 1

    for _ in range(20):
        mark = agent.mark()
        netns.delete_many(["web"])
        netns.add_many(["web"])
        agent.wait_event("networked", since=mark, name="web")
        eventually(settled, 5, "the former one is taken down")
        assert file().exists()
    assert said() == ["nameserver 192.0.2.53", "search corp.example"]


def test_those_behind_a_stub_on_loopback(agent: Agent) -> None:
    add(agent)
    BEHIND.parent.mkdir(parents=True)
    BEHIND.write_text("nameserver 198.51.100.1\nsearch .\n")
    replace("nameserver 127.0.0.53\noptions edns0 trust-ad\n")
    eventually(lambda: said() == ["nameserver 198.51.100.1", "search ."], 5, "it follows the stub")
    BEHIND.write_text("nameserver 198.51.100.2\n")
    eventually(lambda: said() == ["nameserver 198.51.100.2"], 5, "it follows what is behind the stub")


def test_a_program_that_runs_sees_the_change(agent: Agent) -> None:
    add(agent)
    reader = ["ip", "netns", "exec", "web", "sh", "-c", "while read ask; do grep nameserver /etc/resolv.conf; done"]
    with subprocess.Popen(reader, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        lines = netns.Lines(program.stdout)
        program.stdin.write(b"\n")
        assert lines.readline() == "nameserver 192.0.2.53\n"
        # In place: a file that takes its place would take the mount over it away, in every mount namespace.
        HOSTS.write_text("nameserver 198.51.100.1\n")
        eventually(lambda: "198.51.100.1" in file().read_text(), 5, "the file is current")
        program.stdin.write(b"\n")
        assert lines.readline() == "nameserver 198.51.100.1\n"
        program.stdin.close()


def test_what_a_person_wrote_stays(agent: Agent) -> None:
    file().parent.mkdir(parents=True)
    file().write_text(PERSONS)
    add(agent)
    add(agent, "db")
    replace("nameserver 198.51.100.1\n")
    eventually(lambda: said("db") == ["nameserver 198.51.100.1"], 5, "the change is known")
    netns.del_netns("web")
    netns.del_netns("db")
    eventually(lambda: not file("db").exists(), 5, "what is ours is gone")
    assert file().read_text() == PERSONS


def test_those_of_names_that_went_while_the_agent_was_away(agent: Agent) -> None:
    add(agent)
    add(agent, "db")
    agent.stop()
    netns.del_netns("web")
    replace("nameserver 198.51.100.1\n")
    agent.start()
    eventually(lambda: os.listdir(ETC_NETNS) == ["db"], 5, "the one of web is gone")
    assert said("db") == ["nameserver 198.51.100.1"]


def test_a_wish_names_others(agent: Agent) -> None:
    wish = Path("/etc/vethd/netns.d/web.toml")
    wish.parent.mkdir(parents=True, mode=0o755, exist_ok=True)
    wish.write_text('dns = ["198.51.100.7", "2001:db8::7"]\n')
    agent.stop()
    agent.start()
    add(agent)
    assert said() == ["nameserver 198.51.100.7", "nameserver 2001:db8::7", "search corp.example"]
    wish.unlink()
    eventually(lambda: said() == ["nameserver 192.0.2.53", "search corp.example"], 5, "the wish is gone")


def test_servers_of_ipv6_are_for_those_that_have_it(start_agent: StartAgent) -> None:
    replace("nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    agent = start_agent({"network.default": {"subnet6": ""}})
    add(agent)
    assert said() == ["nameserver 192.0.2.53"]


def test_off_is_off(start_agent: StartAgent) -> None:
    agent = start_agent({"agent": {"dns": "off"}})
    add(agent)
    assert not ETC_NETNS.exists()


def test_down_takes_all_away_but_what_is_a_persons(agent: Agent) -> None:
    file("db").parent.mkdir(parents=True)
    file("db").write_text(PERSONS)
    add(agent)
    agent.stop()
    done = agent.cli("down")
    assert done.returncode == 0
    assert str(file()) in done.stdout
    assert os.listdir(ETC_NETNS) == ["db"]
    assert file("db").read_text() == PERSONS


def test_down_leaves_no_empty_directory(agent: Agent) -> None:
    add(agent)
    agent.stop()
    netns.del_netns("web")
    assert agent.cli("down").returncode == 0
    assert not ETC_NETNS.exists()
