"""What other people make namespaces with, each for real: networked when a rule says so, and left alone when not."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo.private_host import PrivateHost
from agent.demo.process import Record
from tests.conftest import StartAgent
from tests.harness import observe, unnamed
from tests.harness.expect import assert_works
from tests.harness.running import Agent
from tests.harness.unnamed import ANY_PROCESS, rule
from tests.harness.waiting import eventually
from tests.system.tools import containers, systemd
from tests.system.tools.ground import HOME, HOST, ONLINE, ROOTFS, ground, need, run, started

SOON = 5.0
ADDRESSES = "ip -o -4 address show eth0; ip route"


@pytest.fixture(autouse=True)
def _ground(private_host: PrivateHost) -> Iterator[None]:
    with ground():
        yield


def networked(agent: Agent) -> list[str]:
    """The names of all that were networked, the first one first."""
    return [str(event["name"]) for event in agent.events("networked")]


def test_ip_netns(start_agent: StartAgent) -> None:
    agent = start_agent()
    run("ip", "netns", "add", "web")
    agent.wait_ready("web")
    assert run("ip", "netns", "exec", "web", "busybox", "sh", "-c", ONLINE).strip() == HOST


def test_pyroute2(start_agent: StartAgent) -> None:
    agent = start_agent()
    observe.run(sys.executable, "-c", "from pyroute2 import netns; netns.create('web')")
    agent.wait_ready("web")
    assert_works("web")
    observe.run(sys.executable, "-c", "from pyroute2 import netns; netns.remove('web')")
    eventually(lambda: agent.events("removed", name="web"), SOON, "it is gone")


def test_unshare(start_agent: StartAgent) -> None:
    agent = start_agent({"rule": [rule(source="process", command="busybox sh *")]})
    assert run("unshare", "--net", "busybox", "sh", "-c", ONLINE).strip() == HOST
    assert networked(agent)[0].startswith("pid:")


def test_bubblewrap(start_agent: StartAgent) -> None:
    need("bwrap")
    # By the command of its first process: of the program, or of bwrap itself where processes are unshared too.
    start_agent({"rule": [rule(command="sh -c until *", userns="any"), rule(command="bwrap *", userns="any")]})
    assert containers.bwrap("--unshare-net", shell=ONLINE).strip() == HOST
    assert containers.bwrap("--unshare-net", "--unshare-pid", shell=ONLINE).strip() == HOST
    assert containers.bwrap("--unshare-all", shell=ONLINE).strip() == HOST
    # It sets up the loopback device itself, and ends where somebody else does so meanwhile.
    for _ in range(30):
        containers.bwrap("--unshare-net", shell="true")


def test_runc(start_agent: StartAgent) -> None:
    need("runc")
    agent = start_agent({"rule": [rule(cgroup="/runners/*")]})
    assert containers.runc("web", ONLINE).strip() == HOST
    assert len(networked(agent)) == 1


def test_podman(start_agent: StartAgent) -> None:
    need("podman", "conmon")
    agent = start_agent({"rule": [rule(container="podman:*")]})
    assert containers.podman("none", ONLINE).strip() == HOST
    (name,) = networked(agent)
    assert re.fullmatch("podman:[0-9a-f]{12}", name)
    # With a network of its own it has that and no other.
    assert_is_its_own(containers.podman("bridge", ADDRESSES), "10.88.")
    assert networked(agent) == [name]


def test_docker(start_agent: StartAgent) -> None:
    need("docker", "dockerd")
    agent = start_agent({"rule": [rule(container="docker:*")]})
    with containers.dockerd():
        assert containers.docker("none", ONLINE).strip() == HOST
        (name,) = networked(agent)
        assert re.fullmatch("docker:[0-9a-f]{12}", name)
        assert_is_its_own(containers.docker("bridge", ADDRESSES), "172.17.")
        assert networked(agent) == [name]


@pytest.mark.parametrize("program", ["lxc-start", "lxc-execute"])
def test_lxc(start_agent: StartAgent, program: str) -> None:
    need(program)
    agent = start_agent({"rule": [rule(container="lxc:*")]})
    assert containers.lxc(program, containers.LXC_EMPTY, ONLINE).strip() == HOST
    assert networked(agent) == ["lxc:web"]
    containers.make_bridge()
    assert_is_its_own(containers.lxc(program, containers.LXC_VETH, ADDRESSES, name="own"), "10.77.")
    assert networked(agent) == ["lxc:web"]


def test_systemd(start_agent: StartAgent) -> None:
    need("systemd-nspawn")
    sleeping = "PrivateNetwork=yes\nExecStart=sleep 1000"
    # Told what its container's systemd would take, as there is none, it needs none of the older control groups.
    unified = "Environment=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"
    nspawn = f"systemd-nspawn --quiet --keep-unit --register=no --private-network -D {ROOTFS} sh -c 'sleep 1000'"
    services = {
        "runner@1.service": sleeping,
        "offline.service": sleeping,
        "systemd-nspawn@web.service": f"Delegate=yes\n{unified}\nExecStart={nspawn}",
    }
    rules = [rule(cgroup="/system.slice/*/runner@*.service"), rule(container="nspawn:*")]
    agent = start_agent({"rule": rules})
    with systemd.booted({name: systemd.service(lines) for name, lines in services.items()}):
        for name in ("unit:runner@1.service", "nspawn:web"):
            agent.wait_event("networked", name=name)
            assert_works(Path(agent.namespaces()[name]["path"]))
        eventually(lambda: "unit:offline.service" in agent.namespaces(), SOON, "it is seen")
        offline = agent.namespaces()["unit:offline.service"]
        assert (offline["state"], offline["rule"]) == ("left", "no rule names it")
        assert set(observe.links(Path(offline["path"]))) == {"lo"}
    eventually(lambda: observe.host_ends() == {}, SOON, "all is gone with the services")


def test_mininet(start_agent: StartAgent) -> None:
    need("mn", "brctl")
    agent = start_agent({"rule": [rule(source="process", command="*mininet:h9")]})
    script = f"""
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
net = Mininet(controller=None, switch=LinuxBridge)
switch, alone = net.addSwitch("s1"), net.addHost("h9", ip=None)
pair = [net.addHost("h1"), net.addHost("h2")]
for host in pair:
    net.addLink(host, switch)
net.start()
# A bridge that has just been made may lose what is sent first.
net.ping(pair)
print("lost", net.ping(pair))
print("online", alone.cmd('busybox sh -c "{ONLINE}"').strip())
net.stop()
"""
    said = run(*apart("/usr/bin/python3", "-c", script))
    assert "lost 0.0" in said, "its own network is as it was"
    assert f"online {HOST}" in said, "and who has none there, has one"
    assert len(networked(agent)) == 1


def test_mininet_beside_a_rule_for_all(start_agent: StartAgent) -> None:
    """Its hosts are given devices some time after they were made: ours go as soon as they come."""
    need("mn", "brctl")
    agent = start_agent({"rule": [ANY_PROCESS]})
    mn = "mn --switch=lxbr --controller=none --topo=single,2 --test=pingall --test=pingall 2>&1"
    assert "0% dropped (2/2 received)" in run(*apart("sh", "-c", mn))
    eventually(lambda: observe.host_ends() == {}, SOON, "nothing of ours is left")
    assert agent.events("failed") == []


ID = "4f5e" * 16
SHORT = ID[:12]
IMITATED = {
    f"/system.slice/docker-{ID}.scope": f"docker:{SHORT}",
    f"/machine.slice/libpod-{ID}.scope/container": f"podman:{SHORT}",
    f"/kubepods.slice/kubepods-pod7.slice/cri-containerd-{ID}.scope": f"cri:{SHORT}",
    f"/kubepods.slice/kubepods-pod8.slice/crio-{ID}.scope": f"crio:{SHORT}",
    f"/default/{ID}": f"containerd:{SHORT}",
    "/lxc.payload.web": "lxc:web",
    "/machine.slice/machine-web.scope/payload": "nspawn:web",
    "/system.slice/web.service": "unit:web.service",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service": "unit:user@1000.service/web.service",
}


def test_what_is_not_here_is_imitated(start_agent: StartAgent) -> None:
    """By the control groups that runtimes make, by default or on hosts with systemd and Kubernetes."""
    kinds = [name.partition(":")[0] for name in IMITATED.values()]
    agent = start_agent({"rule": [rule(container=f"{kind}:*") for kind in kinds]})
    with contextlib.ExitStack() as stack:
        for group in IMITATED:
            stack.enter_context(started("unshare", "--net", "sleep", "1000", group=group))
        for number, (group, name) in enumerate(IMITATED.items(), 1):
            agent.wait_event("networked", name=name)
            found = agent.namespaces()[name]
            assert (found["cgroup"], found["container"], found["command"]) == (group, name, "sleep 1000")
            rule_number = 1 + kinds.index(kinds[number - 1])
            assert found["rule"] == f'rule {rule_number}: match container = "{kinds[number - 1]}:*": network default'
    for name in IMITATED.values():
        agent.wait_event("removed", name=name)


def apart(*command: str) -> list[str]:
    """In a process namespace of its own: after a failure mininet kills programs by their names."""
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]


SANDBOXES: dict[str, tuple[str, ...]] = {
    "bwrap": ("bwrap", "--unshare-net", "--ro-bind", "/", "/", "sleep", "1000"),
    "unshare": ("unshare", "--net", "sleep", "1000"),
    "browser": ("setpriv", "--reuid=nobody", "--clear-groups", "unshare", "-Urnpf", "sleep", "1000"),
}


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_sandboxes_stay_offline(start_agent: StartAgent, sandbox: str) -> None:
    """As long as no rule names them, whatever else rules name."""
    command = SANDBOXES[sandbox]
    need(command[0])
    agent = start_agent({"rule": [rule(source="process", command="runner*")]})
    with started(*command):
        (record,) = eventually(lambda: unnamed.namespaces_of_processes(agent), SOON, "it is seen")
        eventually(lambda: unnamed.namespaces_of_processes(agent)[0]["state"] == "left", SOON, "it is left alone")
        assert set(observe.links(Path(record["path"]))) == {"lo"}
    assert networked(agent) == []


def test_a_browser_s_sandbox_stays_offline_even_with_a_rule_for_all(start_agent: StartAgent) -> None:
    need("chromium")
    agent = start_agent({"rule": [ANY_PROCESS]})
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    with started(*nobody, "chromium", "--headless", "--disable-gpu", f"--user-data-dir={HOME}/data", "about:blank"):

        def left_alone() -> list[Record]:
            # Its processes come and go while it starts, and with them who stands for the namespace.
            return [each for each in unnamed.namespaces_of_processes(agent) if each["state"] == "left"]

        (record,) = eventually(left_alone, 20, "its sandbox is seen, and left alone")
        assert record["rule"].startswith("another user namespace owns it")
        assert set(observe.links(Path(record["path"]))) == {"lo"}


def assert_is_its_own(said: str, prefix: str) -> None:
    """What a container says of itself: a network of its own, and nothing of ours."""
    assert prefix in said, said
    assert "172.27." not in said, said
