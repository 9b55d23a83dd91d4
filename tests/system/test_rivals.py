"""A namespace that somebody else networks is somebody else's, whoever came first by some milliseconds."""

import time

from agent.demo.isolation import add_named, prepare_netns_dir
from tests.harness import netns, observe
from tests.harness.expect import DEVICE, assert_works
from tests.harness.running import Agent
from tests.harness.waiting import eventually

SOON = 2.0
RACE_SECONDS = 5.0


def state(agent: Agent, name: str) -> str:
    return str(agent.namespaces()[name]["state"])


def bring(device: str, name: str) -> None:
    observe.run("ip", "link", "add", "theirs", "type", "veth", "peer", "name", device, "netns", name)


def test_whoever_brings_a_device_right_after_us_has_it(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    bring("net1", "web")
    eventually(lambda: state(agent, "web") == "left", SOON, "ours is withdrawn")
    assert set(observe.links("web")) == {"lo", "net1"}
    assert "has a device of somebody else: net1 (veth)" in agent.namespaces()["web"]["rule"]
    assert observe.host_ends() == {}
    assert agent.ask("/v1/status")[1]["networks"][0]["leases"] == 0


def test_whoever_comes_at_the_same_time_has_it_too(agent: Agent) -> None:
    prepare_netns_dir()
    for number in range(20):
        name = f"n{number}"
        observe.run("ip", "link", "add", f"theirs{number}", "type", "veth", "peer", "name", "net1")
        add_named(name)
        observe.run("ip", "link", "set", "net1", "netns", name)
    eventually(lambda: {state(agent, f"n{number}") for number in range(20)} == {"left"}, SOON, "all are left alone")
    eventually(lambda: observe.host_ends() == {}, SOON, "and nothing of ours is there")
    assert all("net1" in observe.links(f"n{number}") for number in range(20))


def test_what_stays_inside_takes_nothing_from_us(agent: Agent) -> None:
    """Pairs within, bridges and devices on top of ours: containers in a namespace, labs, VPNs."""
    netns.add_netns("web")
    agent.wait_ready("web")
    heard = agent.metric("vethd_events_total", source="rtnetlink") or 0
    for made in ("name a type veth peer name b", "br0 type bridge", f"link {DEVICE} name child type macvlan"):
        observe.run("ip", "link", "add", *made.split(), netns="web")
    eventually(lambda: (agent.metric("vethd_events_total", source="rtnetlink") or 0) >= heard + 4, SOON, "all heard")
    # One that is asked for later is worked on later.
    netns.add_netns("later")
    agent.wait_ready("later")
    assert state(agent, "web") == "ready"
    assert_works("web")


def test_what_comes_later_is_the_owner_s_business(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    ready = time.monotonic()
    eventually(lambda: time.monotonic() - ready > RACE_SECONDS + 0.5, 10, "no race lasts so long")
    bring("net1", "web")
    observe.run("ip", "link", "set", DEVICE, "down", netns="web")
    eventually(lambda: "UP" in observe.links("web")[DEVICE]["flags"], SOON, "ours is looked after")
    assert state(agent, "web") == "ready"
