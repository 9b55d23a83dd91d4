"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of namespaces, but for what says seconds, bytes, trials or runs.

    `levels` are how many namespaces are there already: for vethd alone, and `peer_levels` for every
    contender in turns. Trials are counted after `warm_up` others. A contender that has not reached a
    level after `fill_seconds` is measured where it is. `extra` more are made at each of vethd's
    levels for their first packets. 0 leaves a part out: never more than 6,000 are there at once.
    """

    levels: tuple[int, ...]
    peer_levels: tuple[int, ...]
    warm_up: int
    trials: int
    peer_trials: int
    fill_seconds: float
    extra: int
    burst: int
    bursts: int
    rest_seconds: float
    scrapes: int
    adopted: int
    starts: int
    stream_runs: int
    stream_bytes: int
    connection_runs: int
    connection_count: int
    connection_level: int
    watched: int
    watch_trials: int


FULL = Sizes(
    levels=(100, 1000, 5000),
    peer_levels=(10, 900),
    warm_up=5,
    trials=100,
    peer_trials=50,
    fill_seconds=120,
    extra=300,
    burst=1000,
    bursts=3,
    rest_seconds=30,
    scrapes=50,
    adopted=2000,
    starts=3,
    stream_runs=40,
    stream_bytes=2**29,
    connection_runs=15,
    connection_count=4000,
    connection_level=1000,
    watched=1000,
    watch_trials=20,
)
QUICK = Sizes(
    levels=(100, 1000),
    peer_levels=(10,),
    warm_up=3,
    trials=20,
    peer_trials=12,
    fill_seconds=20,
    extra=30,
    burst=200,
    bursts=1,
    rest_seconds=0,
    scrapes=0,
    adopted=0,
    starts=0,
    stream_runs=4,
    stream_bytes=2**28,
    connection_runs=5,
    connection_count=1000,
    connection_level=200,
    watched=50,
    watch_trials=4,
)
