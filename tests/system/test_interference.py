"""Others interfere: firewalls that reload, managers that wipe, and whoever does it again and again."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from agent.demo.private_host import PrivateHost
from tests.harness import netns, observe
from tests.harness.expect import (
    BRIDGE,
    DEVICE,
    GATEWAY4,
    GATEWAY6,
    assert_works,
    connects,
    eventually_works,
    host_end,
    shape,
    why_not_working,
)
from tests.harness.running import Agent, held_up
from tests.harness.streams import Stream
from tests.harness.waiting import eventually
from tests.soak import drift
from tests.soak.lives import Lives

NETWORKD = Path("/lib/systemd/systemd-networkd")
CONFIG = Path(__file__).resolve().parents[2] / "config"
BY_EVENT = 2.0
# Once all is out of order at once, with two processors and much else going on.
ALL_AT_ONCE = 8.0
PERSISTENT_SECONDS = 8.0
FIREWALLD = """
flush ruleset
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state established,related accept
        iifname "vethd0" accept
        oifname "vethd0" accept
        reject
    }
}
"""


@pytest.fixture
def pair(agent: Agent) -> Agent:
    """The agent, with two namespaces networked."""
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


@contextlib.contextmanager
def again_and_again(deed: Callable[[], object], pause: float = 0.02) -> Iterator[None]:
    """Somebody does it all the time, for the length of the block."""
    end = threading.Event()

    def work() -> None:
        while not end.wait(pause):
            deed()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_everything_at_once_while_others_come_and_go(pair: Agent) -> None:
    before = {name: shape(name) for name in ("web", "db")}
    with Lives(pair, seed=5, most=10) as lives:
        load = threading.Thread(target=lives.live, args=(40,))
        load.start()
        drift.damage(*drift.of_one("web").values(), *drift.of_one("db").values(), *drift.HOST.values())
        load.join()
        lives.settle()
        for name in ("web", "db"):
            eventually_works(name, ALL_AT_ONCE)
        eventually(lambda: all(_shape(name) == each for name, each in before.items()), ALL_AT_ONCE, "all is as before")
    assert connects("web", "db")


def _shape(name: str) -> object:
    try:
        return shape(name)
    except (AssertionError, KeyError):
        return None


def test_a_stream_tells_what_was_lost(private_host: PrivateHost, pair: Agent) -> None:
    """The test of the tests: packets that are dropped are missed."""
    with Stream(private_host, "web") as stream:
        stream.await_beats(10)
        assert stream.lost() == 0
        observe.run("nft", "add table inet lossy; add chain inet lossy f { type filter hook forward priority 0; }")
        observe.run("nft", "add rule inet lossy f ip daddr 198.51.100.1 drop")
        eventually(lambda: stream.lost() > 0, 5, "it is noticed")
        observe.run("nft", "delete table inet lossy")
        stream.await_beats(10)


def test_who_flushed_the_rules_is_named(pair: Agent) -> None:
    with netns.reading([*pair.command("watch"), "--json"]) as watched:
        for _ in pair.namespaces():
            watched.readline()
        observe.run("nft", "flush", "ruleset")
        told = json.loads(watched.readline())
    assert told["event"] == "host-repaired"
    assert told["culprit"].startswith("nft (process ")
    assert told["kinds"] == ["ruleset"]
    assert pair.wait_event("host-repaired")["culprit"] == told["culprit"]
    explained = pair.cli("explain", "web").stdout
    assert "ruleset, changed by nft (process " in explained


def test_what_was_sent_while_there_were_no_rules_is_translated_once_there_are(pair: Agent) -> None:
    """It goes on from the same port: conntrack would remember for as long that it is not to be translated."""
    with netns.socket_in("web", uplink.BEYOND4, socket.SOCK_DGRAM) as sock, held_up(pair):
        sock.bind(("0.0.0.0", 5000))
        sock.settimeout(0.2)
        subprocess.run(["nft", "-f", "-"], input=FIREWALLD, text=True, check=True)
        sock.sendto(b"lost", (uplink.BEYOND4, internet.ECHO_PORT))
        with pytest.raises(TimeoutError):
            sock.recv(64)
        os.kill(pair.pid, signal.SIGCONT)
        eventually(lambda: _echoes(sock), 3, "it is answered")


def _echoes(sock: socket.socket) -> bool:
    sock.sendto(b"again", (uplink.BEYOND4, internet.ECHO_PORT))
    try:
        return sock.recv(64) == b"again"
    except TimeoutError:
        return False


def test_a_firewall_reloads_as_firewalld_does(pair: Agent) -> None:
    """It flushes everything and loads its own, in one transaction."""
    for _ in range(3):
        subprocess.run(["nft", "-f", "-"], input=FIREWALLD, text=True, check=True)
        eventually(lambda: "masquerade" in observe.nft_text(), BY_EVENT, "our rules are back")
        assert "table inet firewalld" in observe.nft_text(), "and theirs are left alone"
        eventually_works("web", BY_EVENT)


def test_a_manager_wipes_addresses_of_devices_that_it_does_not_know(pair: Agent) -> None:
    """As NetworkManager does when it takes a device over: addresses, routes, and down and up again."""
    for _ in range(2):
        end = host_end("web")["ifname"]
        for device in (BRIDGE, end):
            drift.damage(
                f"ip address flush dev {device}; ip -6 address flush dev {device}; ip route flush dev {device}"
            )
            drift.damage(f"ip link set {device} down; ip link set {device} up")
        for name in ("web", "db"):
            eventually_works(name, BY_EVENT + 1)
        assert observe.addresses(BRIDGE) == {f"{GATEWAY4}/16", f"{GATEWAY6}/64"}


def test_forwarding_is_dropped_by_policy_as_docker_does(private_host: PrivateHost, pair: Agent) -> None:
    """Packets that others drop are theirs to let through: the doctor says how, and that is enough."""
    assert observe.sysctl("net/bridge/bridge-nf-call-iptables") == "1", "bridged packets pass the firewall too"
    observe.run("iptables", "-P", "FORWARD", "DROP")
    eventually(lambda: why_not_working("web", timeout=0.2), 3, "nothing is forwarded")
    findings = json.loads(pair.cli("doctor", "--json").stdout)["findings"]
    (found,) = [each for each in findings if each["id"] == "forward-drop" and each["severity"] == "critical"]
    observe.run("sh", "-c", found["fix"])
    assert_works("web")
    assert connects("web", "db")
    # A flush of everything takes the remedy away with the drop; what is ours is back.
    observe.run("nft", "flush", "ruleset")
    eventually_works("web", BY_EVENT)
    netns.add_netns("late")
    pair.wait_ready("late")
    assert_works("late")


def test_somebody_s_default_route_inside_is_left_alone_and_told(pair: Agent) -> None:
    observe.run("ip", "route", "replace", "default", "via", "172.27.0.99", "dev", DEVICE, "onlink", netns="web")
    reason = eventually(lambda: pair.namespaces()["web"]["reason"], BY_EVENT, "it is told")
    assert "somebody else's default route" in reason
    assert "somebody else's default route" in pair.cli("explain", "web").stdout
    assert ("172.27.0.99", DEVICE) in observe.default_routes("web")
    observe.run("ip", "route", "del", "default", netns="web")
    eventually_works("web", BY_EVENT)
    assert pair.namespaces()["web"]["reason"] == ""


def test_somebody_s_bridge_takes_our_name(pair: Agent) -> None:
    before = {name: found["address"] for name, found in pair.namespaces().items()}
    # The agent would be faster.
    with held_up(pair):
        observe.run("ip", "link", "del", BRIDGE)
        observe.run("ip", "link", "add", BRIDGE, "type", "bridge")
    wanted = f"a device {BRIDGE} that vethd did not make"
    eventually(lambda: any(wanted in line for line in pair.ask("/v1/status")[1]["problems"]), 3, "it is told")
    assert observe.links()[BRIDGE].get("ifalias") is None, "theirs is left alone"
    observe.run("ip", "link", "del", BRIDGE)
    for name in before:
        eventually_works(name, 10)
    assert {name: found["address"] for name, found in pair.namespaces().items()} == before
    assert not pair.ask("/v1/status")[1]["problems"]


def test_both_marks_of_a_device_are_wiped_at_once(pair: Agent) -> None:
    """By its name and its MAC it is still known, also by an agent that has just started."""
    pair.stop()
    pair.start()
    end = host_end("web")
    observe.run("sh", "-c", f"ip link set {end['ifname']} group 0; ip link set {end['ifname']} alias ''")
    eventually(
        lambda: "vethd:web" in str(observe.links()[end["ifname"]].get("ifalias")), BY_EVENT, "it is marked again"
    )
    assert host_end("web")["ifindex"] == end["ifindex"]
    assert_works("web")


def test_what_its_owner_adds_takes_nothing_from_a_namespace_after_a_restart(pair: Agent) -> None:
    """A bridge of containers, a VPN: with a route, but for the name it would be somebody else's network."""
    pair.stop()
    end = host_end("web")["ifindex"]
    for command in ("link add br0 type bridge", "address add 10.5.0.1/24 dev br0", "link set br0 up"):
        observe.run("ip", *command.split(), netns="web")
    pair.start()
    observe.run("ip", "route", "del", "default", netns="web")
    eventually_works("web", BY_EVENT)
    assert pair.namespaces()["web"]["state"] == "ready"
    assert host_end("web")["ifindex"] == end


def _repairs(agent: Agent) -> dict[str, int]:
    """How often the host was repaired, and each namespace."""
    found = {name: len(agent.events("repaired", name=name)) for name in ("web", "db")}
    return found | {"the host": len(agent.events("host-repaired"))}


PERSISTENT = {
    "a route inside": lambda: drift.damage("ip -n web route del default"),
    "the rules": lambda: drift.damage("nft flush ruleset"),
    "the bridge": lambda: drift.damage(f"ip link set {BRIDGE} down"),
    "forwarding": lambda: drift.damage("echo 0 > /proc/sys/net/ipv4/ip_forward"),
}


@pytest.mark.parametrize("what", PERSISTENT)
def test_who_does_it_again_and_again_is_not_fought(private_host: PrivateHost, pair: Agent, what: str) -> None:
    """Five times it is repaired at once, then once a second at most; it is told, and ends when he does."""
    with again_and_again(PERSISTENT[what]):
        eventually(lambda: pair.events("contested"), PERSISTENT_SECONDS, "it is told")
        before, begin = _repairs(pair), time.monotonic()
        eventually(lambda: time.monotonic() - begin > 4, 6, "it goes on")
        most = time.monotonic() - begin + 2
        assert [repairs for subject, repairs in _repairs(pair).items() if repairs - before[subject] > most] == []
        if what == "a route inside":
            assert "somebody keeps undoing" in pair.cli("explain", "web").stdout
        else:
            assert [line for line in pair.ask("/v1/status")[1]["problems"] if "somebody keeps undoing" in line]
    eventually_works("web", 5)
    eventually_works("db", 5)
    subjects = [told.get("name", "the host") for told in pair.events("contested")]
    assert len(subjects) == len(set(subjects)), "each is told once"


@pytest.mark.parametrize("installed", [False, True], ids=["without what we ship", "with it"])
def test_networkd_takes_every_device_that_it_is_not_told_to_leave(
    private_host: PrivateHost, pair: Agent, installed: bool
) -> None:
    """The real one, with a configuration that matches all, as images for the cloud have it."""
    if not NETWORKD.exists():
        pytest.skip(f"there is no {NETWORKD}")
    directory = Path("/run/systemd/network")
    directory.mkdir(parents=True)
    (directory / "50-all.network").write_text("[Match]\nName=*\n[Network]\nAddress=10.66.0.1/24\n")
    if installed:
        shutil.copy(CONFIG / "vethd.network", directory / "10-vethd.network")
    # Where /sys cannot be written to there is no udev to wait for (systemd's sd-device).
    observe.run("sh", "-c", "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp")
    observe.run("sh", "-c", "chown -R systemd-network /run/systemd/netif; mount -o remount,bind,ro /sys")
    before = observe.addresses(BRIDGE)
    with open("/run/networkd.log", "wb") as log:
        environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "debug", "SYSTEMD_LOG_TARGET": "console"}
        private_host.spawn([str(NETWORKD)], stdout=log, stderr=log, env=environment)
    states = {False: f"{BRIDGE}: State changed: initialized -> configuring", True: f"{BRIDGE}: .* unmanaged"}
    known = re.compile(states[installed])
    eventually(lambda: known.search(Path("/run/networkd.log").read_text()), 10, "it has made up its mind")
    if not installed:
        eventually(lambda: "10.66.0.1/24" in observe.addresses(BRIDGE), 10, "and set it up as its own")
        return
    assert observe.addresses(BRIDGE) == before
    for name in ("web", "db"):
        assert_works(name)
