"""Which names there are, which namespace each leads to, and what became of it.

A namespace may have several names; the first that was seen owns its attachment, the
others are aliases. A name may lead to another namespace from one moment to the next.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from agent.core.identity import host_end_name
from agent.model import Attachment, Cookie

State = Literal["pending", "ready", "left", "failed"]

_HISTORY: Final = 50
_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class Incident:
    """One entry of a name's history; ``time`` is seconds since the epoch."""

    time: float
    event: str
    detail: str


@dataclass(slots=True)
class Record:
    """What is known of one name. ``appeared`` is monotonic seconds, ``plumb_seconds`` a duration.

    ``attachment`` is what the last look that went well brought about; ``alias_of`` is the
    path that owns it, None when this one does.
    """

    path: str
    appeared: float
    cookie: Cookie | None = None
    state: State = "pending"
    network: str | None = None
    attachment: Attachment | None = None
    alias_of: str | None = None
    rule: str = ""
    reason: str = ""
    plumb_seconds: float | None = None
    failures: int = 0
    repairs: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    history: deque[Incident] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    @property
    def name(self) -> str:
        """The file's name; bytes that are no UTF-8 are surrogate escapes."""
        return self.path.rpartition("/")[2]

    @property
    def device(self) -> str | None:
        """The host end, None for a name without an attachment."""
        return host_end_name(self.attachment.cookie) if self.attachment else None


class Roster:
    """All names, by path, and the order of names of each namespace."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._names: dict[Cookie, list[str]] = {}
        self._paths: dict[str, list[str]] = {}
        self._last_path: dict[Cookie, str] = {}
        self._former: OrderedDict[str, Record] = OrderedDict()

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def paths(self) -> set[str]:
        """Return all present paths."""
        return set(self._records)

    def get(self, path: str) -> Record | None:
        """Return the record of a path."""
        return self._records.get(path)

    def enter(self, path: str, now: float) -> Record:
        """Return the record of a path, made now when there is none."""
        record = self._records.get(path)
        if record is None:
            record = self._records[path] = Record(path, now)
            self._paths.setdefault(record.name, []).append(path)
            former = self._former.pop(path, None)
            if former is not None:
                record.history.extend(former.history)
        return record

    def find(self, name: str) -> Record | None:
        """Return the record of a file name or a whole path; of several, the first that was seen."""
        if name in self._records:
            return self._records[name]
        paths = self._paths.get(name)
        return self._records[paths[0]] if paths else None

    def last_record(self, cookie: Cookie) -> Record | None:
        """Return the record of the name that a namespace lost last, while that is remembered."""
        path = self._last_path.get(cookie)
        return None if path is None else self._records.get(path) or self._former.get(path)

    def forget(self, cookie: Cookie) -> None:
        """Forget a namespace whose attachment is gone."""
        self._last_path.pop(cookie, None)

    def find_former(self, name: str) -> Record | None:
        """Return the record of a name that is gone."""
        candidates = (record for record in reversed(self._former.values()) if name in (record.path, record.name))
        return next(candidates, None)

    def owner(self, cookie: Cookie) -> Record | None:
        """Return the record that owns a namespace's attachment."""
        names = self._names.get(cookie)
        return self._records[names[0]] if names else None

    def aliases(self, record: Record) -> list[str]:
        """Return the other paths of a record's namespace."""
        names = self._names.get(record.cookie, []) if record.cookie is not None else []
        return [path for path in names if path != record.path]

    def lead(self, path: str, cookie: Cookie, now: float) -> Cookie | None:
        """Note that a path leads to a namespace; return the one that lost its last name by that."""
        record = self.enter(path, now)
        if record.cookie == cookie:
            return None
        orphan = self._unname(record)
        if record.cookie is not None:
            self._records[path] = fresh = Record(path, now)
            fresh.history.extend(record.history)
            record = fresh
        record.cookie = cookie
        self._names.setdefault(cookie, []).append(path)
        return orphan

    def part(self, path: str, now: float) -> Cookie | None:
        """Note that a path is there but leads nowhere; return the namespace that lost its last name."""
        record = self._records.get(path)
        if record is None or record.cookie is None:
            return None
        orphan = self._unname(record)
        self._records[path] = fresh = Record(path, now)
        fresh.history.extend(record.history)
        return orphan

    def leave(self, path: str) -> Cookie | None:
        """Note that a path is gone; return the namespace that lost its last name by that."""
        record = self._records.pop(path, None)
        if record is None:
            return None
        paths = self._paths[record.name]
        paths.remove(path)
        if not paths:
            del self._paths[record.name]
        self._former[path] = record
        if len(self._former) > _REMEMBERED:
            self._former.popitem(last=False)
        return self._unname(record)

    def _unname(self, record: Record) -> Cookie | None:
        if record.cookie is None:
            return None
        names = self._names[record.cookie]
        names.remove(record.path)
        if names:
            return None
        del self._names[record.cookie]
        self._last_path[record.cookie] = record.path
        return record.cookie
