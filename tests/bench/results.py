"""What was measured, as values; all times in seconds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

SLOW_CONNECT = 0.050
# Whoever loses a SYN sends it again after a second: RFC 6298, 2.
LOST_CONNECT = 0.9


@dataclass(frozen=True, slots=True)
class Connects:
    """How long the first two TCP connections took that left a namespace; infinite when never answered."""

    gateway: float
    beyond: float

    @property
    def slowest(self) -> float:
        return max(self.gateway, self.beyond)


@dataclass(frozen=True, slots=True)
class Trial:
    """The life of one namespace.

    `gone`: from the order to delete it until its host end is gone, the peer's own command included if it
    has one; `forgotten`: until nothing else of it is left.
    """

    usable: float
    connects: Connects
    gone: float
    forgotten: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender at one level.

    `there` is how many namespaces it really had meanwhile, `on_the_way` the first packets of those
    that were made to get there from the level before.
    """

    contender: str
    level: int
    there: int
    trials: tuple[Trial, ...]
    on_the_way: tuple[Connects, ...]

    @property
    def usable(self) -> list[float]:
        return [trial.usable for trial in self.trials]

    @property
    def connects(self) -> list[Connects]:
        """All first packets at this level, and on the way there."""
        return [*self.on_the_way, *(trial.connects for trial in self.trials)]


Session = tuple[Measured, ...]
"""Measurements of contenders that took turns with each other."""


@dataclass(frozen=True, slots=True)
class FloorTrial:
    """The least work for one namespace: `usable` by the observer, `work` by the program's own clock."""

    usable: float
    work: float


@dataclass(frozen=True, slots=True)
class Level:
    """vethd and the floor, in turns and in one host; no `floor` where it could not be built.

    `resident`: bytes of the agent in memory afterwards.
    """

    vethd: Measured
    floor: tuple[FloorTrial, ...]
    resident: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """An agent with `count` namespaces and nothing to do: its share of one core, resident bytes, scrapes."""

    count: int
    seconds: float
    cpu_share: float
    resident: int
    scrapes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """From the start of the agent's process: all `count` are adopted; one made at that instant is usable."""

    count: int
    adopted: tuple[float, ...]
    first: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    levels: tuple[Level, ...]
    crowd: Crowd | None
    start: Start | None


@dataclass(frozen=True, slots=True)
class Burst:
    """Many at once, from the making of the first.

    `made`: the last was there; `networked`: the last was usable; `gone`: from the first deletion until
    no host end was left; `forgotten`: until nothing else was; `asked`: how long each answer of the agent
    took meanwhile.
    """

    count: int
    made: float
    networked: float
    gone: float
    forgotten: float
    asked: tuple[float, ...]
    mistakes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same done by vethd and by somebody else, in turns: higher is better."""

    what: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of each turn's ratio, as whatever else the machine does hits both of a turn."""
        return median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Refresh:
    """Reading a table of tracked connections: by vethd, and the kernel's dump alone."""

    entries: int
    ours: float
    dump: float


@dataclass(frozen=True, slots=True)
class Results:
    """All of one run; what was left out is None or empty, and `remarks` say why. `failures`: parts that broke off."""

    sessions: tuple[Session, ...]
    growth: Growth
    bursts: tuple[Burst, ...]
    throughput: tuple[Pair, ...]
    connections: tuple[Pair, ...]
    refresh: Refresh | None
    remarks: tuple[str, ...]
    failures: tuple[str, ...]

    def trials(self, contender: str) -> list[Trial]:
        """At all levels together, alone and in turns."""
        return [trial for measured in self.measured(contender) for trial in measured.trials]

    def connects(self, contender: str) -> list[Connects]:
        """The first packets of every namespace."""
        return [each for measured in self.measured(contender) for each in measured.connects]

    def measured(self, contender: str) -> Iterator[Measured]:
        alone = [level.vethd for level in self.growth.levels]
        for session in (alone, *self.sessions):
            yield from (measured for measured in session if measured.contender == contender)


def duel(session: Session, level: int, peer: str, ours: str = "vethd") -> tuple[Measured, Measured] | None:
    """A peer and vethd when they took turns at `level`."""
    at_level = {measured.contender: measured for measured in session if measured.level == level}
    return (at_level[peer], at_level[ours]) if peer in at_level else None


def p99(values: Sequence[float]) -> float:
    """By nearest rank: of fewer than 100 values it is the largest."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * 99 // 100) - 1)]


def ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    return median(peer) / median(ours)
