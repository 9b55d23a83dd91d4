"""Who may ask on the control socket, how many at once and how fast: by what the kernel says of the other end.

The socket's mode keeps others out already; a mode can be changed by a mistake, who somebody is cannot.
Root is not limited: it could do worse. Sources: unix(7) for SO_PEERCRED; sk_getsockopt, net/core/sock.c.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.export.door import Door, connected
from agent.export.listeners import BACKLOG

# For each user but root, and for all of them together: one in the group may have many user ids (user_namespaces(7)).
PLACES_OF_ONE: Final = 64
PLACES_OF_ALL: Final = 256
# Requests of one user but root: so many at once, so many a second on the whole. What comes sooner waits for
# its turn; who would have to wait longer than a client does is sent away.
BURST: Final = 50
REQUESTS_PER_SECOND: Final = 20.0
_LONGEST_TURN_SECONDS: Final = 5.0
# So long may who is refused take to read why, and so many may do so at once.
_REFUSAL_SECONDS: Final = 1.0
_MOST_REFUSALS: Final = 32
_MOST_TOLD: Final = 64
_CREDENTIALS: Final = struct.Struct("iII")
# include/uapi/asm-generic/socket.h, which Python does not name.
_SO_PEERGROUPS: Final = 59
# The most that Python asks for: 256 groups.
_GROUPS_BYTES: Final = 1024

_log = structlog.get_logger()
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end, as it was when it connected; ids as seen from the agent's user namespace."""

    pid: int
    uid: int
    gids: frozenset[int]

    @property
    def is_root(self) -> bool:
        """Whether it is root, or the agent's own user."""
        return self.uid in {0, os.geteuid()}


class Gate:
    """The control socket's door: for root, and for a group if there is one."""

    def __init__(self, gid: int | None) -> None:
        self._gid = gid
        self._door = Door()
        self._turns: dict[int, float] = {}
        self._told: set[int] = set()

    def middlewares(self) -> tuple[Middleware, Middleware]:
        """Return what have to be the application's first middlewares."""

        @web.middleware
        async def in_turn(request: web.Request, handler: _Handler) -> web.StreamResponse:
            seconds = 0.0 if request.transport is None else self._until_turn(caller_of(request.transport))
            if seconds > _LONGEST_TURN_SECONDS:
                raise told(web.HTTPTooManyRequests, "too many requests")
            if seconds > 0:
                await asyncio.sleep(seconds)
            return await handler(request)

        return self._door.middleware(), in_turn

    async def open(self, runner: web.AppRunner, listener: socket.socket) -> None:
        """Listen for an application that is set up."""
        await _Site(runner, self, listener).start()

    def refusal(self, caller: Caller, runner: web.BaseRunner) -> str:
        """Return why somebody is not let in, empty for who is."""
        if caller.is_root:
            return ""
        if self._gid is None or self._gid not in caller.gids:
            self._tell_of(caller)
            return f"not for user {caller.uid}: for root, and for members of agent.group in vethd's config"
        others = [(each, who) for each in connected(runner) if not (who := _caller_at(each)).is_root]
        if len(others) >= PLACES_OF_ALL:
            return f"{PLACES_OF_ALL} others are connected"
        own = [each for each, who in others if who.uid == caller.uid]
        return "" if self._door.makes_room(own, PLACES_OF_ONE) else f"user {caller.uid} is connected {len(own)} times"

    def _tell_of(self, caller: Caller) -> None:
        if caller.uid not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(caller.uid)
            _log.warning("refused on the control socket", uid=caller.uid, pid=caller.pid)

    def _until_turn(self, caller: Caller) -> float:
        """Return the seconds until one may be answered, who has a turn from now on unless that is too long."""
        if caller.is_root:
            return 0.0
        now = asyncio.get_running_loop().time()
        rested = now - BURST / REQUESTS_PER_SECOND
        self._turns = {uid: turn for uid, turn in self._turns.items() if turn > rested}
        turn = self._turns.get(caller.uid, rested) + 1 / REQUESTS_PER_SECOND
        if turn - now <= _LONGEST_TURN_SECONDS:
            self._turns[caller.uid] = turn
        return turn - now


def caller_of(transport: asyncio.BaseTransport) -> Caller:
    """Return who is at the other end of a connection. One that is closed is nobody's."""
    peer = transport.get_extra_info("socket")
    try:
        pid, uid, gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return _NOBODY
    try:
        groups = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        # ERANGE, of somebody who is in more than that.
        groups = b""
    return Caller(pid, uid, frozenset({gid, *memoryview(groups).cast("I")}))


# What the kernel says, too, of one that has no number here (user_namespaces(7)).
_NOBODY: Final = Caller(0, 65534, frozenset())


def _caller_at(connection: web.RequestHandler) -> Caller:
    return _NOBODY if connection.transport is None else caller_of(connection.transport)


def told(kind: type[web.HTTPClientError], error: str) -> web.HTTPClientError:
    """Return an error as the API tells it: JSON."""
    return kind(text=_error_json(error), content_type="application/json")


def _error_json(error: str) -> str:
    return json.dumps({"error": error})


class _Site(web.BaseSite):
    def __init__(self, runner: web.AppRunner, gate: Gate, listener: socket.socket) -> None:
        super().__init__(runner)
        self._gate = gate
        self._listener = listener
        self._refused: set[asyncio.BaseTransport] = set()

    @property
    def name(self) -> str:
        """The socket, for logs."""
        return f"unix:{self._listener.getsockname()}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Threshold(self._ask), sock=self._listener, backlog=BACKLOG
        )

    def _ask(self, transport: asyncio.Transport) -> asyncio.Protocol:
        refusal = self._gate.refusal(caller_of(transport), self._runner)
        server = self._runner.server
        if server is None or refusal:
            return _Refusal(refusal, self._refused)
        return server()


class _Threshold(asyncio.Protocol):
    """Only once there is a connection can be seen whose: here it is decided who goes on with it."""

    def __init__(self, ask: Callable[[asyncio.Transport], asyncio.Protocol]) -> None:
        self._ask = ask

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        protocol = self._ask(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Refusal(asyncio.Protocol):
    """Says why, and waits a moment for it to be read: what a client has sent would else end its reading."""

    def __init__(self, why: str, refused: set[asyncio.BaseTransport]) -> None:
        self._why = why
        self._refused = refused
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._refused) >= _MOST_REFUSALS:
            transport.abort()
            return
        self._refused.add(transport)
        body = _error_json(self._why)
        transport.write(f"HTTP/1.0 403 Forbidden\r\nContent-Type: application/json\r\n\r\n{body}".encode())
        transport.write_eof()
        self._end = asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, transport.abort)

    def connection_lost(self, _: Exception | None) -> None:
        self._refused.discard(self._transport)
        if self._end is not None:
            self._end.cancel()
