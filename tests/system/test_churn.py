"""Namespaces come and go by the thousand, and agents too: nothing is left or lost. Short forms of `make soak`."""

import socket
import sys
import threading
from pathlib import Path

import pytest

from agent.core.identity import host_end_name
from agent.demo.isolation import MS_BIND, NETNS_DIR, add_named, delete_named, mount, prepare_netns_dir
from agent.model import Cookie
from tests.harness import netns, observe
from tests.harness.expect import address4, assert_works, host_end
from tests.harness.remains import remains
from tests.harness.running import Agent
from tests.harness.waiting import eventually
from tests.soak.deaths import die
from tests.soak.lives import resident
from tests.soak.stage import STEADY, Stage

SO_NETNS_COOKIE = 71
SEED = 20
LIVES, WARM_UP = 1000, 600
DEATHS = 15
# In the whole form it has to be flat; a thousand lives are too few to tell.
MOST_GROWTH = 2000


@pytest.mark.timeout(300)
def test_a_thousand_come_and_go(tmp_path: Path) -> None:
    with Stage(tmp_path, SEED) as stage:
        sizes = []
        for count in (WARM_UP, LIVES - WARM_UP):
            stage.lives.live(count)
            assert stage.wrongs() == []
            sizes.append(resident(stage.agent))
        stage.lives.end()
        assert stage.wrongs() == []
        assert set(stage.agent.namespaces()) == set(STEADY)
        assert stage.lost() == 0, "not one packet of those that stay was lost"
        assert stage.leaks() == []
        assert stage.unexplained() == []
        assert sizes[1] - sizes[0] < MOST_GROWTH, "kB"


@pytest.mark.serial
@pytest.mark.timeout(300)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    with Stage(tmp_path, SEED) as stage:
        deaths = die(stage, DEATHS, SEED)
        assert deaths.wrongs == []
        assert len(deaths.seconds) == DEATHS
        assert stage.lost() == 0, "not one packet of those that stay was lost"
        assert stage.unexplained() == []


@pytest.mark.timeout(180)
def test_a_restart_with_many_is_quick_and_not_felt(tmp_path: Path) -> None:
    """400 that stand, and as many changes meanwhile as there are seconds to make up for it."""
    with Stage(tmp_path, SEED) as stage:
        many = [f"m{number}" for number in range(400)]
        for name in many:
            add_named(name)
        for name in many:
            stage.agent.wait_ready(name, 30)
        before = {name: found["address"] for name, found in stage.agent.namespaces().items()}
        stage.agent.kill()
        for name in many[:20]:
            delete_named(name)
        mark = stage.agent.mark()
        stage.restart()
        ready = stage.agent.wait_event("ready", since=mark)
        assert ready["ms"] < 2000
        assert stage.wrongs() == []
        del before["m0"]
        after = {name: found["address"] for name, found in stage.agent.namespaces().items()}
        assert after == {name: address for name, address in before.items() if name not in many[:20]}
        assert stage.lost() == 0


def test_a_name_that_moves_while_it_is_plumbed_keeps_its_network(agent: Agent) -> None:
    """The new name is there before the old one goes: the namespace is never without."""
    prepare_netns_dir()
    for number in range(40):
        add_named(f"a{number}")
        (NETNS_DIR / f"b{number}").touch()
        mount(str(NETNS_DIR / f"a{number}"), str(NETNS_DIR / f"b{number}"), flags=MS_BIND)
        delete_named(f"a{number}")
    names = [f"b{number}" for number in range(40)]
    eventually(
        lambda: {n: f["state"] for n, f in agent.namespaces().items()} == dict.fromkeys(names, "ready"), 10, "ready"
    )
    assert not agent.events("failed")
    eventually(lambda: not remains(agent), 5, "nothing is left of the former names")


def test_what_went_while_nobody_looked_leaves_nothing(agent: Agent) -> None:
    prepare_netns_dir()
    for name in ("web", "db"):
        add_named(name)
        agent.wait_ready(name)
        assert_works(name)
    # Somebody's own entry is not ours to judge.
    observe.run("ip", "neigh", "add", "172.27.9.9", "lladdr", "02:00:00:00:00:09", "dev", "vethd0")
    gone = address4("web")
    agent.kill()
    delete_named("web")
    eventually(lambda: len(observe.host_ends()) == 1, 5, "the kernel has taken the device away")
    assert any(gone in line for line in observe.conntrack_list())
    agent.start()
    (theirs,) = remains(agent)
    assert "172.27.9.9" in theirs
    assert_works("db")


def test_two_threads_of_a_user_are_as_fast_as_they_like(agent: Agent) -> None:
    """Names that are the same, from several hands at once: the last one stands."""
    prepare_netns_dir()

    def again_and_again(name: str) -> None:
        for _ in range(60):
            add_named(name)
            delete_named(name)
        add_named(name)

    threads = [threading.Thread(target=again_and_again, args=(name,)) for name in ("web", "db")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: all(_is_networked(agent, name) for name in ("web", "db")), 10, "the last ones are networked")
    eventually(lambda: not remains(agent), 5, "nothing is left of all the others")
    for name in ("web", "db"):
        assert_works(name)
        assert host_end(name)["ifname"] == agent.namespaces()[name]["device"]
    assert not agent.events("failed")


def _is_networked(agent: Agent, name: str) -> bool:
    """Whether the agent knows the very namespace that the name leads to."""
    found = agent.namespaces().get(name, {})
    return found.get("state") == "ready" and found["device"] == _device_of(name)


def _device_of(name: str) -> str:
    with netns.enter(name), socket.socket(socket.AF_UNIX) as inside:
        cookie = inside.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return host_end_name(Cookie(int.from_bytes(cookie, sys.byteorder)))
