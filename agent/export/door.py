"""How many may be connected at once, and how long they may take: by strangers nobody is kept waiting.

Sources: tcp(7) for TCP_USER_TIMEOUT; aiohttp's own timer ends connections on which no whole request comes.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.export.listeners import Listeners

# Who has not sent a whole request by then, or has not asked again, is cut off.
KEEPALIVE_SECONDS: Final = 10.0
# Who has not taken an answer, or a message of a stream, by then is not there any more.
WRITE_SECONDS: Final = 10.0
MOST_CONNECTIONS: Final = 384

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """Lets so many in and no more: the others of the agent need files too.

    When all places are taken, the one goes that was let in first of those that are not being
    answered: a flood of connections shuts nobody out who asks at once and takes the answer.
    """

    def __init__(self) -> None:
        self._answered: set[web.RequestHandler] = set()

    def middleware(self) -> Middleware:
        """Return what has to be the application's first middleware."""

        @web.middleware
        async def attend(request: web.Request, handler: _Handler) -> web.StreamResponse:
            self._answered.add(request.protocol)
            try:
                response = await handler(request)
            finally:
                self._answered.discard(request.protocol)
            await _send(request, response)
            return response

        return attend

    async def open(self, runner: web.AppRunner, listeners: Listeners) -> None:
        """Listen at the metrics address for an application that is set up."""
        await _Site(runner, self, listeners).start()

    def makes_room(self, there: Sequence[web.RequestHandler], places: int) -> bool:
        """End as many of the idle as make room for one more; return whether there is room."""
        surplus = max(0, len(there) + 1 - places)
        idle = [each for each in there if each not in self._answered][:surplus]
        for each in idle:
            if each.transport is not None:
                each.transport.abort()
        return len(idle) == surplus


def connected(runner: web.BaseRunner) -> list[web.RequestHandler]:
    """Return the connections of an application, in the order in which they came."""
    server = runner.server
    assert server is not None
    return [each for each in server.connections if each.transport is not None and not each.transport.is_closing()]


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()


class _Site(web.BaseSite):
    def __init__(self, runner: web.AppRunner, door: Door, listeners: Listeners) -> None:
        super().__init__(runner)
        self._listeners = listeners
        self._door = door

    @property
    def name(self) -> str:
        """What it is, for logs."""
        return "metrics"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        self._server = await self._listeners.serve_public(self._accept)
        for listener in self._server.sockets:
            # Connections inherit it; a closed one would wait for ever for a peer that takes nothing.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(WRITE_SECONDS * 1000))

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        return server() if self._door.makes_room(connected(self._runner), MOST_CONNECTIONS) else _Refusal()


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
