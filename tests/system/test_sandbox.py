"""The network that we ship for code that nobody trusts, as it is shipped: what its namespaces reach, and what not."""

import contextlib
import select
import socket
import time
from pathlib import Path

import pytest

from agent import config
from agent.demo import internet, probe, uplink
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, GATEWAY4, address4
from tests.harness.running import Agent

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "sandbox.toml"
GATEWAY = "172.28.0.1"
NAMES = ("sandbox-port", "sandbox-other-port", "sandbox-routed", "sandbox-other-routed")
METRICS_PORT = 9853
SERVICE = 4711
NOT_REACHED = 0.3


@pytest.fixture
def agent(start_agent: StartAgent) -> Agent:
    """With the shipped file; two namespaces of the sandbox are ports of its bridge, two are routed."""
    agent = start_agent(start=False)
    ours = agent.config.read_text()
    few = SHIPPED.read_text().replace("[network.sandbox]\n", "[network.sandbox]\nbridge_ports = 2\n")
    agent.config.write_text(f"{few}\n{ours}")
    agent.start()
    for name in (*NAMES, "trusted"):
        netns.add_netns(name)
        agent.wait_ready(name)
    return agent


def reached(name: str, *targets: tuple[str, int]) -> list[tuple[str, int]]:
    """Which of these a namespace connects to, all tried at once."""
    with contextlib.ExitStack() as stack:
        trying = {}
        for target in targets:
            client = stack.enter_context(probe.socket_in(name, target[0]))
            client.setblocking(False)
            client.connect_ex(target)
            trying[client] = target
        deadline = time.monotonic() + NOT_REACHED
        found = []
        while (left := deadline - time.monotonic()) > 0 and trying:
            for client in select.select([], trying, [], left)[1]:
                # Ready, too, once it was refused.
                if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(trying[client])
                del trying[client]
        return sorted(found)


def test_it_can_be_loaded_as_it_is() -> None:
    loaded = {network.name: network for network in config.load(SHIPPED).networks}
    sandbox = loaded["sandbox"]
    assert (sandbox.host_access, sandbox.isolate, sandbox.anti_spoof, sandbox.reach) == ("none", True, True, ())
    assert loaded["default"] == config.load(None).networks[0]


def test_the_table_that_it_proposes_is_one(private_host: object) -> None:
    proposed = [line.removeprefix("#   ") for line in SHIPPED.read_text().splitlines() if line.startswith("#   ")]
    Path("/run/proposed").write_text("\n".join(proposed))
    observe.run("nft", "-f", "/run/proposed")
    assert "table inet sandbox" in observe.nft_text()


def test_what_a_sandbox_reaches_and_what_not(agent: Agent) -> None:
    assert [agent.namespaces()[name]["network"] for name in NAMES] == ["sandbox"] * 4
    host = [(address, SERVICE) for address in (GATEWAY, GATEWAY4, uplink.HOST4)] + [(GATEWAY, METRICS_PORT)]
    with contextlib.ExitStack() as serving:
        for name in (*NAMES, "trusted"):
            serving.enter_context(netns.listen(name, address4(name), SERVICE))
        serving.enter_context(netns.listen(None, "0.0.0.0", SERVICE))
        others = [(address4(name), SERVICE) for name in (*NAMES, "trusted")]
        for name in NAMES:
            own, world = (address4(name), SERVICE), (uplink.BEYOND4, internet.ECHO_PORT)
            assert reached(name, *others, *host, world) == sorted([own, world])
            assert netns.ping(name, GATEWAY) == 1, "the gateway answers"
            assert probe.tcp_ask(name, uplink.BEYOND4, internet.WHOAMI_PORT) == uplink.HOST4
            assert netns.udp_echo(name, uplink.BEYOND4) < 1
        assert netns.ping("sandbox-port", address4("sandbox-other-port"), timeout=NOT_REACHED) == 0
        assert netns.ping("sandbox-routed", address4("sandbox-port"), timeout=NOT_REACHED) == 0
        own = (address4("trusted"), SERVICE)
        assert reached("trusted", *others, host[0]) == sorted([own, host[0]]), "nobody else reaches them"


def test_the_host_reaches_them_and_gets_its_answers(agent: Agent) -> None:
    for name in NAMES:
        with netns.listen(name, address4(name), SERVICE):
            assert netns.reaches(None, address4(name), SERVICE)


def test_nothing_that_it_does_to_its_own_device_opens_anything(agent: Agent) -> None:
    """Root inside takes the address of another, and a route to wherever it likes."""
    for name, other in (("sandbox-port", "sandbox-other-port"), ("sandbox-routed", "sandbox-other-routed")):
        victim = address4(other)
        observe.run("ip", "addr", "add", f"{victim}/32", "dev", DEVICE, netns=name)
        observe.run("ip", "route", "add", "172.27.0.0/16", "via", GATEWAY, "dev", DEVICE, "onlink", netns=name)
        with probe.socket_in(name, victim) as spoofing:
            spoofing.settimeout(NOT_REACHED)
            spoofing.bind((victim, 0))
            with pytest.raises(TimeoutError):
                spoofing.connect((uplink.BEYOND4, internet.ECHO_PORT))
        with netns.listen("trusted", address4("trusted"), SERVICE):
            assert reached(name, (address4("trusted"), SERVICE)) == []
        assert netns.tcp_connect(other, uplink.BEYOND4, internet.ECHO_PORT) < 1, "the other goes on"


def test_the_doctor_names_what_each_network_can_reach(agent: Agent) -> None:
    with netns.listen(None, "0.0.0.0", SERVICE):
        told = agent.cli("doctor").stdout
    assert "host-services: network sandbox: no service of this host is within reach" in told
    (default,) = [line for line in told.splitlines() if "host-services: network default" in line]
    assert f" tcp/{SERVICE}" in default
    assert f"tcp/{METRICS_PORT}" not in default, "which listens on loopback"
