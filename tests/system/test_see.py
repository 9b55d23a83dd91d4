"""Point 1: named namespaces are seen, however they come, go and come back."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.demo.isolation import MS_BIND, add_named, delete_named, mount, mount_new_namespace, named_path, unmount
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import assert_works, host_end
from tests.harness.running import Agent
from tests.harness.waiting import always, eventually

NETNS = Path("/run/netns")


def _gone(agent: Agent, name: str) -> bool:
    return name not in agent.namespaces() and not any(
        link.get("ifalias") == f"vethd:{name}" for link in observe.links().values()
    )


def test_those_there_at_start_are_networked_when_it_is_ready(start_agent: StartAgent) -> None:
    names = [f"n{number}" for number in range(10)]
    netns.add_many(names)
    agent = start_agent()
    assert {name: found["state"] for name, found in agent.namespaces().items()} == dict.fromkeys(names, "ready")
    for name in names:
        assert_works(name)


def test_appear(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    assert_works("web")


def test_removed(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    netns.del_netns("web")
    eventually(lambda: _gone(agent, "web"), 2, "web is gone")


def test_removed_and_made_again_at_once_is_another_namespace(agent: Agent) -> None:
    netns.add_many(["web"])
    cookies = {agent.wait_ready("web")["cookie"]}
    for _ in range(20):
        delete_named("web")
        add_named("web")
        eventually(lambda: agent.namespaces().get("web", {}).get("cookie") not in {None, *cookies}, 5, "a new web")
        cookies.add(agent.wait_ready("web")["cookie"])
        assert_works("web")
    eventually(lambda: len(observe.host_ends()) == 1, 2, "one host end is left")


def test_flickering_names_settle(agent: Agent) -> None:
    netns.add_many(["web"])
    for _ in range(100):
        delete_named("web")
        add_named("web")
    with netns.enter("web"):
        cookie = _cookie()
    eventually(lambda: agent.namespaces()["web"]["cookie"] == cookie, 5, "the last web is known")
    agent.wait_ready("web")
    assert_works("web")
    eventually(lambda: len(observe.host_ends()) == 1, 2, "one host end is left")


def test_renamed_by_an_extra_name_keeps_its_network(agent: Agent) -> None:
    netns.add_netns("old")
    before = agent.wait_ready("old")
    device = host_end("old")["ifindex"]
    _bind(named_path("old"), "new")
    eventually(lambda: "new" in {*agent.namespaces(), *agent.namespaces()["old"]["aliases"]}, 2, "new is known")
    assert len(observe.host_ends()) == 1
    netns.del_netns("old")
    eventually(lambda: "old" not in agent.namespaces(), 2, "old is gone")
    eventually(lambda: agent.namespaces()["new"]["state"] == "ready", 2, "new stands for it")
    after = agent.namespaces()["new"]
    assert (after["cookie"], after["address"]) == (before["cookie"], before["address"])
    eventually(lambda: [link["ifindex"] for link in observe.host_ends().values()] == [device], 2, "the same device")
    eventually(lambda: host_end("new"), 2, "the host end bears the new name")
    assert_works("new")


@pytest.mark.parametrize("directory", ["/run/netns", "/run/a/b/c"])
def test_directory_is_made_later(start_agent: StartAgent, directory: str) -> None:
    agent = start_agent({"discovery": {"directories": [directory]}})
    os.makedirs(directory)
    add_named(Path(directory, "web"))
    agent.wait_ready("web")
    assert_works(Path(directory, "web"))


def test_several_directories(start_agent: StartAgent) -> None:
    agent = start_agent({"discovery": {"directories": ["/run/one", "/run/two"]}})
    for name in ("one", "two"):
        os.mkdir(f"/run/{name}")
        add_named(Path("/run", name, name))
        agent.wait_ready(name)
        assert_works(Path("/run", name, name))


def test_directory_is_removed_and_made_again(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    netns.del_netns("web")
    unmount(str(NETNS))
    NETNS.rmdir()
    eventually(lambda: _gone(agent, "web"), 2, "web is gone")
    netns.add_netns("again")
    agent.wait_ready("again")
    assert_works("again")


def test_directory_is_unmounted(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    unmount(str(NETNS))
    eventually(lambda: agent.namespaces().get("web", {}).get("state") != "ready", 2, "web is networked no more")
    eventually(lambda: not observe.host_ends(), 2, "its host end is gone")
    netns.add_netns("new")
    agent.wait_ready("new")
    assert_works("new")


def test_directory_is_covered_by_a_mount_and_bared_again(agent: Agent) -> None:
    netns.add_netns("web")
    address = agent.wait_ready("web")["address"]
    mount("cover", str(NETNS), "tmpfs")
    eventually(lambda: _gone(agent, "web"), 2, "web is gone")
    netns.add_netns("new")
    agent.wait_ready("new")
    assert_works("new")
    unmount(str(NETNS))
    eventually(lambda: _gone(agent, "new"), 2, "new is gone")
    assert agent.wait_ready("web")["address"] == address
    assert_works("web")


def test_a_placeholder_is_waited_for(agent: Agent) -> None:
    netns.add_netns("first")
    placeholder = NETNS / "slow"
    placeholder.touch(0)
    always(lambda: agent.namespaces().get("slow", {}).get("state") != "ready", 0.3, "nothing is done yet")
    agent.wait_ready("first")
    mount_new_namespace(os.fsencode(placeholder))
    agent.wait_ready("slow")
    assert_works("slow")


@pytest.mark.parametrize(
    "name",
    ["-x", "--", "a\nb", " sp ace", "$(id)", ".hid", "é", 'a"}b', "\x1b[31m", "n" * 255, b"\xff\xfe", "%s{0}\\"],
    ids=ascii,
)
def test_a_name_may_be_anything_a_file_name_can_be(agent: Agent, name: str | bytes) -> None:
    netns.add_netns(name)
    found = agent.wait_ready(name)
    assert os.fsencode(found["name"]) == os.fsencode(name)
    assert_works(name)
    shown = agent.cli("list")
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 2, "one line of heading, one of the namespace"
    netns.del_netns(name)
    eventually(lambda: not observe.host_ends() and not agent.namespaces(), 2, "it is gone")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _file(path: Path) -> None:
    path.write_text("x")


def _other_kind(path: Path) -> None:
    path.touch()
    mount("/proc/self/ns/uts", str(path), flags=MS_BIND)


def _host_itself(path: Path) -> None:
    path.touch()
    mount("/proc/thread-self/ns/net", str(path), flags=MS_BIND)


STRANGERS: dict[str, Callable[[Path], None]] = {
    "file": _file,
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "symlink to the host": lambda path: path.symlink_to("/proc/thread-self/ns/net"),
    "dangling symlink": lambda path: path.symlink_to("nowhere"),
    "socket": _socket,
    "namespace of another kind": _other_kind,
    "the host's own namespace": _host_itself,
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_namespace_to_network_is_let_be(agent: Agent, kind: str) -> None:
    netns.add_netns("first")
    agent.wait_ready("first")
    before = set(observe.links())
    STRANGERS[kind](NETNS / "odd")
    always(lambda: set(observe.links()) == before, 0.2, "no device is made")
    assert agent.namespaces().get("odd", {}).get("state") != "ready"
    netns.add_netns("later")
    agent.wait_ready("later")
    assert_works("later")


def test_excluded_names_are_left_alone_by_that_rule(agent: Agent) -> None:
    for name in ("cni-1", "netns-1", "qrouter-1", "qdhcp-1"):
        netns.add_netns(name)
        waited = agent.cli("wait", name)
        assert waited.returncode == 3
        assert f"{name.partition('-')[0]}-*" in waited.stderr
        assert f"{name.partition('-')[0]}-*" in agent.cli("explain", name).stdout
        assert set(observe.links(name)) == {"lo"}
    assert observe.host_ends() == {}


def test_a_namespace_that_somebody_else_networked_is_left_alone(start_agent: StartAgent) -> None:
    netns.add_netns("theirs")
    observe.run("ip", "link", "add", "their0", "type", "veth", "peer", "name", "in0", "netns", "theirs")
    observe.run("ip", "link", "set", "their0", "up")
    for command in ("address add 10.9.0.2/24 dev in0", "link set in0 up", "route add default via 10.9.0.1"):
        observe.run("ip", "-n", "theirs", *command.split())
    before = observe.links("theirs")
    agent = start_agent()
    assert agent.namespaces()["theirs"]["state"] == "left"
    assert "in0" in agent.cli("explain", "theirs").stdout
    assert observe.links("theirs") == before
    assert observe.host_ends() == {}


def test_one_that_lives_on_without_a_name_is_taken_up_again_with_one(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    with netns.enter("web"):
        holder = subprocess.Popen(["sleep", "60"])
    try:
        netns.del_netns("web")
        eventually(lambda: _gone(agent, "web"), 2, "web is gone")
        _bind(f"/proc/{holder.pid}/ns/net", "back")
        agent.wait_ready("back")
        assert_works("back")
    finally:
        holder.kill()
        holder.wait()


def test_the_agent_may_stand_in_a_slave_mount_namespace(private_host: PrivateHost, start_agent: StartAgent) -> None:
    agent = start_agent(start=False)
    agent.start(prefix=("unshare", "--mount", "--propagation", "slave"))
    netns.add_netns("web")
    agent.wait_ready("web")
    assert_works("web")


def _bind(source: str | bytes, name: str) -> None:
    (NETNS / name).touch(0)
    mount(os.fsdecode(source), str(NETNS / name), flags=MS_BIND)


def _cookie() -> int:
    with socket.socket() as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 71, 8), "little")
