"""Point 2: what a networked namespace has, seen by `ip` and `nft`, and used by real traffic."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.demo import internet, uplink
from agent.demo.private_host import PrivateHost
from agent.model import LINK_GROUP, ROUTE_PROTOCOL
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import (
    BRIDGE,
    DEFAULT_ROUTES,
    DEVICE,
    GATEWAY4,
    GATEWAY6,
    SUBNET4,
    SUBNET6,
    address4,
    address6,
    assert_works,
    connects,
    host_end,
    why_not_working,
)
from tests.harness.running import Agent
from tests.harness.waiting import eventually

BEYOND = [(uplink.BEYOND4, uplink.HOST4), (uplink.BEYOND6, uplink.HOST6)]


@pytest.fixture
def web(agent: Agent) -> Agent:
    """The agent, with one namespace networked."""
    netns.add_netns("web")
    agent.wait_ready("web")
    return agent


def test_inside(web: Agent) -> None:
    found = web.namespaces()["web"]
    links = observe.links("web")
    assert set(links) == {"lo", DEVICE}
    assert all("UP" in link["flags"] for link in links.values())
    assert observe.addresses(DEVICE, "web") == {found["address"], found["address6"]}
    assert found["address"].endswith("/16")
    assert found["address6"].endswith("/64")
    assert observe.default_routes("web") == DEFAULT_ROUTES
    routes = observe.ip_json("-4", "route", netns="web") + observe.ip_json("-6", "route", netns="web")
    on_link = {route["dst"]: route["dev"] for route in routes if "gateway" not in route}
    assert on_link == {SUBNET4: DEVICE, SUBNET6: DEVICE}
    assert {route["protocol"] for route in routes if "gateway" in route} == {str(ROUTE_PROTOCOL)}


def test_ipv6_address_is_usable_at_once(web: Agent) -> None:
    (found,) = observe.ip_json("-6", "address", "show", "dev", DEVICE, "scope", "global", netns="web")
    assert not any(info.get("tentative") or info.get("dadfailed") for info in found["addr_info"])


def test_host_end_tells_whose_it_is(web: Agent) -> None:
    end = host_end("web")
    assert end["ifname"].startswith("vh")
    assert end["ifname"] == web.namespaces()["web"]["device"]
    assert end["master"] == BRIDGE
    assert end["group"] == str(LINK_GROUP)
    assert end["operstate"] == "UP"
    assert end["linkinfo"]["info_kind"] == "veth"


def test_host_side(web: Agent) -> None:
    bridges = [link for link in observe.links().values() if link.get("linkinfo", {}).get("info_kind") == "bridge"]
    assert [bridge["ifname"] for bridge in bridges] == [BRIDGE]
    assert observe.addresses(BRIDGE) == {f"{GATEWAY4}/16", f"{GATEWAY6}/64"}
    assert observe.sysctl("net/ipv4/ip_forward") == "1"
    assert observe.sysctl("net/ipv6/conf/all/forwarding") == "1"
    tables = {(item["table"]["family"], item["table"]["name"]) for item in observe.nft_json() if "table" in item}
    assert tables == {("inet", "vethd"), ("bridge", "vethd")}
    assert "masquerade" in observe.nft_text()


def test_bridge_keeps_its_mac_whoever_joins(web: Agent) -> None:
    before = observe.mac(BRIDGE)
    for number in range(5):
        netns.add_netns(f"n{number}")
        web.wait_ready(f"n{number}")
        assert observe.mac(BRIDGE) == before
    observe.run("ip", "link", "add", "low", "type", "veth", "peer", "name", "high")
    observe.run("ip", "link", "set", "low", "address", "02:00:00:00:00:01", "master", BRIDGE)
    assert observe.mac(BRIDGE) == before


def test_reaches_gateway_and_internet(web: Agent) -> None:
    assert_works("web")
    assert netns.ping("web", GATEWAY4) == 1
    assert netns.ping("web", GATEWAY6) == 1
    for beyond, host in BEYOND:
        assert netns.ping("web", beyond) == 1
        assert netns.udp_echo("web", beyond) < 1
        assert netns.tcp_ask("web", beyond, internet.WHOAMI_PORT) == host


def test_reach_each_other_by_both_families_with_their_own_addresses(web: Agent) -> None:
    netns.add_netns("db")
    web.wait_ready("db")
    for source, target in (("web", "db"), ("db", "web")):
        assert connects(source, target)
        assert netns.ping(source, address4(target)) == 1
        assert netns.ping(source, address6(target)) == 1
    with netns.listen("db", address4("db"), 8000) as listener:
        with netns.socket_in("web", address4("db")) as sock:
            sock.connect((address4("db"), 8000))
            accepted, (source_address, _) = listener.accept()
            accepted.close()
        assert source_address == address4("web")


def test_host_reaches_a_namespace(web: Agent) -> None:
    with netns.listen("web", address4("web"), 8000):
        assert netns.reaches(None, address4("web"), 8000)
    assert netns.ping(None, address6("web")) == 1


@contextmanager
def _internet_routes_to_namespaces(host: PrivateHost) -> Iterator[None]:
    """An upstream that tries its luck: it sends packets for our subnets to the host."""
    observe.run("ip", "route", "add", SUBNET4, "via", uplink.HOST4, netns=host.internet)
    observe.run("ip", "-6", "route", "add", SUBNET6, "via", uplink.HOST6, netns=host.internet)
    yield


def test_nothing_outside_reaches_in(private_host: PrivateHost, web: Agent) -> None:
    with _internet_routes_to_namespaces(private_host):
        for address in (address4("web"), address6("web")):
            with netns.listen("web", address, 8000):
                assert not netns.reaches(private_host.internet, address, 8000, timeout=0.3)
            assert netns.ping(private_host.internet, address, timeout=0.3) == 0


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_mtu_is_that_of_the_uplink(mtu: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    with PrivateHost(mtu) as host:
        agent = Agent(host, tmp_path_factory.mktemp("agent"))
        with agent.running():
            netns.add_netns("web")
            agent.wait_ready("web")
            assert observe.links("web")[DEVICE]["mtu"] == mtu
            assert host_end("web")["mtu"] == mtu
            assert observe.links()[BRIDGE]["mtu"] == mtu
            full = ["ping", "-c1", "-W1", "-Mdo", f"-s{mtu - 28}", uplink.BEYOND4]
            with netns.enter("web"):
                assert subprocess.run(full, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_mtu_of_the_config_is_taken(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"mtu": 1320}})
    netns.add_netns("web")
    agent.wait_ready("web")
    assert observe.links("web")[DEVICE]["mtu"] == 1320
    assert_works("web")


def test_first_ping_by_ipv6_is_answered(agent: Agent) -> None:
    for number in range(20):
        name = f"n{number}"
        netns.add_netns(name)
        agent.wait_ready(name)
        assert netns.ping(name, uplink.BEYOND6 if number % 2 else GATEWAY6) == 1


def test_without_nat_nothing_comes_back_from_beyond(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"nat": False}})
    netns.add_netns("web")
    agent.wait_ready("web")
    assert_works("web", nat=False)
    assert netns.ping("web", uplink.BEYOND4, timeout=0.3) == 0
    translated = [item["set"].get("elem") for item in observe.nft_json() if item.get("set", {}).get("name") == "nat4"]
    assert translated == [None]


def test_without_nat_an_upstream_with_a_route_sees_the_true_address(
    private_host: PrivateHost, start_agent: StartAgent
) -> None:
    agent = start_agent({"network.default": {"nat": False}})
    netns.add_netns("web")
    agent.wait_ready("web")
    with _internet_routes_to_namespaces(private_host):
        assert netns.tcp_ask("web", uplink.BEYOND4, internet.WHOAMI_PORT) == address4("web")
        assert netns.tcp_ask("web", uplink.BEYOND6, internet.WHOAMI_PORT) == address6("web")


def test_without_ipv6(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"subnet6": ""}})
    netns.add_netns("web")
    assert agent.wait_ready("web")["address6"] is None
    assert observe.default_routes("web") == {(GATEWAY4, DEVICE)}
    assert observe.sysctl("net/ipv6/conf/all/forwarding") == "0"
    assert_works("web", v6=False)


def test_names_and_subnets_of_the_config_are_taken(start_agent: StartAgent) -> None:
    agent = start_agent(
        {
            "network.default": {
                "subnet": "10.77.0.0/24",
                "subnet6": "fd77::/64",
                "bridge": "tenants",
                "interface": "net0",
            }
        }
    )
    netns.add_netns("web")
    found = agent.wait_ready("web")
    assert found["address"].startswith("10.77.0.")
    assert observe.default_routes("web") == {("10.77.0.1", "net0"), ("fd77::1", "net0")}
    assert host_end("web")["master"] == "tenants"
    assert netns.ping("web", uplink.BEYOND4) == 1


def test_isolated_namespaces_do_not_reach_each_other(start_agent: StartAgent) -> None:
    agent = start_agent({"network.default": {"isolate": True}})
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
        assert_works(name)
    assert not connects("web", "db", timeout=0.3)
    assert netns.ping("web", address6("db"), timeout=0.3) == 0


@pytest.mark.parametrize(
    ("access", "reached"),
    [("all", {7000, 7001}), ("none", set()), (["tcp/7000"], {7000})],
    ids=["all", "none", "one port"],
)
def test_host_access(start_agent: StartAgent, access: object, reached: set[int]) -> None:
    agent = start_agent({"network.default": {"host_access": access}})
    netns.add_netns("web")
    agent.wait_ready("web")
    assert_works("web")
    with netns.listen(None, "0.0.0.0", 7000), netns.listen(None, "0.0.0.0", 7001):
        for host in (GATEWAY4, uplink.HOST4):
            assert {port for port in (7000, 7001) if netns.reaches("web", host, port, timeout=0.3)} == reached


def test_stolen_addresses_are_not_let_out(web: Agent) -> None:
    netns.add_netns("db")
    web.wait_ready("db")
    stolen = address4("db")
    netns.del_netns("db")
    eventually(lambda: "db" not in web.namespaces(), 2, "db is gone")
    observe.run("ip", "address", "add", f"{stolen}/16", "dev", DEVICE, netns="web")
    ping = ["ping", "-c1", "-W0.3", "-I", stolen, GATEWAY4]
    with netns.enter("web"):
        assert subprocess.run(ping, capture_output=True, check=False).returncode != 0


def test_networks_of_the_host_are_kept_apart(start_agent: StartAgent) -> None:
    agent = start_agent(
        {"network.default": {}, "network.other": {"subnet": "172.28.0.0/16", "subnet6": "", "bridge": "vethd1"}}
    )
    netns.add_netns("web")
    agent.wait_ready("web")
    assert set(observe.addresses("vethd1")) == {"172.28.0.1/16"}
    assert_works("web")


def test_a_namespace_with_ipv6_off_works_by_ipv4(start_agent: StartAgent) -> None:
    netns.add_netns("web")
    for scope in ("all", "default"):
        observe.set_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1", netns="web")
    agent = start_agent()
    agent.wait_ready("web")
    assert why_not_working("web", v6=False) == ""
