"""Lost events: whatever overflows, is unmounted or is cut off, what should be is right again within a second."""

import subprocess
import time
from pathlib import Path

import pytest

from agent.demo.isolation import NETNS_DIR, add_named, delete_named, mount, prepare_netns_dir, unmount
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe, sockets, unnamed
from tests.harness.expect import BRIDGE, eventually_works, host_end
from tests.harness.remains import remains
from tests.harness.running import Agent, held_up
from tests.harness.waiting import eventually

SOON = 1.0
# A machine that is busy with other tests takes longer.
BUSY = 5
LINK_EVENTS = 5000
# fs.inotify.max_queued_events is the machine's, and stays as it is.
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def dropped(agent: Agent, source: str) -> float:
    return agent.metric("vethd_events_dropped_total", source=source) or 0


def states(agent: Agent) -> dict[str, str]:
    return {name: found["state"] for name, found in agent.namespaces().items()}


def flood(directory: Path) -> None:
    """Changes of a device that the agent is to hear of."""
    toggles = "".join(f"link set web0 mtu {1400 + number % 2}\n" for number in range(LINK_EVENTS))
    (directory / "batch").write_text(f"link add web0 type bridge\n{toggles}link del web0\n")
    observe.run("ip", "-batch", str(directory / "batch"))


def test_link_events_are_lost(agent: Agent, tmp_path: Path) -> None:
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
    end = host_end("web")["ifname"]
    assert sockets.shrink(agent.pid, sockets.ROUTE) == 1
    with held_up(agent):
        flood(tmp_path)
        assert sockets.drops(agent.pid, sockets.ROUTE) > LINK_EVENTS / 2, "there was no room for them"
        observe.run("ip", "route", "del", "default", netns="web")
        observe.run("ip", "link", "set", host_end("db")["ifname"], "nomaster")
    begin = time.monotonic()
    eventually(
        lambda: observe.default_routes("web") and host_end("db").get("master") == BRIDGE, BUSY * SOON, "all is right"
    )
    assert time.monotonic() - begin < BUSY * SOON
    assert dropped(agent, "rtnetlink") >= 1
    assert host_end("web")["ifname"] == end
    for name in ("web", "db"):
        eventually_works(name, 3)


def test_link_events_are_lost_all_the_time(agent: Agent, tmp_path: Path) -> None:
    """With room for a few messages it goes on, as each loss is followed by a look."""
    assert sockets.shrink(agent.pid, sockets.ROUTE) == 1
    prepare_netns_dir()
    names = [f"n{number}" for number in range(30)]
    for name in names:
        add_named(name)
    flood(tmp_path)
    for name in names[:15]:
        delete_named(name)
    eventually(lambda: states(agent) == dict.fromkeys(names[15:], "ready"), 5, "all are known and networked")
    eventually(lambda: not remains(agent), 5, "nothing is left of the others")
    observe.run("ip", "route", "del", "default", netns=names[20])
    eventually(lambda: observe.default_routes(names[20]), BUSY * SOON, "what is heard of is repaired")


def test_changes_of_the_ruleset_are_lost(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    assert sockets.shrink(agent.pid, sockets.NETFILTER) == 1
    with held_up(agent):
        for _ in range(50):
            observe.run("nft", "add table inet noise; add chain inet noise a; delete table inet noise")
        assert sockets.drops(agent.pid, sockets.NETFILTER)
        observe.run("nft", "flush", "ruleset")
    eventually(lambda: "masquerade" in observe.nft_text(), BUSY * SOON, "the rules are back")
    assert dropped(agent, "nftables") >= 1
    eventually_works("web", 3)


def test_names_are_lost(agent: Agent) -> None:
    prepare_netns_dir()
    for name in ("stays", "goes", "changes"):
        add_named(name)
        agent.wait_ready(name)
    before = agent.namespaces()
    with held_up(agent):
        noise = NETNS_DIR / "noise"
        for _ in range(QUEUE // 2 + 100):
            noise.touch()
            noise.unlink()
        for name in ("goes", "changes"):
            delete_named(name)
        for name in ("changes", "comes"):
            add_named(name)
    wanted = dict.fromkeys(("stays", "changes", "comes"), "ready")
    eventually(lambda: states(agent) == wanted, BUSY * SOON, "what is there is known, and no more")
    assert dropped(agent, "inotify") >= 1
    now = agent.namespaces()
    assert now["stays"]["cookie"] == before["stays"]["cookie"]
    assert now["changes"]["cookie"] != before["changes"]["cookie"]
    for name in wanted:
        eventually_works(name, 3)
    eventually(lambda: not remains(agent), 3, "nothing is left of the others")


def test_the_directory_is_unmounted_and_comes_back(agent: Agent) -> None:
    """Its names are empty files beneath; the first `ip netns add` mounts it anew."""
    for name in ("web", "db"):
        netns.add_netns(name)
        agent.wait_ready(name)
    unmount(str(NETNS_DIR))
    eventually(lambda: not observe.host_ends(), SOON + 0.5, "nobody names those any more")
    observe.run("ip", "netns", "add", "new")
    eventually(lambda: states(agent).get("new") == "ready", BUSY * SOON, "the new one is networked")
    for name in ("web", "db"):
        (NETNS_DIR / name).unlink()
        observe.run("ip", "netns", "add", name)
        agent.wait_ready(name, SOON)
    eventually_works("web", 3)
    eventually(lambda: not remains(agent), 3, "nothing is left of the former ones")


def test_another_directory_is_mounted_over_it(agent: Agent) -> None:
    netns.add_netns("web")
    address = agent.wait_ready("web")["address"]
    mount("over", str(NETNS_DIR), "tmpfs")
    eventually(lambda: not agent.namespaces(), BUSY * SOON, "the names are gone")
    add_named("inner")
    eventually(lambda: states(agent) == {"inner": "ready"}, BUSY * SOON, "a new one is networked")
    unmount(str(NETNS_DIR))
    eventually(lambda: states(agent) == {"web": "ready"}, BUSY * SOON, "the former one is back")
    eventually_works("web", 3)
    assert agent.namespaces()["web"]["address"] == address
    eventually(lambda: not remains(agent), 3, "nothing is left of the other one")


def test_the_directory_is_removed_and_made_again(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")
    unmount(str(NETNS_DIR))
    subprocess.run(["rm", "-r", str(NETNS_DIR)], check=True)
    eventually(lambda: not agent.namespaces(), BUSY * SOON, "the names are gone")
    netns.add_netns("new")
    eventually(lambda: states(agent) == {"new": "ready"}, BUSY * SOON, "the new one is networked")
    eventually(lambda: not remains(agent), 3, "nothing is left of the former one")


def test_process_events_are_lost(private_host: PrivateHost, start_agent: StartAgent) -> None:
    agent = start_agent({"rule": [unnamed.rule(source="process", command="sleep *")]})
    assert sockets.shrink(agent.pid, sockets.CONNECTOR) == 1
    with held_up(agent):
        # What the host's own processes do stays in the kernel.
        noise = "number=0; while [ $number -lt 300 ]; do /bin/true; number=$((number+1)); done; exec sleep 60"
        process = private_host.spawn(["unshare", "--net", "sh", "-c", noise])
        eventually(lambda: _sleeps(process.pid), 10, "it has made its noise")
        assert sockets.drops(agent.pid, sockets.CONNECTOR)
    unnamed.eventually_is(agent, process.pid, "ready", SOON)
    assert dropped(agent, "connector") >= 1
    process.kill()
    eventually(lambda: not unnamed.found(agent, process.pid), 5, "it is gone")


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


@pytest.mark.parametrize("times", [20])
def test_mounts_that_are_none_of_our_business_cost_little(agent: Agent, tmp_path: Path, times: int) -> None:
    """Each is an event; what is known is not looked at for each of them."""
    prepare_netns_dir()
    for number in range(50):
        add_named(f"n{number}")
    eventually(lambda: set(states(agent).values()) == {"ready"}, 10, "all are networked")
    place = tmp_path / "place"
    place.mkdir()
    before = agent.metric("vethd_reconcile_total") or 0
    for _ in range(times):
        mount("nothing", str(place), "tmpfs")
        unmount(str(place))
    add_named("last")
    agent.wait_ready("last")
    assert (agent.metric("vethd_reconcile_total") or 0) - before < 10
