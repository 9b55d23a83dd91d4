"""The control socket and the metrics endpoint, both HTTP by aiohttp.

Names travel in JSON bodies, where every byte of them survives.
"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final

from aiohttp import web

from agent.core.roster import Record
from agent.errors import KernelError
from agent.export import views
from agent.export.door import KEEPALIVE_SECONDS, Door
from agent.export.gate import Gate, told
from agent.export.listeners import Listeners
from agent.export.live import Live
from agent.export.metrics import Metrics
from agent.export.requestlog import of_requests
from agent.export.sampler import Sampler
from agent.export.scraper import Scraper
from agent.export.web import Page, guard, remote_address, secure
from agent.reconciler.bulletin import Bulletin, Notice
from agent.reconciler.world import World

_BODY_BYTES: Final = 64 << 10
_BODY_SECONDS: Final = 10.0
_LONGEST_WAIT_SECONDS: Final = 24 * 3600.0
# Most failures pass by themselves: who waits is told of one that was tried again in vain.
_FAILURES_TO_TELL: Final = 3
_SHUTDOWN_SECONDS: Final = 0.5
_Request = web.Request
_Response = web.StreamResponse


class Server:
    """Answers questions about the world; changes nothing."""

    def __init__(
        self, world: World, bulletin: Bulletin, metrics: Metrics, sampler: Sampler, is_ready: Callable[[], bool]
    ) -> None:
        self._world = world
        self._bulletin = bulletin
        self._sampler = sampler
        self._scraper = Scraper(sampler, metrics)
        self._is_ready = is_ready
        self._started = time.monotonic()
        self._runners: list[web.AppRunner] = []
        self.live = Live(world, bulletin, sampler, lambda: views.status(world, self._started, is_ready()))

    async def start(self, listeners: Listeners) -> None:
        """Begin to answer on the control socket and at the metrics address."""
        gate = Gate(listeners.gid)
        control = web.Application(client_max_size=_BODY_BYTES, middlewares=gate.middlewares())
        control.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/namespaces", self._namespaces),
                web.get("/v1/traffic", self._traffic),
                web.post("/v1/namespace", self._namespace),
                web.post("/v1/wait", self._wait),
                web.post("/v1/explain", self._explain),
                web.get("/v1/watch", self._watch),
                web.get("/healthz", self._healthz),
            ]
        )
        await self._listen(control, lambda runner: gate.open(runner, listeners.control))
        door = Door()
        public = web.Application(client_max_size=_BODY_BYTES, middlewares=[door.middleware(), guard(self._world)])
        public.on_response_prepare.append(secure)
        public.add_routes([web.get("/metrics", self._scrape), web.get("/healthz", self._healthz)])
        public.add_routes(Page(self.live).routes())
        await self._listen(public, lambda runner: door.open(runner, listeners))

    async def close(self) -> None:
        """Stop listening, and end what is still being answered."""
        self.live.close()
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, app: web.Application, make: Callable[[web.AppRunner], Any]) -> None:
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=of_requests(),
            shutdown_timeout=_SHUTDOWN_SECONDS,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_SECONDS,
            # A body that nobody wanted is not read to its end, which may never come.
            lingering_time=0,
        )
        await runner.setup()
        self._runners.append(runner)
        await make(runner)

    async def _status(self, _: _Request) -> _Response:
        return _json(views.status(self._world, self._started, self._is_ready()))

    async def _namespaces(self, _: _Request) -> _Response:
        return _json({"namespaces": views.namespaces(self._world)})

    async def _traffic(self, _: _Request) -> _Response:
        await self._sampler.sample()
        return _json(views.traffic(self._world))

    async def _namespace(self, request: _Request) -> _Response:
        record = self._world.roster.find(_name(await _body(request)))
        if record is None:
            return _json({"error": "no such namespace"}, 404)
        return _json(views.namespace(self._world, record))

    async def _explain(self, request: _Request) -> _Response:
        explanation = views.explanation(self._world, _name(await _body(request)))
        if explanation is None:
            return _json({"error": "no such namespace was ever seen"}, 404)
        return _json(explanation)

    async def _wait(self, request: _Request) -> _Response:
        body = await _body(request)
        name = _name(body)
        timeout = body.get("timeout", 30)
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, int | float)
            or not 0 <= timeout <= _LONGEST_WAIT_SECONDS
        ):
            raise told(web.HTTPBadRequest, "timeout must be seconds from 0 to 86400")
        deadline = asyncio.get_running_loop().time() + timeout
        with self._bulletin.subscribe(PurePath(name).name) as notices:
            while True:
                record = self._world.roster.find(name)
                if record is not None and _is_settled(record):
                    return self._outcome(record.state, record)
                try:
                    async with asyncio.timeout_at(deadline):
                        await notices.get()
                except TimeoutError:
                    return self._outcome("timeout", self._world.roster.find(name))

    def _outcome(self, outcome: str, record: Record | None) -> _Response:
        reason = (record.reason or record.rule) if record else "no such namespace"
        told = views.namespace(self._world, record) if record else None
        return _json({"outcome": outcome, "namespace": told, "reason": reason})

    async def _watch(self, request: _Request) -> _Response:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        with self._bulletin.subscribe() as notices:
            await response.prepare(request)
            for record in self._world.roster:
                told = views.namespace(self._world, record)
                await response.write(_line({"time": time.time(), "event": record.state, "initial": True, **told}))
            while True:
                await response.write(_line(await notices.get()))

    async def _healthz(self, _: _Request) -> _Response:
        if not self._is_ready():
            return _json({"status": "starting", "problems": list(views.problems(self._world))}, 503)
        if self._world.host_problem:
            return _json({"status": "failing", "problems": list(views.problems(self._world))}, 503)
        return _json({"status": "ok"})

    async def _scrape(self, request: _Request) -> _Response:
        # Over loopback, sending a megabyte takes a tenth of the time of compressing it.
        near = remote_address(request).is_loopback
        encodings = "" if near else request.headers.get("Accept-Encoding", "")
        try:
            body, headers = await self._scraper.scrape(request.headers.get("Accept", ""), encodings)
        except KernelError as error:
            return web.Response(status=503, text=f"{error}\n")
        return web.Response(body=body, headers=headers)


async def _body(request: _Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await request.json()
    except TimeoutError:
        raise told(web.HTTPRequestTimeout, "the body did not come") from None
    except (ValueError, RecursionError):
        # Of ValueError, too: no text of its charset, and a number of thousands of digits.
        raise told(web.HTTPBadRequest, "the body must be JSON") from None
    except web.RequestPayloadError:
        raise told(web.HTTPBadRequest, "the body is not what its header says") from None
    if not isinstance(body, dict):
        raise told(web.HTTPBadRequest, "the body must be a JSON object")
    return body


def _is_settled(record: Record) -> bool:
    """Tell whether it makes no sense to wait any longer."""
    passing = record.state == "failed" and 0 < record.failures < _FAILURES_TO_TELL
    return record.state != "pending" and not passing


def _name(body: dict[str, Any]) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise told(web.HTTPBadRequest, "name must be a string")
    return name


def _json(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)


def _line(notice: Notice) -> bytes:
    return json.dumps(notice).encode() + b"\n"
