"""Point 2: names that were chosen to do harm, hundreds at once: each is networked and told for what it is.

Whatever is shown is text: no control character comes out of any command, log, metric or alias.
"""

import json
import os
import random
import re
import signal

import pytest

from agent.cli import render
from agent.core.identity import alias_of, printable
from agent.demo.isolation import add_named, delete_named, prepare_netns_dir
from agent.demo.private_host import PrivateHost
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import address4, assert_works
from tests.harness.running import Agent
from tests.harness.waiting import eventually

CHOSEN: tuple[bytes, ...] = (
    b"...", b"..x", b".hidden", b"-", b"--help", b"-n", b"~", b"*", b"?", b"[a-z]", b"$(id)", b"`id`", b";id", b"|id",
    b"%00", b"\\0", b"\\x00", b"\\n", b"%s%n", b"{0}", b"${HOME}", b"a\nb", b"a\r", b"\t", b" ", b"  x  ", b"\x7f",
    b"\x01", b"\x08\x08\x08", b"\x1b[2J", b"\x1b]0;title\x07", b"\x1bP$q\x1b\\", b"\x9b31m", b"\xc2\x9b31m",
    b'"', b"'", b'a"} 1\nfake_metric{x="', b"a,b=c", b"<img src=x onerror=alert(1)>", b"&amp;", b"[red]x[bold]",
    b"\xff", b"\xc3", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xc0\x80",
    "w\u0435b".encode(), "web\u200b".encode(), "web\u00a0".encode(), "w\u202eeb".encode(), "\ufeffweb".encode(),
    "é".encode(), "e\u0301".encode(), "\U0001f600".encode(), "\u2028".encode(), "名前".encode(),
    b"a" * 255, b"a" * 254 + b"b", b"\n" * 255, b"\xff" * 255, "é".encode() * 127,
    b"web", b"WEB", b"Web", b"web ", b"web.", b"null", b"None", b"true", b"0", b"vethd0", b"vh000000000000000",
)  # fmt: skip
# Made of what tends to mean something to somebody.
PARTS = [
    b"\x1b", b"[", b"\n", b"\r", b"\\", b"x1b", b'"', b"'", b"{", b"}", b"=", b",", b" ", b"-", b".", b"\xff", b"\xc2",
    b"\x85", b"a", b"A", "é".encode(), "\u202e".encode(), b"%", b"$", b"`", b"#", b"<", b">", b"&",
]  # fmt: skip
MADE_UP = 180
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def hostile_names() -> list[bytes]:
    """The chosen ones, and as many made up, always the same."""
    chance = random.Random(5)
    made_up = {b"".join(chance.choices(PARTS, k=chance.randint(1, 12))) for _ in range(3 * MADE_UP)}
    return [*CHOSEN, *sorted(made_up - {b".", b".."} - set(CHOSEN))[:MADE_UP]]


NAMES = hostile_names()
SHOWN = {name: printable(os.fsdecode(name)) for name in NAMES}


def assert_harmless(text: str) -> None:
    """Lines of what prints: isprintable is false of controls, and of what changes direction or is invisible."""
    odd = {character for character in text if character != "\n" and not character.isprintable()}
    assert not odd, f"{odd} in {text[:2000]!r}"


@pytest.fixture
def crowd(start_agent: StartAgent) -> Agent:
    """An agent, and a namespace of each name."""
    agent = start_agent({"discovery": {"exclude": []}})
    prepare_netns_dir()
    for name in NAMES:
        add_named(name)
    eventually(lambda: list(states(agent).values()) == ["ready"] * len(NAMES), 30, "all are ready")
    return agent


def states(agent: Agent) -> dict[str, str]:
    return {name: found["state"] for name, found in agent.namespaces().items()}


def addresses(agent: Agent) -> dict[bytes, str]:
    return {os.fsencode(name): found["address"] for name, found in agent.namespaces().items()}


def test_each_is_networked_told_and_removed_for_what_it_is(crowd: Agent) -> None:
    before = addresses(crowd)
    assert before.keys() == set(NAMES)
    assert len(set(before.values())) == len(NAMES) > 200
    for name in NAMES[:: len(NAMES) // 12]:
        assert before[name] == f"{address4(name)}/16", "told of the one that has it"
        assert_works(name)
    assert_commands_show_text(crowd)
    assert_metrics_name_each_once(crowd)
    crowd.stop()
    crowd.start()
    assert addresses(crowd) == before, "none was taken for another"
    for name in NAMES:
        delete_named(name)
    eventually(lambda: not crowd.namespaces() and not observe.host_ends(), 30, "all are gone")
    for line in crowd.lines:
        assert_harmless(line)
    assert {record["level"] for record in crowd.records} == {"info"}


def assert_commands_show_text(agent: Agent) -> None:
    listed = agent.cli("list")
    assert_harmless(listed.stdout + listed.stderr)
    _, *lines = listed.stdout.splitlines()
    assert len(lines) == len(NAMES), "a line each"
    begins = tuple(f"{render.printable(os.fsdecode(name))}  " for name in NAMES)
    assert not [begin for begin in begins if not any(line.startswith(begin) for line in lines)]
    assert not [line for line in lines if not line.startswith(begins)]
    raw = {os.fsencode(each["name"]) for each in json.loads(agent.cli("list", "--json").stdout)["namespaces"]}
    assert raw == set(NAMES)
    for command in (["status"], ["doctor"], ["top", "--once", "--interval", "0.1"]):
        done = agent.cli(*command)
        assert_harmless(done.stdout + done.stderr)
    for name in CHOSEN[:: len(CHOSEN) // 4]:
        for command in (["status"], ["explain"], ["wait", "--timeout", "5"]):
            done = agent.cli(*command, "--", name)
            assert done.returncode == 0, (command, name, done.stderr)
            assert_harmless(done.stdout + done.stderr)
    with netns.reading([*agent.command("--config", str(agent.config)), "watch"]) as told:
        assert_harmless("".join(told.readline() for _ in NAMES))


def assert_metrics_name_each_once(agent: Agent) -> None:
    labels = sorted(dict(each)["netns"] for each in agent.metrics()["vethd_netns_info"])
    assert labels == sorted(SHOWN.values())
    aliases = {link["ifalias"] for link in observe.host_ends().values()}
    assert aliases == {alias_of(os.fsdecode(name)) for name in NAMES}
    for text in (*labels, *aliases):
        assert_harmless(text)


def test_a_terminal_sees_no_sequence_of_a_name(private_host: PrivateHost, start_agent: StartAgent) -> None:
    """The log as a person has it: all that is not text is the log's own colours."""
    agent = start_agent(start=False)
    log = agent.config.with_name("log")
    hostile = [name for name in CHOSEN if set(name) & set(b"\x1b\n\r\x9b\x08")]
    command = agent.command("--config", str(agent.config), "run", "--log-format", "console")
    with log.open("wb") as sink:
        process = private_host.spawn(command, stderr=sink)
    eventually(lambda: b"ready" in log.read_bytes(), 20, "it is ready")
    prepare_netns_dir()
    for name in hostile:
        add_named(name)
    eventually(lambda: log.read_bytes().count(b"networked") > len(hostile), 20, "they are networked")
    for name in hostile:
        delete_named(name)
    eventually(lambda: log.read_bytes().count(b"removed") >= len(hostile), 20, "they are gone")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    said = log.read_bytes()
    assert not [name for name in hostile if name in said and name.strip()]
    assert_harmless(COLOUR.sub(b"", said).decode())
