"""Which names there are, which namespace each leads to, and what became of it.

A name is a file in a watched directory, or a process. A namespace may have several; the first
file that was seen owns its attachment, or the first process where there is no file, and the
others are aliases. A name may lead to another namespace from one moment to the next.

``owner`` and ``is_named`` may be asked from any thread, all else belongs to the loop's.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from agent.core.identity import host_end_name
from agent.model import Attachment, Cookie, Origin

State = Literal["pending", "ready", "left", "failed"]

_HISTORY: Final = 50
_REPAIRS: Final = 8
_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class Incident:
    """One entry of a name's history; ``time`` is seconds since the epoch."""

    time: float
    event: str
    detail: str


@dataclass(slots=True)
class Record:
    """What is known of one name. ``appeared`` is monotonic seconds, ``plumb_seconds`` a duration;
    ``ready_since``, when it was ready for the first time (-inf: it was found so), and ``stirred``, when
    its last event came, are monotonic too. ``inode`` is that of the namespace in nsfs.

    ``attachment`` is what the last look that went well brought about; ``alias_of`` is the
    path that owns it, None when this one does. ``departed`` says that the process is not there
    any more: its path may lead to a stranger's namespace by now.
    """

    origin: Origin
    appeared: float
    cookie: Cookie | None = None
    inode: int = 0
    state: State = "pending"
    network: str | None = None
    attachment: Attachment | None = None
    alias_of: str | None = None
    rule: str = ""
    reason: str = ""
    plumb_seconds: float | None = None
    ready_since: float | None = None
    stirred: float | None = None
    departed: bool = False
    failures: int = 0
    # Both mostly empty, or nearly so: a deque of nothing takes 600 bytes.
    repairs: tuple[float, ...] = ()
    history: list[Incident] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The file that leads to the namespace; bytes that are no UTF-8 are surrogate escapes."""
        return self.origin.path

    @property
    def name(self) -> str:
        """The file's name, or what the process is known by."""
        return self.origin.name

    def tell(self, *incidents: Incident) -> None:
        """Add to the history, which forgets what happened long ago."""
        self.history += incidents
        del self.history[:-_HISTORY]

    def tell_again(self, incident: Incident) -> None:
        """Add to the history; what happened last and happens again takes its own place."""
        if self.history and (self.history[-1].event, self.history[-1].detail) == (incident.event, incident.detail):
            self.history.pop()
        self.tell(incident)

    def note_repair(self, now: float) -> None:
        """Add to the times of its latest repairs, ``now`` in monotonic seconds."""
        self.repairs = (*self.repairs, now)[-_REPAIRS:]

    @property
    def device(self) -> str | None:
        """The host end, None for a name without an attachment."""
        return host_end_name(self.attachment.cookie) if self.attachment else None


class Roster:
    """All names, by path, and the order of names of each namespace."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        # Tuples, so that other threads see the order before or after a change, never between.
        self._names: dict[Cookie, tuple[str, ...]] = {}
        self._named: Counter[int] = Counter()
        self._paths: dict[str, list[str]] = {}
        self._last: dict[Cookie, Record] = {}
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

    def enter(self, path: str, now: float, origin: Origin | None = None) -> Record:
        """Return the record of a path, made now when there is none; it is a file's without ``origin``."""
        record = self._records.get(path)
        if record is None:
            record = self._records[path] = Record(origin or named(path), now)
            self._paths.setdefault(record.name, []).append(path)
            former = self._former.pop(path, None)
            if former is not None:
                record.tell(*former.history)
        elif origin is not None:
            record.departed = False
            if origin != record.origin:
                self._unlist(record)
                record.origin = origin
                self._paths.setdefault(record.name, []).append(path)
        return record

    def find(self, name: str) -> Record | None:
        """Return the record of a file name or a whole path; of several, the first that was seen."""
        if name in self._records:
            return self._records[name]
        paths = self._paths.get(name)
        return self._records[paths[0]] if paths else None

    def last_record(self, cookie: Cookie) -> Record | None:
        """Return the record of the name that a namespace lost last, while that is remembered."""
        return self._last.get(cookie)

    def told_of(self, record: Record | None) -> list[Record]:
        """Return the records that tell a name's history: this one, and the one of the name's next namespace."""
        if record is None:
            return []
        present = self._records.get(record.path)
        return [record] if present is None or present is record else [record, present]

    def forget(self, cookie: Cookie) -> None:
        """Forget a namespace whose attachment is gone."""
        self._last.pop(cookie, None)

    def find_former(self, name: str) -> Record | None:
        """Return the record of a name that is gone."""
        candidates = (record for record in reversed(self._former.values()) if name in (record.path, record.name))
        return next(candidates, None)

    def owner(self, cookie: Cookie) -> Record | None:
        """Return the record that owns a namespace's attachment."""
        names = self._names.get(cookie)
        return self._records.get(names[0]) if names else None

    def is_named(self, inode: int) -> bool:
        """Tell whether a file leads to the namespace of this inode."""
        return self._named[inode] > 0

    def aliases(self, record: Record) -> list[str]:
        """Return the other paths of a record's namespace."""
        names = self._names.get(record.cookie, ()) if record.cookie is not None else ()
        return [path for path in names if path != record.path]

    def lead(self, path: str, cookie: Cookie, now: float, inode: int = 0) -> Cookie | None:
        """Note that a path leads to a namespace; return the one that lost its last name by that."""
        record = self.enter(path, now)
        if record.cookie == cookie:
            return None
        orphan = self._unname(record)
        if record.cookie is not None:
            self._records[path] = fresh = Record(record.origin, record.stirred or now)
            fresh.tell(*record.history)
            record = fresh
        record.cookie, record.inode = cookie, inode
        names = self._names.get(cookie, ())
        place = len(names)
        if record.origin.source == "named":
            self._named[inode] += 1
            place = next((each for each, other in enumerate(names) if self._is_process(other)), place)
        self._names[cookie] = (*names[:place], path, *names[place:])
        return orphan

    def part(self, path: str, now: float) -> Cookie | None:
        """Note that a path is there but leads nowhere; return the namespace that lost its last name."""
        record = self._records.get(path)
        if record is None or record.cookie is None:
            return None
        orphan = self._unname(record)
        self._records[path] = fresh = Record(record.origin, now)
        fresh.tell(*record.history)
        return orphan

    def leave(self, path: str) -> Cookie | None:
        """Note that a path is gone; return the namespace that lost its last name by that."""
        record = self._records.pop(path, None)
        if record is None:
            return None
        self._unlist(record)
        self._former[path] = record
        if len(self._former) > _REMEMBERED:
            self._former.popitem(last=False)
        return self._unname(record)

    def _unname(self, record: Record) -> Cookie | None:
        if record.cookie is None:
            return None
        if record.origin.source == "named":
            self._named[record.inode] -= 1
            if self._named[record.inode] <= 0:
                del self._named[record.inode]
        names = tuple(path for path in self._names[record.cookie] if path != record.path)
        if names:
            self._names[record.cookie] = names
            return None
        del self._names[record.cookie]
        self._last[record.cookie] = record
        return record.cookie

    def _unlist(self, record: Record) -> None:
        paths = self._paths[record.name]
        paths.remove(record.path)
        if not paths:
            del self._paths[record.name]

    def _is_process(self, path: str) -> bool:
        return self._records[path].origin.source == "process"


def named(path: str) -> Origin:
    """Return the origin of a file in a watched directory."""
    return Origin("named", path.rpartition("/")[2], path)
