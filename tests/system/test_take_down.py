"""Point 3: when the name goes, all that vethd made for the namespace goes; and `vethd down` takes the rest."""

import subprocess

import pytest

from agent.demo import internet, uplink
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import BRIDGE, DEVICE, SUBNET4, address4, address6, assert_works, host_end
from tests.harness.running import Agent
from tests.harness.waiting import eventually


def _traffic(name: str) -> None:
    """Traffic of every kind that leaves a trace in conntrack."""
    for address in (uplink.BEYOND4, uplink.BEYOND6):
        netns.udp_echo(name, address)
        netns.tcp_connect(name, address, internet.ECHO_PORT)
        assert netns.ping(name, address) == 1


def _mentions(*addresses: str) -> list[str]:
    """Where the host still knows one of the addresses or the device of a namespace."""
    neighbours = [f"neighbour {found['dst']}" for found in observe.ip_json("neighbour", "show", "dev", BRIDGE)]
    lines = [*observe.conntrack_list(), *neighbours, *observe.nft_text().splitlines()]
    return [line for line in lines if any(address in line.replace("=", " ").split() for address in addresses)]


def test_all_that_belonged_to_it_goes(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    _traffic("web")
    before = (address4("web"), address6("web"), host_end("web")["ifname"])
    assert any(before[0] in line for line in observe.conntrack_list()), "there was something to take away"
    netns.del_netns("web")
    eventually(lambda: not observe.host_ends(), 2, "the host end is gone")
    eventually(lambda: not _mentions(*before), 2, "nothing of the host knows it")
    eventually(lambda: agent.ask("/v1/status")[1]["networks"][0]["leases"] == 0, 2, "its lease is free")
    assert before[2] not in observe.nft_text()


def test_also_when_a_process_keeps_it_alive(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    _traffic("web")
    before = (address4("web"), address6("web"), host_end("web")["ifname"])
    with netns.enter("web"):
        holder = subprocess.Popen(["sleep", "60"])
    with holder:
        netns.del_netns("web")
        eventually(lambda: not observe.host_ends(), 2, "the host end is gone")
        eventually(lambda: not _mentions(*before), 2, "nothing of the host knows it")
        assert set(observe.links(netns.of_process(holder.pid))) == {"lo"}
        holder.kill()


def test_others_do_not_notice(private_host: PrivateHost, agent: Agent) -> None:
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
    with netns.Heartbeat("db", uplink.BEYOND4, internet.ECHO_PORT) as stream:
        stream.await_beats(10)
        before = observe.tcp_retransmits("db", private_host.internet)
        netns.del_netns("web")
        eventually(lambda: len(observe.host_ends()) == 1, 2, "web's host end is gone")
        stream.await_beats(10)
        assert observe.tcp_retransmits("db", private_host.internet) == before, "not one packet was lost"
    assert any(address4("db") in line for line in observe.conntrack_list()), "db's connections are still tracked"


def test_an_address_is_reused_as_late_as_possible(agent: Agent) -> None:
    used = []
    for number in range(10):
        netns.add_netns(f"n{number}")
        used.append(agent.wait_ready(f"n{number}")["address"])
        netns.del_netns(f"n{number}")
        eventually(lambda: not agent.namespaces(), 2, "it is gone")
    assert len(set(used)) == 10


def test_the_next_holder_of_an_address_inherits_no_connection(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"subnet": "172.27.0.0/29"}})
    for number in range(8):
        name = f"n{number}"
        netns.add_netns(name)
        agent.wait_ready(name)
        assert not [line for line in observe.conntrack_list() if address4(name) in line]
        _traffic(name)
        netns.del_netns(name)
        eventually(lambda: not agent.namespaces(), 2, "it is gone")


def test_many_at_once(agent: Agent) -> None:
    names = [f"n{number}" for number in range(100)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name)
    assert len(observe.host_ends()) == 100
    netns.delete_many(names)
    eventually(lambda: not observe.host_ends(), 5, "all host ends are gone")
    eventually(lambda: not agent.namespaces(), 2, "all namespaces are gone")
    assert SUBNET4.partition("/")[0] in observe.nft_text()


def _traces() -> dict[str, object]:
    return {
        "devices": set(observe.links()),
        "rules": observe.nft_json(),
        "addresses": observe.addresses(uplink.UPLINK),
        "routes": {family: observe.run("ip", family, "route") for family in ("-4", "-6")},
        "forwarding": [observe.sysctl(f"net/{path}") for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")],
        "conntrack": [line for line in observe.conntrack_list() if "172.27." in line or "fd00:7e74" in line],
    }


@pytest.mark.parametrize("forgetful", [False, True], ids=["with state", "without state files"])
def test_down_removes_every_trace(start_agent: StartAgent, forgetful: bool) -> None:
    before = _traces()
    agent = start_agent()
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
        _traffic(name)
    agent.stop()
    if forgetful:
        subprocess.run(["rm", "-r", agent.tables["agent"]["state_dir"]], check=True)
    for _ in range(2):
        done = agent.cli("down")
        assert done.returncode == 0, done.stderr
        assert {**_traces(), "forwarding": before["forwarding"]} == before
        if not forgetful:
            assert _traces() == before
    assert set(observe.links("web")) == {"lo"}
    assert DEVICE not in observe.links("db")


def test_down_refuses_while_the_agent_runs(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    done = agent.cli("down")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert_works("web")


def test_down_leaves_what_is_not_ours(start_agent: StartAgent) -> None:
    observe.run("nft", "add", "table", "inet", "theirs")
    observe.run("ip", "link", "add", "vh0", "type", "veth", "peer", "name", "vhpeer")
    observe.run("ip", "link", "add", "br-theirs", "type", "bridge")
    before = _traces()
    agent = start_agent()
    netns.add_netns("web")
    agent.wait_ready("web")
    agent.stop()
    assert agent.cli("down").returncode == 0
    assert _traces() == before


def test_start_after_down_networks_all_again(start_agent: StartAgent) -> None:
    agent = start_agent()
    netns.add_netns("web")
    address = agent.wait_ready("web")["address"]
    agent.stop()
    agent.cli("down")
    agent.start()
    assert agent.wait_ready("web")["address"] == address
    assert_works("web")
