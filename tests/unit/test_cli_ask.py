"""The asking commands against a small server on a Unix socket: exit codes, output, and what is sent."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main

NAME = b"\x1b]0;x\x07\xff\n".decode("utf-8", "surrogateescape")  # what a tenant may call a namespace
NAMESPACE = {
    "name": NAME,
    "path": f"/run/netns/{NAME}",
    "source": "named",
    "state": "ready",
    "network": "default",
    "device": "vh0123456789",
    "address": "172.27.0.2/16",
    "address6": "fd00:7e74:1::2/64",
    "rule": "named in /run/netns",
    "reason": "",
    "cookie": 4097,
    "plumb_ms": 1.44,
    "aliases": ["other\x07"],
}
STATUS = {
    "version": "0.1.0",
    "pid": 812,
    "uptime_seconds": 93784.2,
    "ready": True,
    "networks": [
        {
            "name": "default",
            "subnet": "172.27.0.0/16",
            "subnet6": "fd00:7e74:1::/64",
            "bridge": "vethd0",
            "gateway": "172.27.0.1",
            "gateway6": "fd00:7e74:1::1",
            "mtu": 1500,
            "leases": 3,
            "capacity": 65533,
            "ports": 2,
        }
    ],
    "namespaces": {"ready": 2, "pending": 0, "left": 1, "failed": 0},
    "uplink": {"device": "eth9", "mtu": 1500},
    "events_dropped": {"rtnetlink": 3, "inotify": 0},
    "problems": ["something is \x1b[31mwrong"],
}

Answer = tuple[int, bytes]


class FakeAgent:
    """Answers each path with what a test sets, and keeps what it was asked."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Any]] = []

    def says(self, path: str, body: object, status: int = 200) -> None:
        """Set the answer: an object as JSON, bytes as they are."""
        self.answers[path] = (status, body if isinstance(body, bytes) else json.dumps(body).encode("ascii"))


def _handler(agent: FakeAgent) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = agent.answers.get(self.path, (404, b'{"error": "no such path"}'))
            length = int(self.headers.get("Content-Length", 0))
            agent.asked.append((self.path, json.loads(self.rfile.read(length)) if length else None))
            self.send_response(status)
            if self.path != "/v1/watch":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  (the base class's naming)

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    return Handler


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgent]:
    """A server on a Unix socket that the config in $VETHD_CONFIG names."""
    config, path = tmp_path / "vethd.toml", tmp_path / "sock"
    config.write_text(f'[agent]\nsocket = "{path}"\n')
    monkeypatch.setenv("VETHD_CONFIG", str(config))
    found = FakeAgent(config)
    with socketserver.ThreadingUnixStreamServer(str(path), _handler(found)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(*line: str) -> tuple[int, str, str]:
        code = main(line)
        said = capsys.readouterr()
        assert all(text.isprintable() for text in (said.out + said.err).split("\n"))
        return code, said.out, said.err

    return run


Run = Callable[..., tuple[int, str, str]]


def test_list_shows_one_escaped_line_a_namespace(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/namespaces", {"namespaces": [NAMESPACE]})
    code, out, _ = run("list")
    assert code == 0
    assert out.splitlines()[0].split() == ["NAME", "STATE", "NETWORK", "ADDRESS", "ADDRESS6", "DEVICE", "WHY"]
    assert out.splitlines()[1].startswith("\\e]0;x\\x07\\xff\\n  ready  default  172.27.0.2/16")
    assert len(out.splitlines()) == 2


def test_list_tells_the_rule_of_what_is_left_alone(agent: FakeAgent, run: Run) -> None:
    left = NAMESPACE | {"name": "cni-1", "state": "left", "rule": 'discovery.exclude: "cni-*"', "reason": ""}
    agent.says("/v1/namespaces", {"namespaces": [left]})
    assert run("list")[1].splitlines()[1].endswith('discovery.exclude: "cni-*"')


def test_list_of_nothing_says_what_to_do(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/namespaces", {"namespaces": []})
    assert "ip netns add" in run("list")[1]


def test_json_is_what_the_agent_said_and_plain_ascii(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/namespaces", {"namespaces": [NAMESPACE]})
    out = run("list", "--json")[1]
    assert json.loads(out) == {"namespaces": [NAMESPACE]}
    assert out.isascii()


def test_status_tells_of_the_agent(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/status", STATUS)
    code, out, _ = run("status")
    assert code == 0
    for part in ("pid 812", "up 1 d 2 h", "2 ready, 0 pending, 1 left, 0 failed", "eth9, MTU 1500", "3 from rtnetlink"):
        assert part in out
    assert "something is \\e[31mwrong" in out
    assert "3 of 65533" in out
    assert "inotify" not in out


def test_status_before_there_is_an_uplink(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/status", STATUS | {"uplink": None, "ready": False, "problems": [], "events_dropped": {}})
    out = run("status")[1]
    assert "starting" in out
    assert "no default route" in out


def test_status_of_a_namespace_sends_the_bytes_of_its_name(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/namespace", NAMESPACE)
    code, out, _ = run("status", NAME)
    assert code == 0
    assert agent.asked == [("/v1/namespace", {"name": NAME})]
    assert "networked in   1.4 ms" in out


def test_status_of_an_unknown_namespace_is_a_failure(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/namespace", {"error": "no namespace is called x"}, 404)
    assert run("status", "x") == (1, "", "vethd: no namespace is called x\n")


@pytest.mark.parametrize(
    ("outcome", "reason", "code", "said"),
    [
        ("ready", "", 0, "web: ready, 172.27.0.2/16 fd00:7e74:1::2/64\n"),
        ("failed", "no free address", 1, "vethd: web: failed: no free address\n"),
        ("timeout", "", 1, "vethd: web: not networked within 2 s\n"),
        ("left", "excluded by 'cni-*'", 3, "vethd: web: left alone: excluded by 'cni-*'\n"),
    ],
)
def test_wait(agent: FakeAgent, run: Run, outcome: str, reason: str, code: int, said: str) -> None:
    namespace = NAMESPACE if outcome == "ready" else None
    agent.says("/v1/wait", {"outcome": outcome, "namespace": namespace, "reason": reason})
    assert run("wait", "web", "--timeout", "2") == ((code, said, "") if code == 0 else (code, "", said))
    assert agent.asked == [("/v1/wait", {"name": "web", "timeout": 2.0})]


def test_watch_ends_with_4_when_the_agent_stops(agent: FakeAgent, run: Run) -> None:
    events = [
        {"time": 0.5, "event": "networked", "name": NAME, "initial": True, "address": "172.27.0.2/16"},
        {"time": 1.5, "event": "host-repaired", "kinds": ["ruleset", "a\x1b[2J"], "seconds": 0.00241, "culprit": "nft"},
    ]
    agent.says("/v1/watch", b"".join(json.dumps(event).encode() + b"\n" for event in events))
    code, out, err = run("watch")
    assert (code, err) == (4, "vethd: the agent has stopped\n")
    first, second = out.splitlines()
    assert "networked" in first
    assert "address=172.27.0.2/16" in first
    assert "initial" not in first
    assert second.split()[2:] == ["host-repaired", "-", "kinds=ruleset,a\\e[2J", "culprit=nft", "took=2.4ms"]
    assert [json.loads(line) for line in run("watch", "--json")[1].splitlines()] == events


def test_explain_shows_facts_and_history(agent: FakeAgent, run: Run) -> None:
    history = [{"time": 1.25, "event": "appeared", "detail": "/run/netns/web"}]
    agent.says("/v1/explain", {"namespace": NAMESPACE, "history": history})
    code, out, _ = run("explain", "web")
    assert code == 0
    assert "rule" in out
    assert "appeared" in out.splitlines()[-1]


def test_explain_of_a_removed_namespace(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/explain", {"namespace": None, "history": []})
    assert run("explain", NAME)[1] == "\\e]0;x\\x07\\xff\\n: gone\n"


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'"x"'])
def test_a_server_that_is_not_vethd_is_told_in_one_line(agent: FakeAgent, run: Run, body: bytes) -> None:
    agent.says("/v1/status", body)
    code, out, err = run("status")
    assert code in (1, 4)
    assert out == ""
    assert err.count("\n") == 1


def test_an_error_page_of_any_shape_is_told_in_one_line(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/status", b"500: Internal\nServer Error", 500)
    assert run("status") == (1, "", "vethd: 500: Internal\\nServer Error\n")


@pytest.mark.parametrize("line", [["status"], ["list"], ["wait", "x"], ["watch"], ["explain", "x"], ["status", "x"]])
def test_without_an_agent_it_is_one_line_and_4(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    config = tmp_path / "vethd.toml"
    config.write_text(f'[agent]\nsocket = "{tmp_path / "nobody"}"\n')
    monkeypatch.setenv("VETHD_CONFIG", str(config))
    code, out, err = run(*line)
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    assert "the agent is not running" in err


def test_a_socket_path_that_is_too_long_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    config = tmp_path / "vethd.toml"
    config.write_text(f'[agent]\nsocket = "/{"x" * 200}"\n')
    monkeypatch.setenv("VETHD_CONFIG", str(config))
    code, _, err = run("list")
    assert code == 4
    assert err.count("\n") == 1


def test_a_config_that_is_being_edited_does_not_hide_the_agent(agent: FakeAgent, run: Run) -> None:
    agent.says("/v1/namespaces", {"namespaces": []})
    agent.config.write_text(agent.config.read_text() + "[network.x]\nunknown = 1\n")
    assert run("list")[0] == 0


def test_a_reader_that_has_enough_ends_it_quietly(agent: FakeAgent) -> None:
    agent.says("/v1/namespaces", {"namespaces": [NAMESPACE] * 5000})
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "list"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=30
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_is_not_utf8_shows_escapes(agent: FakeAgent) -> None:
    agent.says("/v1/namespaces", {"namespaces": [NAMESPACE | {"name": "\u7db2"}]})
    done = subprocess.run(
        [sys.executable, "-m", "agent", "list"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
    assert b"\\u7db2" in done.stdout


def test_asking_loads_none_of_the_agents_libraries() -> None:
    heavy = ("aiohttp", "asyncio", "pyroute2", "structlog", "prometheus_client", "nftables", "dataclasses", "http")
    program = f"import sys, agent.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=30)
    assert done.stdout == b"[]\n"
