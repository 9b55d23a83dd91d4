"""Point 7: an address that changes hands brings nothing of its former holder to the next one.

The same name gets the same address again, so the next holder is a new namespace of the same name. For namespaces on
the bridge, for routed ones, and for an address that goes from the one kind to the other.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from agent.demo import internet, probe, uplink
from agent.demo.isolation import add_named, delete_named, inside
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import GATEWAY4, KINDS, address4, address6, assert_works, host_end
from tests.harness.running import Agent
from tests.harness.waiting import eventually

PORT = 5353
PAUSE = 0.002


@pytest.fixture(params=KINDS)
def agent(start_agent: StartAgent, request: pytest.FixtureRequest) -> Agent:
    agent = start_agent({"network.default": {"bridge_ports": KINDS[request.param]}})
    for name in ("web", "peer"):
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


class Sender:
    """Sends numbered datagrams without end, from wherever its socket was made, to whoever has the address now."""

    def __init__(self, sock: socket.socket, target: tuple[str, int]) -> None:
        self.sent = 0
        self._socket, self._target = sock, target
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._end.wait(PAUSE):
            # Nobody is there, for a while.
            with contextlib.suppress(OSError):
                self._socket.sendto(str(self.sent).encode(), self._target)
            self.sent += 1

    def await_more(self, count: int) -> None:
        aim = self.sent + count
        eventually(lambda: self.sent >= aim, 10, "more was sent")


@contextlib.contextmanager
def listening(name: str, address: str) -> Iterator[socket.socket]:
    with netns.socket_in(name, address, socket.SOCK_DGRAM) as sock:
        sock.bind((address, PORT))
        sock.settimeout(2)
        yield sock


def heard(sock: socket.socket) -> int:
    return int(sock.recv(64))


def free(agent: Agent, names: int) -> None:
    eventually(lambda: agent.ask("/v1/status")[1]["networks"][0]["leases"] == names, 3, "its lease is free")


@pytest.mark.parametrize("source", [None, "peer"], ids=["host", "peer"])
def test_the_next_holder_hears_what_is_sent_to_it_and_nothing_of_before(agent: Agent, source: str | None) -> None:
    with contextlib.ExitStack() as stack:
        addresses = (address4("web"), address6("web"))
        senders = [
            stack.enter_context(Sender(netns.socket_in(source, address, socket.SOCK_DGRAM), (address, PORT)))
            for address in addresses
        ]
        for address in addresses:
            with listening("web", address) as former:
                heard(former)
        delete_named("web")
        free(agent, 1)
        for sender in senders:
            sender.await_more(20)
        add_named("web")
        agent.wait_ready("web")
        assert (address4("web"), address6("web")) == addresses
        for address, sender in zip(addresses, senders, strict=True):
            begin = sender.sent
            with listening("web", address) as fresh:
                first = heard(fresh)
                # What was on its way when the socket was bound may be told.
                assert begin - 3 <= first <= begin + 20, "from the first moment on, and not before"
                assert [heard(fresh) for _ in range(20)] == [first + count for count in range(1, 21)], "and all of it"


def test_what_waited_for_somebody_to_come_is_not_for_the_next_holder(agent: Agent) -> None:
    """The kernel keeps packets to an address while it asks for it, for three seconds."""
    address = address4("web")
    with Sender(netns.socket_in(None, address, socket.SOCK_DGRAM), (address, PORT)) as sender:
        delete_named("web")
        free(agent, 1)
        os.kill(agent.pid, signal.SIGSTOP)
        add_named("web")
        with listening("web", "0.0.0.0") as fresh:
            sender.await_more(50)
            stopped = sender.sent
            os.kill(agent.pid, signal.SIGCONT)
            assert heard(fresh) >= stopped


def test_a_stranger_beyond_the_host_is_not_passed_on_to_the_next_holder(
    private_host: PrivateHost, agent: Agent
) -> None:
    """Who answered the former holder goes on sending to the host's port that stood for it."""
    address = address4("web")
    with inside(private_host.internet):
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind((uplink.BEYOND4, 4000))
    far.settimeout(2)
    with listening("web", address) as former:
        former.sendto(b"hello", (uplink.BEYOND4, 4000))
        _, outside = far.recvfrom(64)
        sender = Sender(far, outside)
        with sender:
            heard(former)
            delete_named("web")
            free(agent, 1)
            add_named("web")
            agent.wait_ready("web")
            with listening("web", address) as fresh:
                fresh.settimeout(0.3)
                sender.await_more(20)
                with pytest.raises(TimeoutError):
                    heard(fresh)
    assert not [line for line in observe.conntrack_list() if "dport=4000" in line and address in line]


def test_the_next_holder_begins_at_nothing(agent: Agent) -> None:
    """The same port to the same place is a connection of its own, which stands at once."""

    def echo() -> None:
        with netns.socket_in("web", uplink.BEYOND4, socket.SOCK_DGRAM) as asking:
            asking.settimeout(2)
            asking.bind((address4("web"), 6000))
            asking.sendto(b"x", (uplink.BEYOND4, internet.ECHO_PORT))
            assert asking.recv(8) == b"x"

    echo()
    delete_named("web")
    free(agent, 1)
    add_named("web")
    agent.wait_ready("web")
    assert not agent.metric("vethd_conntrack_connections_total", netns="web")
    echo()
    assert agent.metric("vethd_conntrack_connections_total", netns="web", direction="opened") == 1


def test_the_next_holder_begins_at_nothing_though_nobody_saw_the_former_go(agent: Agent) -> None:
    addresses = (address4("web"), address6("web"))
    for beyond in (uplink.BEYOND4, uplink.BEYOND6):
        netns.udp_echo("web", beyond, internet.ECHO_PORT)
    agent.kill()
    delete_named("web")
    add_named("web")
    agent.start()
    agent.wait_ready("web")
    assert (address4("web"), address6("web")) == addresses
    assert not [line for line in observe.conntrack_list() if any(f"={address} " in line for address in addresses)]
    assert not agent.metric("vethd_conntrack_connections_total", netns="web")
    mark = agent.mark()
    delete_named("web")
    assert agent.wait_event("removed", since=mark, name="web")["connections_opened"] == 0


MOVES = {"from the bridge": ("port", "routed"), "to the bridge": ("routed", "port")}


@pytest.mark.parametrize("move", MOVES)
def test_neighbours_reach_an_address_at_once_wherever_it_went(start_agent: StartAgent, move: str) -> None:
    """On the bridge they know a MAC for the address, which is not asked for again for a while."""
    agent = start_agent({"network.default": {"bridge_ports": 2}})
    order = ["peer", "web", "other"] if move == "from the bridge" else ["peer", "other", "web"]
    for name in order:
        netns.add_netns(name)
        agent.wait_ready(name)
    addresses = [address4("web"), address6("web")]
    assert kind("web") == MOVES[move][0]
    assert [netns.ping(name, address) for name in ("peer", "other") for address in addresses] == [1] * 4
    delete_named("web")
    free(agent, 2)
    if move == "from the bridge":
        netns.add_netns("takes the place")
        agent.wait_ready("takes the place")
    else:
        delete_named("other")
        free(agent, 1)
    add_named("web")
    agent.wait_ready("web")
    assert [address4("web"), address6("web")] == addresses
    assert kind("web") == MOVES[move][1]
    for address in addresses:
        assert probe.icmp_echo("peer", address) < 0.5
        assert probe.icmp_echo(None, address) < 0.5
    assert_works("web")
    assert netns.ping("web", GATEWAY4) == 1


def kind(name: str) -> str:
    return "port" if host_end(name).get("master") else "routed"


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("beyond", [uplink.BEYOND4, uplink.BEYOND6])
def test_nothing_is_left_of_connections_that_were_opened_before_the_rules_were_flushed(
    agent: Agent, beyond: str, dead: bool
) -> None:
    """What counted them is gone, and who is admitted anew may have some, whether the agent was there or not."""
    address = address4("web") if beyond == uplink.BEYOND4 else address6("web")
    netns.udp_echo("web", beyond, internet.ECHO_PORT)
    assert any(f"={address} " in line for line in observe.conntrack_list())
    mark = agent.mark()
    if dead:
        agent.kill()
    observe.run("nft", "flush", "ruleset")
    if not dead:
        agent.wait_event("host-repaired", since=mark)
    observe.run("ip", "link", "del", str(host_end("web")["ifname"]))
    # Without a packet of its own, which would be counted.
    if dead:
        agent.start()
        agent.wait_ready("web")
    else:
        agent.wait_event("repaired", since=mark, name="web")
    netns.del_netns("web")
    agent.wait_event("removed", since=mark, name="web")
    assert not [line for line in observe.conntrack_list() if f"={address} " in line]
