"""Many at once: how fast they are networked and taken down, whether the agent answers meanwhile, and mistakes."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from tests.bench import asking
from tests.bench.contenders import Vethd
from tests.bench.eyes import Eyes
from tests.bench.ground import Ground
from tests.bench.quiet import ALL_GONE_SECONDS, await_quiet
from tests.bench.results import Burst
from tests.bench.side_by_side import Say
from tests.bench.sizes import Sizes
from tests.harness import netns, observe
from tests.harness.running import SOCKET


def measure(sizes: Sizes, say: Say) -> tuple[Burst, ...]:
    with Ground(Vethd()) as ground:
        return tuple(_burst(ground, sizes.burst, say) for _ in range(sizes.bursts))


def _burst(ground: Ground[Vethd], count: int, say: Say) -> Burst:
    say(f"vethd: a burst of {count} namespaces, and their removal")
    names = [ground.new_name()[1] for _ in range(count)]
    with _asking() as asked:
        begin = time.perf_counter()
        netns.add_many(names)
        made = time.perf_counter() - begin
        for name in names:
            with Eyes(name) as eyes:
                ground.contender.network(name, 0, eyes)
        networked = time.perf_counter() - begin
        mistakes = _mistakes(ground, names)
        begin = time.perf_counter()
        gone = ground.delete_and_wait(ground.names)
        ground.contender.await_only(0)
        forgotten = time.perf_counter() - begin
    await_quiet(ALL_GONE_SECONDS)
    return Burst(count, made, networked, gone, forgotten, tuple(asked), tuple(mistakes))


@contextmanager
def _asking() -> Iterator[list[float]]:
    """What the list holds afterwards is how long each answer took, in seconds."""
    asked: list[float] = []
    command = [sys.executable, "-I", "-S", asking.__file__, SOCKET]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "asking\n"
            yield asked
            told, _ = process.communicate()
            asked += map(float, told.split())
        finally:
            process.kill()


def _mistakes(ground: Ground[Vethd], names: list[str]) -> list[str]:
    """Whoever was networked twice, and every address given twice."""
    mistakes = []
    given: Counter[bytes] = Counter()
    for name in names:
        with Eyes(name) as eyes:
            devices, addresses = eyes.devices(), eyes.addresses()
            if len(devices) == len(addresses) == 1:
                ground.note(name, eyes)
            else:
                mistakes.append(f"{name} has {len(devices)} devices and {len(addresses)} addresses")
        given.update(addresses)
    twice = sorted(str(IPv4Address(address)) for address, times in given.items() if times > 1)
    mistakes += [f"{address} was given more than once" for address in twice]
    host_ends = len(observe.host_ends())
    if host_ends != len(names):
        mistakes.append(f"{host_ends} host ends for {len(names)} namespaces")
    return mistakes
