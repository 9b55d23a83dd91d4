"""What `vethd new` asks for before it makes anything, and the file by which it wishes for a network."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import waiting
from agent.cli.client import Client, Json
from agent.cli.exits import Failure
from agent.cli.main import main
from agent.cli.wish import Wish
from agent.config import load
from agent.config.wishes import Wishes, load_wishes

OURS, OTHER = {"network": "ci"}, {"network": "default"}


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "vethd.sock"


def read(socket: Path) -> Wishes:
    """As the agent reads it."""
    found = load_wishes(socket.parent / "netns.d", load(None).networks, Wishes())
    assert not found.problems
    return found


@pytest.mark.parametrize("name", [b"web", b"a\nb", b"\xff", b"-x", b"x" * 250, b"a.toml", "\u7db2".encode()])
def test_the_agent_understands_a_wish(socket: Path, name: bytes) -> None:
    wish = Wish(socket, name, "default")
    wish.express()
    found = read(socket).find(os.fsdecode(name))
    assert found is not None
    assert found.network == "default"
    assert (socket.parent / "netns.d").stat().st_mode & 0o777 == 0o700
    wish.withdraw()
    wish.withdraw()
    assert os.listdir(socket.parent / "netns.d") == []


def test_one_that_was_left_behind_is_taken_away(socket: Path) -> None:
    Wish(socket, b"web", "default").express()
    Wish(socket, b"db", "default").express()
    Wish(socket, b"web", None).express()
    assert set(read(socket).by_name) == {"db"}


def test_nothing_is_wished_for_where_nobody_ever_wished(socket: Path) -> None:
    for name in (b"web", b"a*", b"x" * 255):
        wish = Wish(socket, name, None)
        wish.express()
        wish.withdraw()
    assert os.listdir(socket.parent) == []


@pytest.mark.parametrize("name", [b"a*", b"a?", b"[a]", b".hidden", b"x" * 251])
def test_what_cannot_be_the_name_of_a_wish(socket: Path, name: bytes) -> None:
    with pytest.raises(Failure) as refused:
        Wish(socket, name, "default")
    assert refused.value.code == 2
    assert os.listdir(socket.parent) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "x" * 256, "\u7db2" * 86])
def test_what_is_no_name_at_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("line", [["new", "web"], ["new", "web", "--rm", "--", "true"], ["exec", "web", "--", "true"]])
def test_without_an_agent_nothing_is_made(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "vethd.toml"
    config.write_text(f'[agent]\nsocket = "{tmp_path / "sock"}"\n[discovery]\ndirectories = ["{tmp_path / "netns"}"]\n')
    monkeypatch.setenv("VETHD_CONFIG", str(config))
    assert main(line) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path) == ["vethd.toml"]


def test_a_broken_config_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "vethd.toml"
    config.write_text("[agent\n")
    monkeypatch.setenv("VETHD_CONFIG", str(config))
    assert main(["new", "web"]) == 2
    assert str(config) in capsys.readouterr().err


class FakeClient(Client):
    """Says of a namespace what a test sets, one answer after the other, and tells of events."""

    def __init__(self, *answers: Json, events: tuple[str, ...] = ()) -> None:
        super().__init__("/nobody")
        self._answers = list(answers)
        self._events = events

    def post(self, url: str, body: Json, seconds: float = 0) -> Json:
        assert (url, body["name"]) == ("/v1/wait", "/run/netns/web")
        answer = self._answers.pop(0)
        return {"outcome": "ready", "namespace": answer, "reason": ""} if "network" in answer else answer

    def stream(self, url: str, seconds: float | None = None) -> Generator[Json, None, None]:
        assert url == "/v1/watch"
        assert seconds is not None
        for name in self._events:
            yield {"name": name, "event": "networked"}


def in_ci(client: FakeClient, seconds: float = 5.0) -> Any:
    return waiting.networked_by(client, "/run/netns/web", "ci", seconds)


def test_a_wish_that_was_read_in_time() -> None:
    assert in_ci(FakeClient(OURS)) == OURS


def test_a_wish_that_is_read_late() -> None:
    client = FakeClient(OTHER, OTHER, OURS, events=("web", "db", "web", "web"))
    assert in_ci(client) == OURS


@pytest.mark.parametrize(
    ("client", "seconds", "code"),
    [
        (FakeClient(OTHER, OTHER, events=("web",)), 5.0, 1),
        (FakeClient(OTHER, events=("web",) * 5), 0.0, 1),
        (FakeClient({"outcome": "timeout", "reason": ""}), 5.0, 1),
        (FakeClient(OTHER, {"outcome": "failed", "reason": "x"}, events=("web",)), 5.0, 1),
        (FakeClient({"outcome": "left", "reason": "x"}), 5.0, 3),
    ],
)
def test_a_wish_that_is_not_fulfilled(client: FakeClient, seconds: float, code: int) -> None:
    with pytest.raises(Failure) as refused:
        in_ci(client, seconds)
    assert refused.value.code == code


def test_an_unknown_network_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "vethd.toml"
    config.write_text(f'[discovery]\ndirectories = ["{tmp_path / "netns"}"]\n')
    monkeypatch.setenv("VETHD_CONFIG", str(config))
    monkeypatch.setattr(Client, "get", lambda _, url: {"networks": [{"name": "default"}]})
    assert main(["new", "web", "--network", "c\x1bi"]) == 2
    assert capsys.readouterr().err == "vethd: --network c\\ei: no such network; there are: default\n"
    assert os.listdir(tmp_path) == ["vethd.toml"]
