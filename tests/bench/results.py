"""What was measured, as values; all times in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

SLOW_CONNECT = 0.050


@dataclass(frozen=True, slots=True)
class Connects:
    """How long the first two TCP connections took that left a namespace; infinite when never answered."""

    gateway: float
    beyond: float

    @property
    def slow(self) -> bool:
        return max(self.gateway, self.beyond) > SLOW_CONNECT


@dataclass(frozen=True, slots=True)
class Trial:
    """The life of one namespace.

    `removal`: the peer's own command, if it has one, and from `ip netns del` returning until the
    host end is gone.
    """

    usable: float
    connects: Connects
    removal: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender at one level; `there` is how many namespaces it really had meanwhile."""

    contender: str
    level: int
    there: int
    trials: tuple[Trial, ...]

    @property
    def usable(self) -> list[float]:
        return [trial.usable for trial in self.trials]


@dataclass(frozen=True, slots=True)
class Burst:
    """`made`: until the last namespace was there; `networked`: until the last was usable. From the first's making."""

    count: int
    made: float
    networked: float
    mistakes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """An agent with nothing to do: its share of one core, and the memory it holds in bytes."""

    count: int
    seconds: float
    cpu_share: float
    resident: int
    restart: float


Session = tuple[Measured, ...]
"""Measurements of contenders that took turns with each other."""


@dataclass(frozen=True, slots=True)
class Alone:
    """What is measured of vethd only. `removed` host ends were gone `removal` after the first deletion began."""

    levels: Session
    first_packets: tuple[Connects, ...]
    burst: Burst
    removed: int
    removal: float
    rest: Rest


@dataclass(frozen=True, slots=True)
class Results:
    sessions: tuple[Session, ...]
    alone: Alone
    remarks: tuple[str, ...]

    def trials(self, contender: str) -> list[Trial]:
        """At all levels together, alone and in turns."""
        return [
            trial
            for session in (self.alone.levels, *self.sessions)
            for measured in session
            if measured.contender == contender
            for trial in measured.trials
        ]

    def connects(self, contender: str) -> list[Connects]:
        """The first packets of every namespace that was measured."""
        own = [trial.connects for trial in self.trials(contender)]
        return own + list(self.alone.first_packets) if contender == self.alone.levels[0].contender else own


def p99(values: Sequence[float]) -> float:
    """By nearest rank: of fewer than 100 values it is the largest."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * 99 // 100) - 1)]


def ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    return median(peer) / median(ours)
