"""``vethd new``: a namespace made, networked, used and removed; and nothing left of it when any of that fails."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import address4, address6, assert_works
from tests.harness.programs import TELLTALE, running
from tests.harness.running import Agent, to_toml
from tests.harness.waiting import eventually

NETNS = Path("/run/netns")
WISHES = Path("/run/vethd/netns.d")
TELLTALE_COMMAND = (sys.executable, "-c", TELLTALE)


def left() -> list[str]:
    """All that is left on the host of namespaces: names, what is mounted on them, wishes, devices."""
    mounted = [line.split()[4] for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    return [
        *(os.listdir(NETNS) if NETNS.exists() else []),
        *(path for path in mounted if path.startswith(f"{NETNS}/")),
        *(os.listdir(WISHES) if WISHES.exists() else []),
        *observe.host_ends(),
    ]


def nothing_is_left() -> None:
    eventually(lambda: not left(), 5, f"nothing is left, but there is {left()}")


def mounts_of_names() -> Counter[str]:
    """How often each name is a mount that others share; the directory itself is the empty name."""
    lines = [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    ours = [(Path(fields[4]), fields[6:]) for fields in lines if Path(fields[4]).is_relative_to(NETNS)]
    assert all(any(tag.startswith("shared:") for tag in tags) for _, tags in ours)
    return Counter("" if path == NETNS else path.name for path, _ in ours)


@pytest.fixture
def unheard(agent: Agent, tmp_path: Path) -> Iterator[Path]:
    """A config by which namespaces are made where the running agent does not look: they are never networked."""
    config = tmp_path / "unheard.toml"
    config.write_text(to_toml({**agent.tables, "discovery": {"directories": ["/run/unheard"]}}))
    yield config
    assert os.listdir("/run/unheard") == []
    assert "/run/unheard/" not in Path("/proc/thread-self/mountinfo").read_text()


def test_it_is_made_networked_and_told(agent: Agent) -> None:
    done = agent.cli("new", "web")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{address4('web')}/16 {address6('web')}/64\n"
    assert_works("web")


def test_it_is_as_ip_netns_add_makes_it(agent: Agent) -> None:
    agent.cli("new", "first")
    netns.add_netns("second")
    agent.cli("new", "third")
    listed = observe.run("ip", "netns", "list")
    assert {line.split()[0] for line in listed.splitlines()} == {"first", "second", "third"}
    shared = mounts_of_names()
    # How often a name is mounted depends on how /run is.
    assert shared["first"] == shared["second"] == shared["third"] > 0
    assert shared[""] == 1, "the directory is a mount of its own, once"
    modes = {name: os.lstat(NETNS / name).st_mode for name in ("first", "second", "third")}
    assert len(set(modes.values())) == 1
    for name in ("first", "second", "third"):
        netns.del_netns(name)
    nothing_is_left()


def test_removal_reaches_other_mount_namespaces(agent: Agent) -> None:
    netns.add_netns("first")
    held = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo up; read end; ls /run/netns"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "up\n"
    assert agent.cli("new", "web", "--rm", "--", "true").returncode == 0
    assert held.communicate("end\n", timeout=10)[0] == "first\n"


def test_any_name_will_do(agent: Agent) -> None:
    for name in (b"-x", b"a\nb", b"\xff\xfe", b"x" * 255, "\u202egnp".encode(), b"a*", b".hidden"):
        assert agent.cli("new", "--", name).returncode == 0
        assert os.listdir(os.fsencode(NETNS)) == [name]
        assert_works(name)
        netns.del_netns(name)
    nothing_is_left()


def test_many_at_once_mount_the_directory_once(agent: Agent) -> None:
    names = [f"n{number}" for number in range(8)]
    started = [netns.spawn(agent.command("--config", str(agent.config), "new", name)) for name in names]
    assert [process.wait(30) for process in started] == [0] * len(names)
    shared = mounts_of_names()
    assert shared[""] == 1
    assert set(shared) == {"", *names}


def test_in_a_directory_of_the_config_that_is_not_there_yet(start_agent: StartAgent) -> None:
    agent = start_agent({"discovery": {"directories": ["/run/deep/down", "/run/netns"]}})
    assert agent.cli("new", "web").returncode == 0
    assert agent.namespaces()["web"]["path"] == "/run/deep/down/web"
    assert_works(Path("/run/deep/down/web"))


def test_one_that_is_there_is_left_alone(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    WISHES.mkdir()
    (WISHES / "web.toml").touch()
    done = agent.cli("new", "web", "--rm", "--", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "there already" in done.stderr
    assert os.listdir(WISHES) == ["web.toml"]
    assert_works("web")


def test_a_program_takes_over_and_the_namespace_stays(agent: Agent) -> None:
    program = f"import os; print(os.getpid())\n{TELLTALE}"
    with running(agent, "new", "web", "--", sys.executable, "-c", program) as new:
        assert int(new.line()) == new.process.pid
        assert new.line() == "up"
        new.process.send_signal(signal.SIGTERM)
        assert new.line() == "SIGTERM"
        new.input.close()
        assert new.end() == 5
    assert_works("web")


def test_it_is_removed_however_its_program_ends(agent: Agent) -> None:
    ends = {
        ("true",): 0,
        ("sh", "-c", "exit 42"): 42,
        ("sh", "-c", "kill -TERM $$"): 128 + signal.SIGTERM,
        ("sh", "-c", "kill -KILL $$"): 128 + signal.SIGKILL,
        ("no-such-program",): 127,
        ("/run",): 126,
    }
    for program, code in ends.items():
        done = agent.cli("new", "web", "--network", "default", "--rm", "--", *program)
        assert (done.returncode, done.stdout) == (code, "")
        assert len(done.stderr.splitlines()) == (1 if code in (126, 127) else 0)
        nothing_is_left()


def test_without_rm_it_is_removed_when_there_is_no_program_to_keep_it_for(agent: Agent) -> None:
    for program, code in {"no-such-program": 127, "/run": 126}.items():
        assert agent.cli("new", "web", "--network", "default", "--", program).returncode == code
        nothing_is_left()


def test_input_and_output_are_the_programs(agent: Agent) -> None:
    data = bytes(range(256)) * 1000
    env = {**os.environ, "VETHD_CONFIG": str(agent.config)}
    command = agent.command("new", "web", "--rm", "--", "sh", "-c", "echo told >&2; exec cat")
    done = subprocess.run(command, input=data, capture_output=True, check=True, env=env)
    assert (done.stdout, done.stderr) == (data, b"told\n")


def test_signals_are_handed_on_to_the_program(agent: Agent) -> None:
    with running(agent, "new", "web", "--rm", "--", *TELLTALE_COMMAND) as new:
        assert new.line() == "up"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1) * 2:
            new.process.send_signal(number)
            assert new.line() == number.name
        assert_works("web")
        new.input.close()
        assert new.end() == 5
    nothing_is_left()


def test_a_signal_that_ends_the_program_ends_all(agent: Agent) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        with running(agent, "new", "web", "--rm", "--", "sh", "-c", "echo up; exec sleep 60") as new:
            assert new.line() == "up"
            new.process.send_signal(number)
            assert new.end() == 128 + number
        nothing_is_left()


def test_one_key_of_a_terminal_is_one_signal(agent: Agent) -> None:
    """The terminal sends it to the program as well: it is not handed on a second time."""
    ours, theirs = os.openpty()
    env = {**os.environ, "VETHD_CONFIG": str(agent.config)}
    command = ["setsid", "--ctty", *agent.command("new", "web", "--rm", "--", *TELLTALE_COMMAND)]
    with (
        os.fdopen(ours, "wb", buffering=0) as keys,
        subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, bufsize=0, env=env) as new,
    ):
        os.close(theirs)
        assert new.stdout is not None
        said = netns.Lines(new.stdout)
        assert said.readline() == "up\n"
        keys.write(b"\x03")
        assert said.readline() == "SIGINT\n"
        new.send_signal(signal.SIGUSR1)
        assert said.readline() == "SIGUSR1\n"
        keys.write(b"\x04")
        assert new.wait(10) == 5
    nothing_is_left()


def test_a_signal_that_was_ignored_stays_ignored(agent: Agent) -> None:
    env = {**os.environ, "VETHD_CONFIG": str(agent.config)}
    status = ("grep", "-e", "SigIgn", "-e", "SigBlk", "/proc/self/status")
    outputs = [
        subprocess.run(["nohup", *before, *status], capture_output=True, text=True, check=True, env=env)
        for before in (agent.command("new", "web", "--rm", "--"), ())
    ]
    assert outputs[0].stdout == outputs[1].stdout


def test_a_signal_while_it_waits_leaves_nothing(agent: Agent, unheard: Path) -> None:
    for number, more in ((signal.SIGINT, ()), (signal.SIGTERM, ("--rm", "--", "true")), (signal.SIGHUP, ())):
        with running(agent, "new", "web", "--network", "default", *more, config=unheard) as new:
            # The last thing it does before it waits.
            eventually(lambda: "/run/unheard/web " in Path("/proc/thread-self/mountinfo").read_text(), 10, "it is made")
            new.process.send_signal(number)
            assert new.end() == 128 + number
        assert os.listdir(WISHES) == []
        assert os.listdir("/run/unheard") == []


def test_in_vain_leaves_nothing(agent: Agent, unheard: Path) -> None:
    with running(agent, "new", "web", "--network", "default", "--timeout", "0.2", config=unheard) as new:
        assert new.end() == 1
    assert os.listdir(WISHES) == []


def test_what_policy_leaves_alone_leaves_nothing(agent: Agent) -> None:
    done = agent.cli("new", "cni-x", "--network", "default")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    nothing_is_left()


def test_what_cannot_be_networked_leaves_nothing(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"subnet": "172.27.0.0/29"}})
    netns.add_many([f"n{number}" for number in range(5)])
    eventually(lambda: [found["state"] for found in agent.namespaces().values()] == ["ready"] * 5, 10, "all are ready")
    done = agent.cli("new", "web", "--timeout", "0.5")
    assert done.returncode == 1
    assert "no free address" in done.stderr
    assert sorted(os.listdir(NETNS)) == [f"n{number}" for number in range(5)]


def test_a_name_that_somebody_gave_away_meanwhile_is_left(agent: Agent) -> None:
    with running(agent, "new", "web", "--rm", "--", *TELLTALE_COMMAND) as new:
        assert new.line() == "up"
        netns.del_netns("web")
        netns.add_netns("web")
        new.input.close()
        assert new.end() == 5
    agent.wait_ready("web")
    assert_works("web")


def test_a_name_that_somebody_removed_is_no_fault(agent: Agent) -> None:
    with running(agent, "new", "web", "--rm", "--", *TELLTALE_COMMAND) as new:
        assert new.line() == "up"
        netns.del_netns("web")
        new.input.close()
        assert new.end() == 5
    nothing_is_left()


def test_it_works_on_while_the_agent_is_away(agent: Agent) -> None:
    with running(agent, "new", "web", "--rm", "--", *TELLTALE_COMMAND) as new:
        assert new.line() == "up"
        agent.stop()
        new.input.close()
        assert new.end() == 5
    assert not NETNS.joinpath("web").exists()
    agent.start()
    nothing_is_left()


def test_a_wish_is_written_and_goes_with_the_namespace(agent: Agent) -> None:
    told = "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text().splitlines()[-1])"
    done = agent.cli(
        "new", "web", "--network", "default", "--rm", "--", sys.executable, "-c", told, str(WISHES / "web.toml")
    )
    assert (done.returncode, done.stdout) == (0, 'network = "default"\n')
    assert os.listdir(WISHES) == []
    assert agent.cli("new", "web", "--network", "default").returncode == 0
    assert os.listdir(WISHES) == ["web.toml"]


TWO_NETWORKS = {
    "network.default": {"subnet": "172.27.0.0/16"},
    "network.ci": {"subnet": "172.28.0.0/16", "bridge": "ci0"},
}


def test_a_network_may_be_named(start_agent: StartAgent) -> None:
    agent = start_agent(TWO_NETWORKS)
    for number in range(3):
        done = agent.cli("new", f"n{number}", "--network", "ci", "--timeout", "5")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("172.28.0.")
        assert agent.namespaces()[f"n{number}"]["network"] == "ci"


def test_one_that_does_not_exist_is_refused(start_agent: StartAgent) -> None:
    done = start_agent(TWO_NETWORKS).cli("new", "web", "--network", "cl")
    assert done.returncode == 2
    assert "default, ci" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    nothing_is_left()
