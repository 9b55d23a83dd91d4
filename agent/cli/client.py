"""The control API of a running agent, asked over its Unix socket.

Standard library only, and little of it: ``vethd wait`` stands in scripts and should cost no more than it must.
"""

import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from agent.errors import VethdError

DEFAULT_CONFIG = "/etc/vethd/vethd.toml"
DEFAULT_SOCKET = "/run/vethd/vethd.sock"
ANSWER_SECONDS = 10.0

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


def socket_of(config: str | None) -> str:
    """The control socket that the config file names, or the built-in one.

    Only this one key is read: a running agent can be asked even while its config file is being edited and is wrong.
    """
    import tomllib

    path = config or os.environ.get("VETHD_CONFIG") or DEFAULT_CONFIG
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("agent")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return DEFAULT_SOCKET
    named = table.get("socket") if isinstance(table, dict) else None
    return named if isinstance(named, str) and named else DEFAULT_SOCKET


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix stream socket, unix(7)."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


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

    def stream(self, url: str) -> Iterator[Json]:
        """The JSON lines at ``url``, each as it comes, until the agent closes the stream."""
        connection, answer = self._answer("GET", url, None, None)
        try:
            while line := answer.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError):
            # An agent that is killed cuts the stream anywhere; for the reader that is its end.
            return
        finally:
            connection.close()

    def _object(self, method: str, url: str, body: Json | None, seconds: float) -> Json:
        connection, answer = self._answer(method, url, body, seconds)
        try:
            found = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._lost(error) from error
        finally:
            connection.close()
        if not isinstance(found, dict):
            raise Refused(answer.status, f"an answer that is not vethd's came from {self.path}")
        return found

    def _answer(
        self, method: str, url: str, body: Json | None, seconds: float | None
    ) -> tuple[_UnixConnection, http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, seconds)
        # ASCII only: a name that is not UTF-8 travels as lone surrogates, which JSON escapes and UTF-8 refuses.
        data = None if body is None else json.dumps(body).encode("ascii")
        try:
            connection.request(method, url, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            refusal = None if answer.status == http.client.OK else _refusal(answer)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from error
        if refusal is not None:
            connection.close()
            raise refusal
        return connection, answer

    def _lost(self, error: Exception) -> AgentNotRunning:
        if isinstance(error, PermissionError):
            return AgentNotRunning(f"no permission to ask the agent at {self.path}: become root")
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return AgentNotRunning(f"the agent is not running (nobody answers at {self.path}): start it, `vethd run`")
        if isinstance(error, TimeoutError):
            return AgentNotRunning(f"the agent at {self.path} does not answer: see its log, `journalctl -u vethd`")
        if isinstance(error, ConnectionError | http.client.HTTPException | ValueError):
            return AgentNotRunning(f"the agent at {self.path} went away in the middle of an answer")
        return AgentNotRunning(f"the agent cannot be asked at {self.path}: {error}")


def _refusal(answer: http.client.HTTPResponse) -> Refused:
    """What the agent says is wrong, whatever shape the answer has."""
    text = answer.read().decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        text = found["error"]
    return Refused(answer.status, text or f"the agent answered HTTP {answer.status}")
