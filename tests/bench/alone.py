"""What is measured of vethd alone: growth, many first packets, a burst, its removal, and rest."""

import time
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

from tests.bench import side_by_side
from tests.bench.contenders import Vethd
from tests.bench.eyes import Eyes
from tests.bench.ground import Ground
from tests.bench.results import Alone, Burst, Connects, Rest
from tests.bench.side_by_side import Say
from tests.bench.sizes import Sizes
from tests.harness import netns, observe

_CLOCK_TICKS = 100
_KEPT = 100
_CALM_SECONDS = 3.0


def measure(sizes: Sizes, say: Say) -> Alone:
    levels = side_by_side.measure((Vethd,), sizes.levels, sizes, say)
    with Ground(Vethd()) as ground:
        say(f"vethd: the first packets of {sizes.first_packets} namespaces")
        first_packets = _first_packets(ground, sizes.first_packets)
        ground.delete_and_wait(ground.names)
        say(f"vethd: a burst of {sizes.burst} namespaces")
        burst = _burst(ground, sizes.burst)
        doomed = ground.names[sizes.resting :]
        say(f"vethd: removal of {len(doomed)} at once")
        removal = ground.delete_and_wait(doomed)
        say(f"vethd: {sizes.rest_seconds:g} s of rest with {len(ground.names)}, and a restart")
        rest = _rest(ground, sizes.rest_seconds)
    return Alone(levels, tuple(first_packets), burst, len(doomed), removal, rest)


def _first_packets(ground: Ground[Vethd], count: int) -> list[Connects]:
    connects = []
    for _ in range(count):
        connects.append(ground.add())
        ground.delete(ground.names[:-_KEPT])
    return connects


def _burst(ground: Ground[Vethd], count: int) -> Burst:
    names = [ground.new_name()[1] for _ in range(count)]
    begin = time.perf_counter()
    netns.add_many(names)
    made = time.perf_counter() - begin
    for name in names:
        with Eyes(name) as eyes:
            eyes.await_usable()
    networked = time.perf_counter() - begin
    return Burst(count, made, networked, tuple(_mistakes(ground, names)))


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


def _rest(ground: Ground[Vethd], seconds: float) -> Rest:
    agent = ground.contender.agent
    # Nothing tells that all is done which the removal has left to do.
    time.sleep(_CALM_SECONDS)
    before = _cpu_seconds(agent.pid)
    time.sleep(seconds)
    share = (_cpu_seconds(agent.pid) - before) / seconds
    resident = int(Path(f"/proc/{agent.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024
    agent.stop()
    begin = time.perf_counter()
    agent.start()
    return Rest(len(ground.names), seconds, share, resident, time.perf_counter() - begin)


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads; behind the name, which may hold anything. proc_pid_stat(5)"""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS
