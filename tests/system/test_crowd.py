"""What many, slow and rude clients of the metrics port can do to others: nothing. All by raw sockets."""

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from agent.export.door import MOST_CONNECTIONS, WRITE_SECONDS
from tests.harness import netns
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import eventually

WHERE = ("127.0.0.1", 9853)
HALF = b"GET /metrics HTTP/1.1\r\nHost: local"
WHOLE = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
IDLE, SCRAPERS, ROUNDS = 200, 50, 10
MEGABYTE = 1 << 20


def connect(stack: contextlib.ExitStack, sent: bytes = b"") -> socket.socket:
    """A client that can take little at once."""
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(5)
    client.connect(WHERE)
    client.sendall(sent)
    return client


def ask(path: str) -> int:
    connection = http.client.HTTPConnection(METRICS, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def refuses(client: socket.socket, megabyte: bytes) -> bool:
    """Whether a client that sends on and on is stopped."""
    try:
        for _ in range(64):
            client.sendall(megabyte)
    except OSError:
        return True
    return False


def is_cut_off(client: socket.socket) -> bool:
    client.settimeout(5)
    try:
        while client.recv(MEGABYTE):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def connections(agent: Agent) -> int:
    """How many TCP sockets the agent has open, the listening one included."""
    tcp = {line.split()[9] for line in Path(f"/proc/{agent.pid}/net/tcp").read_text().splitlines()[1:]}
    links: list[str] = []
    for file in Path(f"/proc/{agent.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(file))
    return sum(link.removeprefix("socket:[").removesuffix("]") in tcp for link in links)


def memory(agent: Agent) -> int:
    """Bytes of the agent that are in memory."""
    return int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def scraping(count: int) -> Iterator[list[http.client.HTTPConnection]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(http.client.HTTPConnection(METRICS, timeout=10)))
            for _ in range(count)
        ]


def test_idle_connections_and_scrapers_disturb_nobody(agent: Agent) -> None:
    names = [f"web-{number}" for number in range(20)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name)
    alone = median(seconds(lambda: ask("/metrics")) for _ in range(ROUNDS))
    crowded: list[float] = []
    with contextlib.ExitStack() as stack, scraping(SCRAPERS) as scrapers:
        for number in range(IDLE):
            connect(stack, HALF if number % 2 else b"")
        for number in range(ROUNDS):
            for scraper in scrapers:
                scraper.request("GET", "/metrics")
            crowded.append(seconds(lambda: ask("/metrics")))
            netns.add_netns(f"new-{number}")
            assert seconds(partial(agent.wait_ready, f"new-{number}")) < 2
            for scraper in scrapers:
                response = scraper.getresponse()
                assert response.status == 200
                assert b"vethd_network_receive_bytes_total{" in response.read()
            assert ask("/healthz") == 200
    # Half of what it would take if all were served one after the other, and this one as the last.
    assert median(crowded) < SCRAPERS / 2 * alone


def test_who_takes_too_long_is_cut_off(agent: Agent) -> None:
    before = connections(agent)
    with contextlib.ExitStack() as stack:
        silent, half, dripping, greedy = (connect(stack, sent) for sent in (b"", HALF, HALF, b""))
        # Asks on and on and takes no answer.
        greedy.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100_000):
                greedy.send(WHOLE)
        # Of some of these the agent is rid of all answers but for the last bytes, which it has to keep.
        lazy = [connect(stack, WHOLE * count) for count in range(4, 400, 4)]
        eventually(lambda: connections(agent) == before + 4 + len(lazy), 2, "all are let in")

        def are_gone() -> bool:
            with contextlib.suppress(OSError):
                dripping.send(b"x")
            return connections(agent) == before

        begin = time.monotonic()
        eventually(are_gone, 3 * WRITE_SECONDS, "the agent has cut all of them off")
        assert time.monotonic() - begin > WRITE_SECONDS / 2, "not before their time"
        assert all(is_cut_off(client) for client in (silent, half, dripping, greedy, *lazy))
    assert ask("/metrics") == 200


def test_a_flood_shuts_nobody_out_and_takes_no_more_than_its_places(agent: Agent) -> None:
    before = connections(agent)
    with contextlib.ExitStack() as stack, scraping(1) as (viewer,):
        viewer.request("GET", "/api/live")
        stream = viewer.getresponse()
        flood = [connect(stack) for _ in range(MOST_CONNECTIONS + 60)]
        assert ask("/healthz") == 200
        assert ask("/metrics") == 200
        eventually(lambda: connections(agent) <= before + MOST_CONNECTIONS, 2, "there are no more than may be")
        assert is_cut_off(flood[0]), "the oldest makes room"
        for _ in range(3 * 3):
            assert stream.readline(), "who came first and is being answered stays, for samples to come"
        netns.add_netns("web")
        agent.wait_ready("web")


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"GET /", b"x"), (b"GET / HTTP/1.1\r\nX: ", b"x"), (b"GET / HTTP/1.1\r\n", b"X: y\r\n")],
    ids=["line", "header", "headers"],
)
def test_no_request_is_read_without_end(agent: Agent, begin: bytes, more: bytes) -> None:
    with contextlib.ExitStack() as stack:
        client = connect(stack, begin)
        assert refuses(client, more * (MEGABYTE // len(more)))
        assert is_cut_off(client)
    assert ask("/healthz") == 200


def test_no_body_is_read_that_nobody_wants(agent: Agent) -> None:
    before = memory(agent)
    with contextlib.ExitStack() as stack:
        client = connect(stack, b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert refuses(client, b"100000\r\n" + bytes(MEGABYTE) + b"\r\n")
        assert memory(agent) - before < 16 * MEGABYTE
    assert ask("/healthz") == 200
