"""Who may ask, what is served, and who may look: by raw HTTP."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator

import pytest

from tests.conftest import StartAgent
from tests.harness import netns
from tests.harness.expect import address4
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import eventually

PORT = 9853
MOST_VIEWERS = 64


def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(METRICS, timeout=5)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": METRICS, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@contextlib.contextmanager
def looking() -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
    connection = http.client.HTTPConnection(METRICS, timeout=5)
    try:
        connection.request("GET", "/api/live")
        yield connection, connection.getresponse()
    finally:
        connection.close()


def message(response: http.client.HTTPResponse) -> tuple[str, dict[str, object]]:
    """The next message of an event stream."""
    event = response.readline().decode().removeprefix("event: ").strip()
    data = json.loads(response.readline().decode().removeprefix("data: "))
    assert response.readline() == b"\n"
    return event, data


@pytest.mark.usefixtures("agent")
def test_what_is_served_is_there_and_nothing_else() -> None:
    status, headers, page = ask("/")
    assert status == 200
    assets = re.findall(rb'(?:src|href)="(/assets/[^"]+)"', page)
    scripts = {path.decode() for path in assets}
    for path in list(scripts):
        if path.endswith(".js"):
            scripts |= {f"/assets/{found.decode()}" for found in re.findall(rb'from "\./([^"]+)"', ask(path)[2])}
    assert len(scripts) >= 6
    for path in ("/", *scripts):
        status, headers, _ = ask(path)
        assert status == 200, path
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(rb"<script(?![^>]* src=)|<style|\son\w+=|https?://(?!www\.w3\.org)", page), (
        "nothing inline, nothing from elsewhere"
    )
    for path in (
        "/assets/",
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/%2e%2e/app.py",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/assets/main.js/",
        "/assets/main.js%00",
        "/page/index.html",
    ):
        status, headers, _ = ask(path)
        assert status == 404, path
        assert headers["X-Content-Type-Options"] == "nosniff"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask("/", method)[0] == 405
    for key in ("", "x", "../../etc/passwd", "0" * 16, "%00", "%ff", "x" * 4000):
        assert ask(f"/api/namespace?id={key}")[0] == 404


@pytest.mark.parametrize("path", ["/", "/api/live", "/api/namespace?id=x", "/metrics", "/assets/main.js"])
def test_pages_from_elsewhere_are_refused(agent: Agent, path: str) -> None:
    assert agent.process is not None
    for host in (
        "evil.example",
        f"evil.example:{PORT}",
        "127.0.0.1.evil.example",
        "192.0.2.2",
        "",
        "[",
        "localhost@evil",
    ):
        assert ask(path, Host=host)[0] in {400, 403}, host
    assert ask(path, Origin="http://evil.example")[0] == 403
    assert ask(path, Origin="null")[0] == 403


@pytest.mark.usefixtures("agent")
def test_its_own_names_are_welcome() -> None:
    for host in ("localhost", f"localhost:{PORT}", "127.0.0.1", "127.0.0.1:1", "[::1]:9853", "LOCALHOST"):
        assert ask("/", Host=host)[0] == 200, host
    assert ask("/", Origin=f"http://{METRICS}")[0] == 200


@pytest.mark.parametrize("listen", [METRICS, f"0.0.0.0:{PORT}"])
def test_a_namespace_does_not_reach_it(start_agent: StartAgent, listen: str) -> None:
    agent = start_agent({"metrics": {"listen": listen}}, start=False).start()
    netns.add_netns("web")
    agent.wait_ready("web")
    for gateway in ("172.27.0.1", "192.0.2.2"):
        for path in ("/", "/metrics", "/api/live"):
            assert not _answers("web", gateway, path), f"{gateway} {path}"
    if listen != METRICS:
        assert _answers(None, "192.0.2.2", "/metrics"), "others, who were let in, do"
        assert _answers(None, "192.0.2.2", "/")


def _answers(name: str | None, address: str, path: str) -> bool:
    with netns.socket_in(name, address) as sock:
        sock.settimeout(2)
        try:
            sock.connect((address, PORT))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}:{PORT}\r\nConnection: close\r\n\r\n".encode())
            return sock.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def test_the_stream_tells_what_changes(agent: Agent) -> None:
    netns.add_many([f"web-{number}" for number in range(20)])
    agent.wait_ready("web-19")
    with looking() as (_, response):
        assert response.headers["Content-Type"] == "text/event-stream"
        event, whole = message(response)
        rows = whole["rows"]
        assert isinstance(rows, list)
        assert event == "whole"
        eventually(lambda: len(agent.namespaces()) == 20, 5, "all are known")
        agent.wait_ready("web-0")
        netns.del_netns("web-0")
        eventually(lambda: message(response)[1].get("gone"), 5, "one is gone")
        key = next(row["key"] for row in rows if row["name"] == "web-1")
        status, _, body = ask(f"/api/namespace?id={key}")
        told = json.loads(body)
        assert status == 200
        assert told["namespace"]["address"].startswith(f"{address4('web-1')}/")
        assert told["traffic"]["receive_bytes"] >= 0
        assert [each["event"] for each in told["events"]][-1] == "networked"
    key = next(row["key"] for row in rows if row["name"] == "web-2")
    assert ask(f"/api/namespace?id={key}")[0] == 200, "known, though nobody looks"


def test_viewers_are_limited_and_slow_ones_are_not_waited_for(agent: Agent) -> None:
    netns.add_many(["web"])
    agent.wait_ready("web")
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(looking())[1] for _ in range(MOST_VIEWERS)]
        assert {stream.status for stream in streams} == {200}
        assert ask("/api/live")[0] == 503
        for _ in range(3):
            # All but the first read nothing meanwhile.
            message(streams[0])
    eventually(_may_look, 5, "places are free again")


def _may_look() -> bool:
    with looking() as (_, response):
        return response.status == 200
