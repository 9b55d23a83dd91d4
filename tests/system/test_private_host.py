"""The ground the other system tests stand on: a host apart, and nothing left of it."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.demo import internet, private_host, probe, uplink
from agent.demo.isolation import (
    CLONE_NEWNET,
    PrivateHostError,
    add_named,
    delete_named,
    in_initial_namespace,
    inside,
    refuse_initial_namespace,
    unshare,
)
from agent.demo.private_host import PrivateHost
from tests.harness import machine, netns, observe
from tests.harness.waiting import eventually

BEYOND = [uplink.BEYOND4, uplink.BEYOND6, uplink.ROUTER4, uplink.ROUTER6]


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("address", BEYOND)
def test_servers_answer_beyond_the_uplink(private_host: PrivateHost, address: str) -> None:
    assert netns.tcp_connect(None, address, internet.ECHO_PORT) < 0.05
    assert netns.udp_echo(None, address) < 0.05
    assert netns.ping(None, address) == 1
    assert probe.icmp_echo(None, address) < 0.05
    source = uplink.HOST6 if ":" in address else uplink.HOST4
    assert netns.tcp_ask(None, address, internet.WHOAMI_PORT) == source


def test_echo_returns_what_was_sent(private_host: PrivateHost) -> None:
    with socket.create_connection((uplink.BEYOND4, internet.ECHO_PORT), timeout=3) as stream:
        sent = os.urandom(200_000)
        writer = threading.Thread(target=stream.sendall, args=(sent,))
        writer.start()
        received = bytearray()
        while len(received) < len(sent):
            received += stream.recv(65536)
        writer.join()
    assert received == sent


def test_internet_has_no_way_back_to_namespaces(private_host: PrivateHost) -> None:
    observe.run("ip", "address", "add", "172.27.0.1/16", "dev", "lo")
    observe.run("ip", "-6", "address", "add", "fd00:7e74:1::1/64", "dev", "lo")
    for source, beyond in (("172.27.0.1", uplink.BEYOND4), ("fd00:7e74:1::1", uplink.BEYOND6)):
        with netns.socket_in(None, beyond) as sock:
            sock.bind((source, 0))
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                sock.connect((beyond, internet.ECHO_PORT))


def test_is_as_after_boot(private_host: PrivateHost) -> None:
    assert set(observe.links()) == {"lo", uplink.UPLINK}
    assert set(os.listdir("/sys/class/net")) == {"lo", uplink.UPLINK}
    assert observe.nft_json() == []
    assert observe.sysctl("net/ipv4/ip_forward") == "0"
    assert observe.sysctl("net/ipv6/conf/all/forwarding") == "0"
    assert os.listdir("/run") == []


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_uplink_has_the_mtu_asked_for(mtu: int) -> None:
    with PrivateHost(mtu):
        assert observe.links()[uplink.UPLINK]["mtu"] == mtu


def test_ip_netns_works_as_on_a_real_host(private_host: PrivateHost) -> None:
    names: list[str | bytes] = ["web", "-x", "a\nb", b"\xff\xfe", "n" * 255]
    for name in names:
        netns.add_netns(name)
    assert sorted(os.listdir(b"/run/netns")) == sorted(os.fsencode(name) for name in names)
    assert "web" in observe.run("ip", "netns", "exec", "web", "ip", "netns", "identify")
    for name in names:
        netns.del_netns(name)
    assert os.listdir("/run/netns") == []


def test_quick_namespaces_are_what_ip_makes(private_host: PrivateHost) -> None:
    netns.add_many(["quick"])
    netns.add_netns("slow")
    assert observe.run("ip", "netns", "list").split() == ["slow", "quick"]
    with inside("quick"):
        assert os.stat("/proc/thread-self/ns/net").st_ino == os.stat("/run/netns/quick").st_ino
    assert set(observe.links("quick")) == {"lo"}
    delete_named("quick")
    assert observe.run("ip", "netns", "list").split() == ["slow"]


def test_default_route_is_heard_of(private_host: PrivateHost) -> None:
    netns.add_netns("web")
    observe.run("ip", "link", "set", "lo", "up", netns="web")
    with pytest.raises(TimeoutError):
        netns.await_default_route("web", timeout=0.05)
    adding = subprocess.Popen(["ip", "-n", "web", "route", "add", "default", "dev", "lo"])
    netns.await_default_route("web")
    assert adding.wait() == 0
    assert netns.await_default_route("web") < 0.05


def test_shows_nothing_to_the_machine_and_leaves_nothing() -> None:
    before = machine.snapshot()
    files, here = _open_files(), os.getcwd()
    outside = ThreadPoolExecutor(1)
    outside.submit(int).result()
    with outside, PrivateHost():
        netns.add_netns("web")
        for path in ("/etc/vethd/vethd.toml", "/var/lib/vethd/leases", "/run/vethd/x"):
            Path(path).parent.mkdir()
            Path(path).touch()
        with inside("web"):
            deaf = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; setsid sleep 600"], stdout=subprocess.PIPE)
        assert deaf.stdout is not None
        deaf.stdout.readline()
        # A thread that was there before has stayed outside.
        assert os.path.isdir("/etc/vethd")
        assert not outside.submit(os.path.isdir, "/etc/vethd").result()
    with deaf.stdout:
        assert deaf.wait() != 0
    assert in_initial_namespace()
    assert os.getcwd() == here
    assert _open_files() == files
    assert machine.differences(before, machine.snapshot()) == []


def test_ends_what_is_forked_while_it_ends_its_processes() -> None:
    with PrivateHost():
        forking = subprocess.Popen(
            ["sh", "-c", "echo; for i in $(seq 400); do sleep 600 & done; wait"], stdout=subprocess.PIPE
        )
        assert forking.stdout is not None
        forking.stdout.readline()
    with forking.stdout:
        # Whoever is still there holds it open.
        os.set_blocking(forking.stdout.fileno(), False)
        assert forking.stdout.read() == b""
    assert forking.wait() != 0


def test_may_be_made_over_and_over() -> None:
    with PrivateHost():
        pass
    files = _open_files()
    for _ in range(50):
        with PrivateHost():
            assert not in_initial_namespace()
        assert in_initial_namespace()
    assert _open_files() == files


def test_threads_have_hosts_of_their_own() -> None:
    together = threading.Barrier(3, timeout=30)

    def live(name: str) -> None:
        for _ in range(3):
            with PrivateHost():
                netns.add_netns(name)
                together.wait()
                assert os.listdir("/run/netns") == [name]
                together.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(live, ["a", "b", "c"]))


def test_may_be_left_while_a_thread_started_there_still_runs() -> None:
    end = threading.Event()
    with PrivateHost():
        thread = threading.Thread(target=end.wait)
        thread.start()
    assert in_initial_namespace()
    end.set()
    thread.join()


def test_is_left_when_the_block_fails() -> None:
    with pytest.raises(KeyError), PrivateHost():
        raise KeyError
    assert in_initial_namespace()


def test_servers_end_with_whoever_started_them(private_host: PrivateHost) -> None:
    program = (
        "import os\n"
        "from agent.demo.private_host import PrivateHost\n"
        "with PrivateHost() as host:\n"
        "    print(host._children[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    pid = int(done.stdout)
    eventually(lambda: not _alive(pid), 3, f"process {pid} has ended")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_changes_are_refused_on_the_machine_itself() -> None:
    assert in_initial_namespace()
    for change in (add_named, delete_named, netns.add_netns, netns.del_netns):
        with pytest.raises(PrivateHostError):
            change("x")
    with pytest.raises(PrivateHostError):
        refuse_initial_namespace()


def test_refuses_when_unshare_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # The way back takes one that works, when other threads of this process are alive.
    monkeypatch.setattr(private_host, "unshare", lambda flags: None if flags & CLONE_NEWNET else unshare(flags))
    with pytest.raises(PrivateHostError, match="own network namespace"), PrivateHost():
        pytest.fail("the block was entered")
    assert in_initial_namespace()


def test_without_root_it_says_so() -> None:
    program = "from agent.demo.private_host import PrivateHost\nwith PrivateHost(): pass"
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "it takes root" in done.stderr.splitlines()[-1]


def test_is_quick_to_make() -> None:
    took = []
    for _ in range(5):
        begin = time.monotonic()
        with PrivateHost():
            pass
        took.append(time.monotonic() - begin)
    assert sorted(took)[2] < 1.0
