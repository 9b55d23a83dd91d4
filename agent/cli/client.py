"""The control API of a running agent, asked over its Unix socket.

Standard library only, and little of it: ``vethd wait`` stands in scripts and should cost no more than it must.
Hence HTTP/1.0 by hand (RFC 1945), whose answers end where the connection does: Python's own client takes
longer to be loaded than all else together.
"""

import argparse
import json
import os
import socket
from collections.abc import Generator
from typing import IO, Any

from agent.errors import VethdError

DEFAULT_CONFIG = "/etc/vethd/vethd.toml"
DEFAULT_SOCKET = "/run/vethd/vethd.sock"
ANSWER_SECONDS = 10.0
OK = 200
LONGEST_HEADER = 1 << 16

Json = dict[str, Any]


class AgentNotRunning(VethdError):
    """Nobody answers on the control socket; ``str()`` is one user-ready line."""


class Refused(VethdError):
    """The agent answered with an error status.

    ``status`` is that of HTTP, ``str()`` the agent's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def client_of(options: argparse.Namespace) -> "Client":
    """Asks the agent of the config that the command line names."""
    return Client(socket_of(getattr(options, "config", None)))


def socket_of(config: str | None) -> str:
    """The control socket that the config file names, or the built-in one.

    Only this one key is read: a running agent can be asked even while its config file is being edited and is wrong.
    """
    path = config or os.environ.get("VETHD_CONFIG") or DEFAULT_CONFIG
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return DEFAULT_SOCKET
    import tomllib

    try:
        table = tomllib.loads(text).get("agent")
    except tomllib.TOMLDecodeError:
        return DEFAULT_SOCKET
    named = table.get("socket") if isinstance(table, dict) else None
    return named if isinstance(named, str) and named else DEFAULT_SOCKET


def api_name(argument: str) -> str:
    """The bytes that were typed as the API names them, whatever the locale decoded them as."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


class Client:
    """Asks one agent; each call is one connection."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, url: str) -> Json:
        """The JSON object at ``url``."""
        return self._object("GET", url, None, ANSWER_SECONDS)

    def post(self, url: str, body: Json, seconds: float = ANSWER_SECONDS) -> Json:
        """What the agent answers to ``body``; it may take ``seconds`` to do so."""
        return self._object("POST", url, body, seconds)

    def stream(self, url: str, seconds: float | None = None) -> Generator[Json, None, None]:
        """The JSON lines at ``url``, each as it comes, until the agent ends the stream or is silent for so long."""
        with self._answer("GET", url, None, seconds) as answer:
            try:
                while line := answer.readline():
                    yield json.loads(line)
            except (OSError, ValueError):
                # An agent that is killed cuts the stream anywhere; for the reader that is its end.
                return

    def _object(self, method: str, url: str, body: Json | None, seconds: float) -> Json:
        with self._answer(method, url, body, seconds) as answer:
            try:
                found = json.loads(answer.read())
            except (OSError, ValueError) as error:
                raise self._lost(error) from error
        if not isinstance(found, dict):
            raise Refused(OK, f"an answer that is not vethd's came from {self.path}")
        return found

    def _answer(self, method: str, url: str, body: Json | None, seconds: float | None) -> IO[bytes]:
        """The body of an answer, yet to be read; closing it closes the connection."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(seconds)
                connection.connect(self.path)
                connection.sendall(_request(method, url, body))
                answer = connection.makefile("rb")
            try:
                status = _status(answer)
                refusal = None if status == OK else _refusal(status, answer.read())
            except BaseException:
                answer.close()
                raise
        except (OSError, ValueError) as error:
            raise self._lost(error) from error
        if refusal is not None:
            answer.close()
            raise refusal
        return answer

    def _lost(self, error: Exception) -> AgentNotRunning:
        if isinstance(error, PermissionError):
            return AgentNotRunning(f"no permission to ask the agent at {self.path}: become root, or join agent.group")
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return AgentNotRunning(f"the agent is not running (nobody answers at {self.path}): start it, `vethd run`")
        if isinstance(error, TimeoutError):
            return AgentNotRunning(f"the agent at {self.path} does not answer: see its log, `journalctl -u vethd`")
        if isinstance(error, ConnectionError | ValueError):
            return AgentNotRunning(f"the agent at {self.path} went away in the middle of an answer")
        return AgentNotRunning(f"the agent cannot be asked at {self.path}: {error}")


def _request(method: str, url: str, body: Json | None) -> bytes:
    # ASCII only: a name that is not UTF-8 travels as lone surrogates, which JSON escapes and UTF-8 refuses.
    data = b"" if body is None else json.dumps(body).encode("ascii")
    header = f"{method} {url} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return header.encode("ascii") + data


def _status(answer: IO[bytes]) -> int:
    """The status of an answer, whose header is read to its end. Raises ValueError for what is no answer."""
    protocol, status, *_ = answer.readline(LONGEST_HEADER).split(None, 2)
    while answer.readline(LONGEST_HEADER).strip():
        pass
    if not protocol.startswith(b"HTTP/1."):
        raise ValueError(protocol)
    return int(status)


def _refusal(status: int, body: bytes) -> Refused:
    """What the agent says is wrong, whatever shape the answer has."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        text = found["error"]
    return Refused(status, text or f"the agent answered HTTP {status}")
