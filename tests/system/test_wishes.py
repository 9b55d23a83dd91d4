"""What a namespace wishes for itself, by a file in netns.d, is so, from the moment the file says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, GATEWAY4, address4, assert_works, eventually_works, host_end
from tests.harness.running import Agent
from tests.harness.waiting import eventually

SOON = 2.0
LAB = {"subnet": "10.9.0.0/24", "subnet6": "", "bridge": "vethd-lab"}


@pytest.fixture
def wishes(tmp_path: Path) -> Path:
    directory = tmp_path / "netns.d"
    directory.mkdir()
    return directory


@pytest.fixture
def agent(start_agent: StartAgent, wishes: Path) -> Agent:
    return start_agent({"discovery": {"wishes": str(wishes)}, "network.default": {}, "network.lab": LAB})


def routes(name: str) -> set[tuple[str, str]]:
    found = observe.ip_json("-4", "route", netns=name) + observe.ip_json("-6", "route", netns=name)
    return {(route["dst"], route.get("gateway", "")) for route in found}


def is_translated(name: str) -> bool:
    try:
        return netns.tcp_ask(name, uplink.BEYOND4, internet.WHOAMI_PORT, 0.3) == uplink.HOST4
    except OSError:
        return False


Check = Callable[[], bool]
WISHES: dict[str, tuple[str, Check, Check]] = {
    "network": (
        'network = "lab"',
        lambda: address4("web").startswith("10.9.0."),
        lambda: address4("web").startswith("172.27."),
    ),
    "address": ('address = "172.27.9.9"', lambda: address4("web") == "172.27.9.9", lambda: True),
    "address of another network": (
        'address = "10.9.0.77"',
        lambda: address4("web") == "10.9.0.77",
        lambda: address4("web").startswith("172.27."),
    ),
    "mtu": (
        "mtu = 1400",
        lambda: observe.links("web")[DEVICE]["mtu"] == host_end("web")["mtu"] == 1400,
        lambda: observe.links("web")[DEVICE]["mtu"] == host_end("web")["mtu"] == 1500,
    ),
    "interface": (
        'interface = "lan0"',
        lambda: set(observe.links("web")) == {"lo", "lan0"},
        lambda: set(observe.links("web")) == {"lo", DEVICE},
    ),
    "nat": ("nat = false", lambda: not is_translated("web"), lambda: is_translated("web")),
    "routes": (
        'routes = ["10.8.0.0/16 via 172.27.0.9", "10.7.0.0/24", "fd08::/64"]',
        lambda: (
            {("10.8.0.0/16", "172.27.0.9"), ("10.7.0.0/24", GATEWAY4), ("fd08::/64", "fd00:7e74:1::1")} <= routes("web")
        ),
        lambda: not any(destination.startswith(("10.", "fd08")) for destination, _ in routes("web")),
    ),
}


def holds(check: Check) -> Check:
    """A namespace is without a device for a moment when its pair is made anew."""

    def held() -> bool:
        try:
            return check()
        except (AssertionError, KeyError):
            return False

    return held


@pytest.mark.parametrize("what", WISHES)
def test_a_wish_that_is_there_before_the_namespace(agent: Agent, wishes: Path, what: str) -> None:
    text, is_so, _ = WISHES[what]
    (wishes / "web.toml").write_text(text)
    eventually(lambda: not is_pending(agent), SOON, "it is read")
    netns.add_netns("web")
    agent.wait_ready("web")
    eventually(holds(is_so), SOON, what)
    netns.add_netns("other")
    agent.wait_ready("other")
    assert_works("other")


def is_pending(agent: Agent) -> bool:
    """Whether a change of the wishes may not have been read yet."""
    return (agent.metric("vethd_wishes") or 0) == 0


@pytest.mark.parametrize("what", WISHES)
def test_a_wish_that_comes_and_goes_while_the_namespace_lives(agent: Agent, wishes: Path, what: str) -> None:
    text, is_so, is_no_more = WISHES[what]
    netns.add_netns("web")
    agent.wait_ready("web")
    (wishes / "w*.toml" if "address" not in text else wishes / "web.toml").write_text(text)
    eventually(holds(is_so), SOON, what)
    for file in wishes.iterdir():
        file.unlink()
    eventually(holds(is_no_more), SOON, f"no {what}")
    # It is ready all along, and its device is seen before its routes.
    eventually_works("web")


def test_nothing_of_an_exempt_namespace_stays_in_the_rules(agent: Agent, wishes: Path) -> None:
    (wishes / "web.toml").write_text("nat = false")
    netns.add_netns("web")
    agent.wait_ready("web")
    eventually(lambda: elements("plain4") == [address4("web")], SOON, "it is exempt")
    observe.run("nft", "flush", "ruleset")
    eventually(lambda: elements("plain4") == [address4("web")], SOON, "and again")
    netns.del_netns("web")
    eventually(lambda: elements("plain4") == elements("plain6") == [], SOON, "nothing is left")


def elements(name: str) -> list[str]:
    sets = [item["set"] for item in observe.nft_json() if item.get("set", {}).get("name") == name]
    return [str(element) for found in sets for element in found.get("elem", [])]


def test_an_address_that_is_wished_for_is_kept_for_whom_it_is_meant(agent: Agent, wishes: Path) -> None:
    (wishes / "late.toml").write_text('address = "172.27.0.2"')
    eventually(lambda: not is_pending(agent), SOON, "it is read")
    netns.add_netns("early")
    agent.wait_ready("early")
    assert address4("early") == "172.27.0.3"
    netns.add_netns("late")
    agent.wait_ready("late")
    assert address4("late") == "172.27.0.2"


def test_an_address_that_somebody_has_is_waited_for(agent: Agent, wishes: Path) -> None:
    netns.add_netns("early")
    agent.wait_ready("early")
    (wishes / "late.toml").write_text(f'address = "{address4("early")}"')
    eventually(lambda: not is_pending(agent), SOON, "it is read")
    netns.add_netns("late")
    eventually(lambda: agent.namespaces()["late"]["state"] == "failed", SOON, "it has to wait")
    assert agent.namespaces()["late"]["reason"] == ("network default: 172.27.0.2 was wished for, but early has it")
    netns.del_netns("early")
    eventually(lambda: agent.namespaces()["late"]["state"] == "ready", SOON, "its turn has come")
    assert agent.wait_ready("late")["address"] == "172.27.0.2/16"


def test_a_bad_file_leaves_what_is_and_says_so(agent: Agent, wishes: Path) -> None:
    file = wishes / "web.toml"
    file.write_text("mtu = 1400")
    netns.add_netns("web")
    agent.wait_ready("web")
    eventually(holds(WISHES["mtu"][1]), SOON, "it is so")
    file.write_text("mtu = 12")
    eventually(lambda: any("web.toml: mtu" in line for line in problems(agent)), SOON, "status says so")
    assert WISHES["mtu"][1]()
    file.write_text("mtu = 1400")
    eventually(lambda: problems(agent) == [], SOON, "all is well again")


def problems(agent: Agent) -> list[str]:
    return list(agent.ask("/v1/status")[1]["problems"])


def test_the_doctor_tells_of_a_file_that_cannot_be_used_with_an_agent_and_without(agent: Agent, wishes: Path) -> None:
    (wishes / "web.toml").write_text("mtu = 7\n")
    eventually(lambda: agent.ask("/v1/status")[1]["problems"], 5, "the file was read")

    def told() -> list[str]:
        lines = agent.cli("doctor").stdout.splitlines()
        assert not [line for line in lines if "agent-problem" in line]
        return [line for line in lines if "web.toml" in line]

    (while_it_runs,) = told()
    assert "warning   wish-file: not in force: " in while_it_runs
    agent.stop()
    assert told() == [while_it_runs]
