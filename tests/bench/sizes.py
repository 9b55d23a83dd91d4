"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of namespaces, but for what says seconds.

    `levels` are how many namespaces are there already: for vethd alone, and `peer_levels` for every
    contender in turns. `trials` are counted after `warm_up` others. A contender that has not reached a
    level after `fill_seconds` is measured where it is.
    """

    levels: tuple[int, ...]
    peer_levels: tuple[int, ...]
    warm_up: int
    trials: int
    fill_seconds: float
    first_packets: int
    burst: int
    resting: int
    rest_seconds: float


FULL = Sizes(
    levels=(10, 100, 900),
    peer_levels=(10, 900),
    warm_up=5,
    trials=60,
    fill_seconds=120,
    first_packets=1000,
    burst=1000,
    resting=500,
    rest_seconds=20,
)
QUICK = Sizes(
    levels=(10, 900),
    peer_levels=(10,),
    warm_up=3,
    trials=20,
    fill_seconds=20,
    first_packets=500,
    burst=1000,
    resting=500,
    rest_seconds=10,
)
