"""The page and its API, and the guard in front of all that listens on TCP.

Sources: Content Security Policy Level 3, Fetch (Origin), HTML (server-sent events).
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from importlib import resources
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.export.door import WRITE_SECONDS
from agent.export.live import Live, TooManyViewers
from agent.reconciler.world import World

# The only files that are served: a path is a key of this table, never a part of a file's name.
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/assets/style.css": ("style.css", "text/css"),
    "/assets/icon.svg": ("icon.svg", "image/svg+xml"),
    "/assets/main.js": ("main.js", "text/javascript"),
    "/assets/store.js": ("store.js", "text/javascript"),
    "/assets/format.js": ("format.js", "text/javascript"),
    "/assets/table.js": ("table.js", "text/javascript"),
    "/assets/layout.js": ("layout.js", "text/javascript"),
    "/assets/topology.js": ("topology.js", "text/javascript"),
    "/assets/detail.js": ("detail.js", "text/javascript"),
    "/assets/chart.js": ("chart.js", "text/javascript"),
}
_SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """The page's routes."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def routes(self) -> list[web.RouteDef]:
        """Return what to add to the application."""
        files = [web.get(path, _serve(*entry)) for path, entry in _FILES.items()]
        return [*files, web.get("/api/live", self._stream), web.get("/api/namespace", self._namespace)]

    async def _namespace(self, request: web.Request) -> web.StreamResponse:
        detail = self._live.detail(request.query.get("id", ""))
        if detail is None:
            return web.json_response({"error": "no such namespace was seen lately"}, status=404)
        return web.json_response(detail)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        messages = self._live.look()
        try:
            first = await anext(messages, None)
            await response.prepare(request)
            message = first
            while message is not None:
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write(message)
                message = await anext(messages, None)
        except TooManyViewers:
            return web.Response(status=503, text="too many viewers\n", headers={"Retry-After": "30"})
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            await messages.aclose()
        return response


def _serve(file: str, content_type: str) -> _Handler:
    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    # Read once: what is served does not change under a running agent, and no request opens a file.
    body = resources.files("agent.export").joinpath("page", file).read_bytes()
    return serve


def guard(world: World) -> Middleware:
    """Return a middleware that refuses namespaces and foreign pages."""

    @web.middleware
    async def guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
        _require_welcome(world, request)
        return await handler(request)

    return guarded


def remote_address(request: web.Request) -> IPv4Address | IPv6Address:
    """Return who asks; IPv4 is IPv4, also where a socket of both families heard it."""
    remote = ip_address((request.remote or "0.0.0.0").partition("%")[0])
    return getattr(remote, "ipv4_mapped", None) or remote


async def secure(_: web.Request, response: web.StreamResponse) -> None:
    """For the signal on_response_prepare: give every answer, streams and errors too, its headers."""
    response.headers.update(_SECURITY)


def _require_welcome(world: World, request: web.Request) -> None:
    remote = remote_address(request)
    if any(
        remote in subnet for network in world.config.networks for subnet in (network.subnet, network.subnet6) if subnet
    ):
        raise _forbidden("not for the namespaces of this host")
    if request.path != "/metrics" or _is_loopback(world.config.metrics_host):
        # A scraper may know us by any name, once it is told to reach us from elsewhere.
        _require_own_name(world, request.headers.get("Host", ""))
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise _forbidden("not for pages from elsewhere")


def _require_own_name(world: World, host: str) -> None:
    """Refuse a name that anybody's DNS could lead here (rebinding); an address cannot be led anywhere."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        name = ""
    listen = world.config.metrics_host
    if name in {"localhost", listen.lower()} or (name and _is_loopback(name)):
        return
    if not _is_loopback(listen) and (_is_address(name) or name == socket.gethostname().lower()):
        return
    raise _forbidden("this name is not ours: use localhost, or the address in metrics.listen")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return text == "localhost" or (_is_address(text) and ip_address(text).is_loopback)


def _forbidden(message: str) -> web.HTTPForbidden:
    return web.HTTPForbidden(text=json.dumps({"error": message}), content_type="application/json")
