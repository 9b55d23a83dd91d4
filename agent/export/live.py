"""What the page shows, as it happens: one sampler for all viewers, which runs while there is one.

A viewer that reads more slowly than samples come is not waited for, and nothing queues up for
it: it misses samples, and gets the whole picture with the next that it has time for.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog

from agent.core.identity import printable
from agent.errors import KernelError
from agent.export import rows, views
from agent.export.detail import detail
from agent.export.sampler import Sampler
from agent.model import Traffic
from agent.reconciler.bulletin import Bulletin, Notice
from agent.reconciler.world import World

MOST_VIEWERS: Final = 64
_INTERVAL_SECONDS: Final = 1.0
# After so long without a viewer, what was seen before has a gap that a chart would hide.
_STALE_SECONDS: Final = 5.0
_MOST_EVENTS: Final = 40
# Rows that are put in words before others of the loop may go on: some 2 ms.
_SLICE: Final = 100
_EVENTS: Final = frozenset({"networked", "adopted", "removed", "repaired", "failed", "left", "host-repaired"})

_log = structlog.get_logger()


class TooManyViewers(Exception):
    """As many as there may be are looking already."""


class _Viewer:
    """One who looks: at most one message waits for it. ``behind`` asks for the whole picture."""

    def __init__(self) -> None:
        self._waiting: bytes | None = None
        self._news = asyncio.Event()
        self._ended = False
        self.behind = True

    @property
    def is_free(self) -> bool:
        return self._waiting is None

    def hand(self, message: bytes) -> None:
        self._waiting = message
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def next(self) -> bytes | None:
        """The next message, None when there will be no more."""
        await self._news.wait()
        self._news.clear()
        message, self._waiting = self._waiting, None
        return None if self._ended else message


class Live:
    """Samples the world once a second while somebody looks, and hands what changed to everyone."""

    def __init__(self, world: World, bulletin: Bulletin, sampler: Sampler, status: Callable[[], views.View]) -> None:
        self._world = world
        self._counters = sampler
        self._bulletin = bulletin
        self._status = status
        self._viewers: set[_Viewer] = set()
        self._came = asyncio.Event()
        self._sampler: asyncio.Task[None] | None = None
        self._rows = rows.Rows()
        self._sampled: float | None = None
        self._host: views.View | None = None
        self._devices: dict[int, tuple[int, int]] = {}

    async def look(self) -> AsyncGenerator[bytes, None]:
        """Yield messages of an event stream for as long as they are asked for. Raises TooManyViewers."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise TooManyViewers
        viewer = _Viewer()
        self._viewers.add(viewer)
        try:
            if self._sampler is None:
                self._host = None
                self._sampler = asyncio.create_task(self._sample_on_and_on(), name="live")
            else:
                self._came.set()
            while (message := await viewer.next()) is not None:
                yield message
        finally:
            self._viewers.discard(viewer)
            if not self._viewers and self._sampler is not None:
                self._sampler.cancel()
                self._sampler = None

    def close(self) -> None:
        """Send all viewers away."""
        for viewer in self._viewers:
            viewer.end()

    def detail(self, key: str) -> views.View | None:
        """All about one name, by its row's key: None for one that was not seen lately."""
        found = self._rows.find(key) or self._unsampled(key)
        if found is None:
            return None
        path, row = found
        receive, transmit = self._rows.history(row) if row else ([], [])
        about = detail(self._world, path)
        history = {"interval": _INTERVAL_SECONDS, "receive": receive, "transmit": transmit}
        return None if about is None else {"key": key, **about, "history": history}

    def _unsampled(self, key: str) -> tuple[str, None] | None:
        """For one that asks while nobody looks."""
        paths = (record.path for record in self._world.roster if rows.key_of(record.path) == key)
        return next(((path, None) for path in paths), None)

    async def _sample_on_and_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        if self._sampled is None or due - self._sampled > _STALE_SECONDS:
            self._rows, self._sampled, self._devices = rows.Rows(), None, {}
        try:
            with self._bulletin.subscribe() as notices:
                while True:
                    await self._sample(notices)
                    due = max(due + _INTERVAL_SECONDS, loop.time())
                    await self._welcome_until(due)
        finally:
            # Not sent away by the last viewer, so a mistake: browsers come again by themselves.
            if self._sampler is asyncio.current_task():
                self._sampler = None
                self.close()

    async def _welcome_until(self, due: float) -> None:
        """Show those who come what the last sample saw."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                while True:
                    self._came.clear()
                    await self._hand_out_whole([])
                    await self._came.wait()

    async def _sample(self, notices: "asyncio.Queue[Notice]") -> None:
        try:
            traffic = await self._counters.sample()
        except KernelError as error:
            _log.warning("counters not read", reason=str(error))
            return
        now = asyncio.get_running_loop().time()
        seconds = 0.0 if self._sampled is None else now - self._sampled
        self._sampled = now
        self._rows.update(self._world, seconds)
        self._host = self._told_host(traffic, seconds)
        for some in _slices(self._rows.changed):
            self._texts(some)
            await asyncio.sleep(0)
        told = [_event(notices.get_nowait()) for _ in range(notices.qsize())]
        events = [event for event in told if event["event"] in _EVENTS][-_MOST_EVENTS:]
        self._hand_out_news(events)
        await self._hand_out_whole(events)

    def _hand_out_news(self, events: list[views.View]) -> None:
        """Give those who are up to date what the last sample changed; who is not free is so no longer."""
        ready = [viewer for viewer in self._viewers if viewer.is_free and not viewer.behind]
        for viewer in self._viewers.difference(ready):
            viewer.behind = True
        if ready:
            news = _message(
                "news",
                rows=f"[{','.join(self._texts(self._rows.changed))}]",
                gone=_json(self._rows.gone),
                rates=_json(_rates(self._rows.moved)),
                host=_json(self._host),
                events=_json(events),
            )
            for viewer in ready:
                viewer.hand(news)

    async def _hand_out_whole(self, events: list[views.View]) -> None:
        """Give all others the whole picture. In slices: with a thousand busy namespaces it takes some 20 ms."""
        behind = [viewer for viewer in self._viewers if viewer.is_free and viewer.behind]
        if not behind or self._host is None:
            return
        texts: list[str] = []
        rates: list[str] = []
        sparks: list[str] = []
        for some in _slices([*self._rows]):
            texts += self._texts(some)
            rates.append(_json(_rates(row for row in some if row.receive or row.transmit or row.connections))[1:-1])
            sparks += [f'"{row.number}":{_json(spark)}' for row in some if (spark := self._rows.spark(row))]
            await asyncio.sleep(0)
        whole = _message(
            "whole",
            rows=f"[{','.join(texts)}]",
            rates=f"[{','.join(filter(None, rates))}]",
            sparks=f"{{{','.join(sparks)}}}",
            host=_json(self._host),
            events=_json(events),
        )
        for viewer in behind:
            viewer.behind = False
            viewer.hand(whole)

    def _texts(self, some: Iterable[rows.Row]) -> list[str]:
        return [self._rows.text(self._world, row) for row in some]

    def _told_host(self, traffic: Mapping[int, Traffic], seconds: float) -> views.View:
        """The agent and the host's own devices; rates are those of the devices, as the host sees them."""
        status = self._status()
        world = self._world
        uplink = world.uplink
        if uplink is not None:
            status["uplink"].update(self._device_rates(uplink.index, traffic, seconds))
        for network in status["networks"]:
            bridge = world.bridges.get(network["name"])
            network.update(self._device_rates(bridge.index if bridge else 0, traffic, seconds))
        status["problems"] = [rows.shown(problem) for problem in status["problems"]]
        return {"time": round(time.time(), 3), **status}

    def _device_rates(self, index: int, traffic: Mapping[int, Traffic], seconds: float) -> dict[str, int]:
        counters = traffic.get(index, Traffic())
        now = (counters.rx_bytes, counters.tx_bytes)
        before = self._devices.get(index, now) if seconds else now
        self._devices[index] = now
        receive, transmit = (max(0, round((b - a) / (seconds or 1))) for a, b in zip(before, now, strict=True))
        return {"receive": receive, "transmit": transmit}


def _rates(some: Any) -> list[int | None]:
    """Flat, four numbers a row: one object for each would be most of the message."""
    return [value for row in some for value in (row.number, row.receive, row.transmit, row.connections)]


def _event(notice: Notice) -> views.View:
    event: views.View = {"time": round(notice["time"], 3), "event": notice["event"]}
    if isinstance(name := notice.get("name"), str):
        event["name"] = printable(name)
    if "seconds" in notice:
        event["ms"] = round(notice["seconds"] * 1000, 2)
    detail = notice.get("reason") or ", ".join(map(str, notice.get("kinds", ())))
    if detail:
        event["detail"] = rows.shown(str(detail))
    return event


def _message(event: str, **data: str) -> bytes:
    """Return a message of an event stream; ``data`` is JSON already."""
    told = ",".join(f'"{key}":{value}' for key, value in data.items())
    return f"event: {event}\ndata: {{{told}}}\n\n".encode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _slices(some: Sequence[rows.Row]) -> Iterator[Sequence[rows.Row]]:
    return (some[start : start + _SLICE] for start in range(0, len(some), _SLICE))
