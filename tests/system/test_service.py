"""The unit that we ship, run by a real systemd: what it shuts off leaves the agent all that it needs."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.demo.isolation import MS_BIND, mount
from agent.demo.private_host import PrivateHost
from agent.kernel.privileges import names_of, read
from tests.harness import netns, observe
from tests.harness.cgroups import ROOT
from tests.harness.expect import assert_works, eventually_works, host_end
from tests.harness.running import Agent
from tests.harness.waiting import eventually
from tests.system.test_service_file import UNIT, settings
from tests.system.tools import systemd
from tests.system.tools.ground import ground, need

CONFIG = Path("/etc/vethd")
LOG = Path("/run/vethd.log")
SOON = 5.0
HERE_TOO = {"/run/venv": sys.prefix, "/run/project": str(UNIT.parents[1])}
# Where the project and its Python are need not be where the service sees anything, and there is no journal.
HERE = f"""
[Unit]
DefaultDependencies=no
[Service]
ProtectHome=tmpfs
BindReadOnlyPaths={sys.base_prefix}
Environment=PYTHONPATH=/run/project PYTHONDONTWRITEBYTECODE=1
ExecStart=
ExecStart=/run/venv/bin/python -m agent --config {CONFIG}/vethd.toml run --log-format json
StandardOutput=append:{LOG}
StandardError=inherit
"""

Beside = Callable[..., str]


@pytest.fixture
def agent(private_host: PrivateHost) -> Agent:
    """What speaks to the agent that systemd starts."""
    CONFIG.mkdir(exist_ok=True)
    return Agent(private_host, CONFIG, {"agent": {"state_dir": "/var/lib/vethd"}})


@pytest.fixture
def beside(agent: Agent) -> Iterator[Beside]:
    """Runs a command beside the service, which runs."""
    need("systemctl", "nsenter")
    for where, what in HERE_TOO.items():
        os.mkdir(where)
        mount(what, where, flags=MS_BIND)
    with ground(), systemd.booted({"vethd.service": UNIT.read_text(), "vethd.service.d/here.conf": HERE}) as beside:
        eventually(lambda: is_active(beside), SOON, "it says that it is ready")
        yield beside
        sys.stdout.write(LOG.read_text())


def is_active(beside: Beside) -> bool:
    return shown(beside, "ActiveState") == "active"


def shown(beside: Beside, what: str) -> str:
    return beside("systemctl", "show", "--value", "--property", what, "vethd").strip()


def test_it_networks_what_comes_and_leaves_it_networked(agent: Agent, beside: Beside) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    assert_works("web")
    device = host_end("web")["ifindex"]

    beside("systemctl", "restart", "vethd")
    agent.wait_ready("web")
    killed = shown(beside, "MainPID")
    beside("systemctl", "kill", "--signal=KILL", "--kill-who=main", "vethd")
    eventually(lambda: shown(beside, "MainPID") not in {killed, "0"} and is_active(beside), SOON, "it is started again")
    agent.wait_ready("web")
    observe.run("nft", "flush", "ruleset")
    eventually_works("web")
    assert host_end("web")["ifindex"] == device

    beside("systemctl", "stop", "vethd")
    assert shown(beside, "ActiveState") == "inactive"
    assert_works("web")
    beside("systemctl", "start", "vethd")
    netns.del_netns("web")
    eventually(lambda: not observe.host_ends(), SOON, "all is taken down")


def test_it_has_what_the_unit_grants_and_no_more(beside: Beside) -> None:
    (granted,) = settings("CapabilityBoundingSet")
    (pid,) = (ROOT / "system.slice/vethd.service/cgroup.procs").read_text().split()
    held = read(int(pid))
    assert held.no_new
    assert set(names_of(held.bounding)) == set(granted.split())
    assert set(names_of(held.effective)) <= set(granted.split())
    assert "Seccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text(), "system calls are filtered"


def test_it_reads_its_config_anew(agent: Agent, beside: Beside) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    agent.configure({"network.default": {"mtu": 1400}})
    beside("systemctl", "reload", "vethd")
    eventually(lambda: host_end("web")["mtu"] == 1400, SOON, "what the config says now")
