"""Who may ask on the control socket, how much, and what random bytes do to it and to the metrics port: nothing."""

import contextlib
import grp
import http.client
import json
import os
import random
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.client import AgentNotRunning, Client, Refused
from agent.export.gate import BURST, PLACES_OF_ONE, REQUESTS_PER_SECOND
from tests.conftest import StartAgent
from tests.harness import netns
from tests.harness.running import SOCKET, Agent
from tests.harness.users import user
from tests.harness.waiting import eventually

GROUP = 1
WEB = ("127.0.0.1", 9853)
HEADER = b"POST /v1/namespace HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
STATUS = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
# What requests are made of, whole and in shreds.
SHREDS = [
    b"GET ", b"POST ", b"PUT ", b"/", b"/v1/status", b"/v1/wait", b"/v1/namespace", b"/v1/explain", b"/v1/watch",
    b"/metrics", b"/api/live", b"/api/namespace?id=", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9\r\n", b"\r\n",
    b"\r\n\r\n", b"\n", b"Host: localhost\r\n", b"Host: [\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
    b"fffffffffffffffff\r\n", b"Content-Encoding: deflate\r\n", b"Content-Encoding: br\r\n", b"Expect: x\r\n",
    b"Content-Type: application/json; charset=idna\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"Connection: close\r\n", b'{"name": "web"}', b'{"name": "\\udcff\\u0000", "timeout": 0}', b'{"timeout": NaN}',
    b'{"name": "x", "timeout": 1e999}', b"[" * 5000, b"9" * 5000, b"%00", b"%", b"\0", b"\xff\xfe", b"\x16\x03\x01",
]  # fmt: skip
FUZZED = 300
ASKED = settings(max_examples=300, deadline=None)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("web")
VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
# None that is waited for.
PATIENCE = VALUES.filter(lambda value: not isinstance(value, int | float) or value <= 0)
QUESTIONS = VALUES.filter(lambda value: value is not None) | st.fixed_dictionaries(
    {}, optional={"name": VALUES, "names": VALUES, "timeout": PATIENCE}
)
_BODIES = {
    "not JSON": (b"{", 400, "must be JSON"),
    "a list": (b"[]", 400, "must be a JSON object"),
    "no name": (b"{}", 400, "name must be a string"),
    "deep": (b"[" * 60_000, 400, "must be JSON"),
    "digits": (b"9" * 60_000, 400, "must be JSON"),
    "not UTF-8": (b'{"name": "\xff"}', 400, "must be JSON"),
    "unknown": (b'{"name": "\\u0000"}', 404, "no such namespace"),
}


@pytest.fixture
def shared(start_agent: StartAgent) -> Agent:
    """An agent whose socket a group may use."""
    return start_agent({"agent": {"group": grp.getgrgid(GROUP).gr_name}})


@pytest.fixture
def clients() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def control(clients: contextlib.ExitStack, sent: bytes = b"") -> socket.socket:
    client = clients.enter_context(socket.socket(socket.AF_UNIX))
    client.settimeout(20)
    client.connect(SOCKET)
    client.sendall(sent)
    return client


def web(clients: contextlib.ExitStack, sent: bytes = b"") -> socket.socket:
    client = clients.enter_context(socket.create_connection(WEB, 20))
    client.sendall(sent)
    return client


def answer(client: socket.socket) -> tuple[int, str]:
    """Status and body of the first answer that comes, all that is said until the end or a pause."""
    said = b""
    while b"\r\n\r\n" not in said or not said.partition(b"\r\n\r\n")[2]:
        more = client.recv(1 << 16)
        if not more:
            break
        said += more
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def is_ended(client: socket.socket) -> bool:
    """Whether the agent has closed the connection, all it said being read. Fails after 20 s of waiting."""
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionError:
        return True
    return True


def warnings(agent: Agent) -> list[str]:
    odd = [line for line in agent.lines if not line.startswith("{")]
    return odd + [str(record) for record in agent.records if record["level"] != "info"]


def test_others_are_kept_out_by_the_mode_and_by_who_they_are(agent: Agent) -> None:
    assert stat.S_IMODE(os.stat(SOCKET).st_mode) == 0o600
    with user(), pytest.raises(AgentNotRunning, match=r"no permission .* join agent\.group"):
        Client(SOCKET).get("/v1/status")
    os.chmod(SOCKET, 0o666)
    for _ in range(3):
        with user(), pytest.raises(Refused, match=r"^not for user 65534: for root, and for members of agent\.group"):
            Client(SOCKET).get("/v1/status")
    with user(), pytest.raises(Refused) as refused:
        Client(SOCKET).post("/v1/wait", {"name": "web" * 10_000})
    assert refused.value.status == 403
    assert Client(SOCKET).get("/v1/status")["pid"] == agent.pid
    assert [record["uid"] for record in agent.events("refused on the control socket")] == [65534], "told once"


def test_the_refused_hold_nothing(agent: Agent, clients: contextlib.ExitStack) -> None:
    os.chmod(SOCKET, 0o666)
    before = len(os.listdir(f"/proc/{agent.pid}/fd"))
    with user():
        crowd = [control(clients) for _ in range(100)]
    assert agent.ask("/v1/status")[0] == 200
    eventually(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) <= before, 5, "all were sent away")
    assert all(is_ended(client) for client in crowd)


@pytest.mark.parametrize(("gid", "groups"), [(GROUP, ()), (65534, (7, GROUP))], ids=["its own", "one of many"])
def test_members_of_the_group_may_ask(shared: Agent, gid: int, groups: tuple[int, ...]) -> None:
    found = os.stat(SOCKET)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, GROUP, 0o660)
    with user(gid=gid, groups=groups):
        assert Client(SOCKET).get("/v1/status")["pid"] == shared.pid
    with user(groups=(7,)), pytest.raises(AgentNotRunning, match="no permission"):
        Client(SOCKET).get("/v1/status")
    os.chmod(SOCKET, 0o666)
    with user(groups=(7,)), pytest.raises(Refused, match=r"agent\.group"):
        Client(SOCKET).get("/v1/status")


def test_a_group_that_is_none_is_refused_in_one_line(start_agent: StartAgent) -> None:
    agent = start_agent({"agent": {"group": "no such"}}, start=False)
    agent.start(ready=False)
    assert agent.wait_end() == 1
    assert [line for line in agent.lines if "agent.group: no group 'no such' on this host" in line]


def test_a_file_in_the_sockets_place_is_left(start_agent: StartAgent) -> None:
    Path(SOCKET).parent.mkdir(exist_ok=True)
    Path(SOCKET).write_text("precious")
    agent = start_agent(start=False)
    agent.start(ready=False)
    assert agent.wait_end() == 1
    assert Path(SOCKET).read_text() == "precious"


def test_a_member_has_so_many_places_and_root_always_one(shared: Agent, clients: contextlib.ExitStack) -> None:
    wait = json.dumps({"name": "never", "timeout": 60}).encode()
    with user(gid=GROUP):
        idle = [control(clients) for _ in range(PLACES_OF_ONE)]
        waiting = [control(clients, b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(PLACES_OF_ONE // 2)]
        assert answer(control(clients, STATUS))[0] == 200, "who is idle makes room"
    for _ in range(PLACES_OF_ONE):
        with user(gid=GROUP):
            waiting.append(control(clients, HEADER.replace(b"namespace", b"wait") % len(wait) + wait))
        assert shared.ask("/v1/status")[0] == 200, "root is let in, and what came before is being answered by now"
    status, said = answer(waiting[-1])
    assert (status, said) == (403, f'{{"error": "user 65534 is connected {PLACES_OF_ONE} times"}}')
    assert is_ended(idle[0])
    with user(uid=65533, gid=GROUP):
        assert Client(SOCKET).get("/v1/status")["ready"]
    assert shared.ask("/v1/status")[0] == 200
    netns.add_netns("web")
    shared.wait_ready("web")


def test_a_member_asks_so_often_and_no_more(shared: Agent, clients: contextlib.ExitStack) -> None:
    count = BURST + 20
    with user(gid=GROUP):
        client = control(clients)
    begin = time.monotonic()
    for _ in range(count):
        client.sendall(STATUS)
        assert answer(client)[0] == 200
    took = time.monotonic() - begin
    assert took > 0.9 * (count - BURST) / REQUESTS_PER_SECOND
    begin = time.monotonic()
    with user(uid=65533, gid=GROUP):
        assert Client(SOCKET).get("/v1/status")["ready"]
    for _ in range(2 * BURST):
        assert shared.ask("/v1/status")[0] == 200
    assert time.monotonic() - begin < 2 * BURST / REQUESTS_PER_SECOND, "neither another nor root waits for it"


def test_any_question_has_its_answer(agent: Agent) -> None:
    netns.add_netns("web")
    agent.wait_ready("web")

    @ASKED
    @given(st.sampled_from(["/v1/namespace", "/v1/explain", "/v1/wait"]), QUESTIONS)
    def asked(path: str, question: Any) -> None:
        status, answered = agent.ask(path, question)
        assert status < 500
        assert isinstance(answered, dict)

    asked()
    assert warnings(agent) == []


@pytest.mark.usefixtures("agent")
def test_any_address_on_the_page_has_its_answer(agent: Agent) -> None:
    @ASKED
    @given(st.sampled_from(["/", "/api/", "/api/namespace?id=", "/assets/", "/metrics?"]), st.binary(max_size=40))
    def asked(path: str, more: bytes) -> None:
        connection = http.client.HTTPConnection(*WEB, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path + quote(more, safe="/.%"))
            assert connection.getresponse().status < 500

    asked()
    assert warnings(agent) == []


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("kind", _BODIES)
def test_a_body_that_makes_no_sense_is_told_so(agent: Agent, clients: contextlib.ExitStack, kind: str) -> None:
    body, status, words = _BODIES[kind]
    client = control(clients, HEADER % len(body) + body)
    found, said = answer(client)
    assert (found, words in said) == (status, True), said
    assert warnings(agent) == []


@pytest.mark.parametrize("door", [control, web], ids=["control", "web"])
def test_what_is_too_large_is_cut_off(
    agent: Agent, clients: contextlib.ExitStack, door: Callable[[contextlib.ExitStack], socket.socket]
) -> None:
    client = door(clients)
    with contextlib.suppress(ConnectionError):
        client.sendall(HEADER.replace(b"/namespace", b"/" + b"x" * 70_000) % 0)
    assert is_ended(client)
    client = door(clients)
    with contextlib.suppress(ConnectionError):
        client.sendall(HEADER % (100 << 20))
        for _ in range(100):
            client.sendall(bytes(1 << 20))
    assert is_ended(client)
    assert warnings(agent) == []


def test_what_takes_too_long_is_cut_off(agent: Agent, clients: contextlib.ExitStack) -> None:
    begin = time.monotonic()
    slow = [control(clients, sent) for sent in (b"", STATUS[:20], HEADER % 9 + b"{")]
    answered = answer(slow[2])
    assert answered == (408, '{"error": "the body did not come"}')
    assert all(is_ended(client) for client in slow)
    assert 5 < time.monotonic() - begin < 20
    assert warnings(agent) == []


@pytest.mark.parametrize("door", [control, web], ids=["control", "web"])
def test_random_bytes_do_nothing(
    agent: Agent, clients: contextlib.ExitStack, door: Callable[[contextlib.ExitStack, bytes], socket.socket]
) -> None:
    chance = random.Random(7)
    before = len(os.listdir(f"/proc/{agent.pid}/fd"))
    for number in range(FUZZED):
        sent = b"".join(chance.choices(SHREDS, k=chance.randint(1, 9)))
        if number % 3 == 0:
            sent = chance.randbytes(chance.randint(1, 2000))
        elif number % 3 == 1:
            # What makes sense but for its end.
            sent = (HEADER % len(sent) + sent)[: chance.randint(1, 400)]
        with contextlib.suppress(ConnectionError):
            client = door(clients, sent)
            if number % 2:
                client.close()
        if number % 100 == 50:
            netns.add_netns(f"web-{number}")
            begin = time.monotonic()
            agent.wait_ready(f"web-{number}")
            assert time.monotonic() - begin < 2
    clients.close()
    eventually(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) <= before + 2, 5, "nothing is kept open")
    assert agent.ask("/v1/status")[0] == 200
    assert warnings(agent) == []
