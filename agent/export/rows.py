"""The names of the live page: what each row tells, its rates, and its last five minutes."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import add, attrgetter
from typing import Any, Final

from agent.core.identity import printable
from agent.core.roster import Record
from agent.export import views
from agent.model import Cookie, Traffic
from agent.reconciler.world import World

HISTORY: Final = 300
_SPARK: Final = 60
_REMEMBERED: Final = 1000
# Whatever the page shows of a record comes of these.
_SEEN: Final = attrgetter("origin", "state", "cookie", "network", "reason", "rule", "attachment", "alias_of")


def _ring() -> "array[int]":
    return array("Q", bytes(8 * HISTORY))


@dataclass(slots=True)
class Row:
    """One name. ``number`` is short and of this process, ``key`` the same in every run of the agent.

    ``carried`` is what its namespace ``cookie`` had carried by the last sample, None for one without
    traffic of its own. ``receive`` and ``transmit`` are bytes a second, as the namespace sees them; the rings hold
    those of the last ``HISTORY`` samples, ``since`` is the first sample that counts, ``active`` the
    last in which anything moved. ``text`` is what the page shows of it as JSON, empty until it is asked for.
    """

    number: int
    key: str
    path: str
    since: int
    active: int = -HISTORY
    text: str = ""
    seen: tuple[object, ...] = ()
    cookie: Cookie | None = None
    carried: Traffic | None = None
    receive: int = 0
    transmit: int = 0
    connections: int | None = None
    received: "array[int]" = field(default_factory=_ring)
    transmitted: "array[int]" = field(default_factory=_ring)


class Rows:
    """All rows as of the last sample, and what that one changed."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._paths: dict[str, str] = {}
        self._next = 0
        self._sample = -1
        self.changed: list[Row] = []
        self.moved: list[Row] = []
        self.gone: list[int] = []

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def find(self, key: str) -> tuple[str, Row | None] | None:
        """Return the path that a key stands for, gone ones included, and its row while there is one."""
        path = self._paths.get(key)
        return None if path is None else (path, self._rows.get(path))

    def update(self, world: World, seconds: float) -> None:
        """Take a sample: ``seconds`` have passed since the one before."""
        self._sample += 1
        slot = self._sample % HISTORY
        self.changed, self.moved = [], []
        self.gone = self._drop_all_but(world)
        for record in world.roster:
            row = self._rows.get(record.path) or self._enter(record.path)
            seen = _SEEN(record)
            if seen != row.seen:
                row.text = ""
                self.changed.append(row)
            # What is equal is the same object the next time, which is faster to compare.
            row.seen = seen
            receive, transmit = _rates(world, record, row, seconds)
            count = world.connections.total(record.cookie) if row.cookie is not None and record.cookie else None
            if (receive, transmit, count) != (row.receive, row.transmit, row.connections):
                row.receive, row.transmit, row.connections = receive, transmit, count
                self.moved.append(row)
            row.received[slot] = receive
            row.transmitted[slot] = transmit
            if receive or transmit:
                row.active = self._sample

    def text(self, world: World, row: Row) -> str:
        """Return what the page shows of a row, as JSON."""
        if not row.text:
            row.text = json.dumps(_told(world, row), separators=(",", ":"))
        return row.text

    def history(self, row: Row, samples: int = HISTORY) -> tuple[list[int], list[int]]:
        """Return a row's rates, oldest first, one for each of at most ``samples`` samples."""
        first = max(row.since, self._sample - samples + 1)
        return _unrolled(row.received, first, self._sample), _unrolled(row.transmitted, first, self._sample)

    def spark(self, row: Row) -> list[int]:
        """Return both directions' sum over the last minute, empty for one that was idle."""
        if row.active <= self._sample - _SPARK:
            return []
        return [*map(add, *self.history(row, _SPARK))]

    def _enter(self, path: str) -> Row:
        key = key_of(path)
        self._next += 1
        # A name that appears gets its first rate one sample later.
        row = self._rows[path] = Row(self._next, key, path, self._sample)
        self._paths.pop(key, None)
        self._paths[key] = path
        return row

    def _drop_all_but(self, world: World) -> list[int]:
        gone = [row for path, row in self._rows.items() if world.roster.get(path) is None]
        for row in gone:
            del self._rows[row.path]
        surplus = max(0, len(self._paths) - len(self._rows) - _REMEMBERED)
        for key in list(islice(self._paths, surplus)):
            if self._paths[key] not in self._rows:
                del self._paths[key]
        return [row.number for row in gone]


def key_of(path: str) -> str:
    """Return what stands for a path in a URL: a path may hold anything, and no URL should."""
    return hashlib.blake2s(os.fsencode(path), digest_size=8).hexdigest()


def _told(world: World, row: Row) -> dict[str, Any]:
    """All text such that every character prints."""
    record = world.roster.get(row.path)
    if record is None:
        return {"id": row.number, "key": row.key, "name": row.path, "state": "pending"}
    view = views.namespace(world, record)
    return {
        "id": row.number,
        "key": row.key,
        "name": printable(record.name),
        "state": record.state,
        "network": record.network,
        "device": record.device,
        "address": view["address"],
        "address6": view["address6"],
        "reason": shown(record.reason or record.rule),
        "alias": record.alias_of is not None,
    }


def shown(text: str) -> str:
    """Return text in which what does not print is escaped; a backslash stays as it is."""
    return text if text.isprintable() else "".join(c if c.isprintable() else printable(c) for c in text)


def _unrolled(ring: "array[int]", first: int, last: int) -> list[int]:
    """Return the samples from the first to the last, which are at most as many as the ring holds."""
    begin, end = first % HISTORY, last % HISTORY + 1
    return (ring[begin:end] if begin < end else ring[begin:] + ring[:end]).tolist()


def _rates(world: World, record: Record, row: Row, seconds: float) -> tuple[int, int]:
    carried = world.ledger.carried(record.cookie) if record.cookie is not None and record.alias_of is None else None
    before = row.carried if row.cookie == record.cookie and seconds else None
    row.cookie, row.carried = (None, None) if carried is None else (record.cookie, carried)
    # The ledger returns the same object again when nothing has moved.
    if carried is None or before is None or carried is before:
        return 0, 0
    return _rate(carried.rx_bytes - before.rx_bytes, seconds), _rate(carried.tx_bytes - before.tx_bytes, seconds)


def _rate(count: int, seconds: float) -> int:
    return max(0, round(count / seconds))
