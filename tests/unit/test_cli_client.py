"""The client's own HTTP, against servers that say what a test sets, and no more."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cli.client import AgentNotRunning, Client, Refused

Serve = Callable[..., Client]
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answer one connection by some bytes; then hang up, or keep silent until the test ends."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    asked: list[bytes] = []

    def start(answer: bytes, *, silent: bool = False) -> Client:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "sock"))
        listener.listen()

        def once() -> None:
            with listener, listener.accept()[0] as connection:
                asked.append(connection.recv(65536))
                connection.sendall(answer)
                if silent:
                    over.wait()

        threads.append(threading.Thread(target=once))
        threads[-1].start()
        return Client(str(tmp_path / "sock"))

    yield start
    over.set()
    for thread in threads:
        thread.join()
    assert all(request.split(b" ")[2].startswith(b"HTTP/1.0\r\n") for request in asked)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_ends_where_the_connection_does(serve: Serve, version: bytes) -> None:
    assert serve(b"HTTP/%s 200 OK\r\nServer: any\r\n\r\n{\n\n}" % version).get("/v1/status") == {}


@pytest.mark.parametrize(
    "answer",
    [b"", b"\r\n\r\n", b"HTTP/1.0", b"HTTP/1.0 fine\r\n\r\n{}", b"SSH-2.0-x y\r\n\r\n{}", OK, OK + b'{"a": [1,'],
)
def test_what_is_cut_off_or_no_answer_is_told_in_one_line(serve: Serve, answer: bytes) -> None:
    with pytest.raises(AgentNotRunning, match="middle of an answer"):
        serve(answer).get("/v1/status")


def test_silence_is_not_waited_for_in_vain(serve: Serve) -> None:
    with pytest.raises(AgentNotRunning, match="does not answer"):
        serve(OK + b"{", silent=True).post("/v1/wait", {}, 0.1)


def test_a_refusal_is_the_agents_words(serve: Serve) -> None:
    with pytest.raises(Refused, match=r"^no such thing$") as refused:
        serve(b'HTTP/1.0 404 Not Found\r\n\r\n{"error": "no such thing"}').get("/v1/x")
    assert refused.value.status == 404


def test_a_stream_is_told_line_by_line_and_ends_with_silence(serve: Serve) -> None:
    stream = serve(OK + b'{"a": 1}\n{"a": 2}\n', silent=True).stream("/v1/watch", 0.1)
    assert list(stream) == [{"a": 1}, {"a": 2}]


def test_a_stream_that_is_cut_ends(serve: Serve) -> None:
    assert list(serve(OK + b'{"a": 1}\n{"a"').stream("/v1/watch")) == [{"a": 1}]


def test_a_stream_that_nobody_reads_on_is_closed(serve: Serve) -> None:
    stream = serve(OK + b'{"a": 1}\n' * 2).stream("/v1/watch")
    assert next(stream) == {"a": 1}
    stream.close()
