"""What watching costs: a scrape beside node_exporter's, plumbing while scraped, and a large conntrack table."""

import http.client
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

from agent.demo.private_host import PrivateHost
from agent.kernel.flows import count_flows
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.wire import Request
from agent.model import Cookie
from tests.bench.contenders import Vethd
from tests.bench.eyes import Eyes
from tests.bench.ground import Ground
from tests.bench.side_by_side import Say
from tests.harness import netns, observe
from tests.harness.waiting import eventually

_EXPORTER = "prometheus-node-exporter"
_NETDEV = 9100
_NETCLASS = 9101
_OURS = 9853
_ENTRIES = 200_000
_DUMP = Request(0x0101, 0, struct.pack("=BBH", 0, 0, 0), "list connections")
_TRACK = "add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state new"


@dataclass(frozen=True, slots=True)
class Watching:
    """Medians in seconds; None for what could not be measured here."""

    namespaces: int
    scrape: float
    netdev: float | None
    netclass: float | None
    plumb: float
    plumb_scraped: float
    entries: int
    dump: float
    tally: float
    tool: float


def measure(namespaces: int, trials: int, say: Say) -> Watching:
    with Ground(Vethd()) as ground:
        say(f"watching: {namespaces} namespaces, scraped beside node_exporter")
        names = [ground.new_name()[1] for _ in range(namespaces)]
        netns.add_many(names)
        for name in names:
            with Eyes(name) as eyes:
                eyes.await_usable()
                ground.note(name, eyes)
        ports = [_OURS]
        with _exporters() as others:
            took = _in_turns([partial(_scrape, port) for port in (*ports, *others)], trials)
        ground.delete_and_wait(ground.names[100:])
        say("watching: plumbing with and without a scrape every second")
        plumb, scraped = _plumbs(ground, trials)
    say(f"watching: a conntrack table of {_ENTRIES} entries")
    with PrivateHost():
        dump, tally, tool = _conntrack()
    netdev, netclass = (took[1], took[2]) if len(took) > 1 else (None, None)
    return Watching(namespaces, took[0], netdev, netclass, plumb, scraped, _ENTRIES, dump, tally, tool)


def render(found: Watching) -> str:
    def times(other: float | None) -> str:
        return "not installed" if other is None else f"{other * 1000:.1f} ms = {other / found.scrape:.1f} x"

    rows = {
        f"whole scrape with {found.namespaces} namespaces": f"{found.scrape * 1000:.1f} ms",
        "node_exporter, netdev alone, same host": times(found.netdev),
        "node_exporter, netdev and netclass": times(found.netclass),
        "plumb with 100 there, scraped every second against not scraped": (
            f"{found.plumb_scraped * 1000:.2f} / {found.plumb * 1000:.2f} ms = {found.plumb_scraped / found.plumb:.2f}"
        ),
        f"tally of {found.entries} connections against the kernel's dump alone": (
            f"{found.tally * 1000:.0f} / {found.dump * 1000:.0f} ms = {found.tally / found.dump:.2f}"
        ),
        "the same by conntrack -L and awk": f"{found.tool * 1000:.0f} ms = {found.tool / found.tally:.1f} x",
    }
    return "### Watching (medians)\n\n| | |\n| --- | --- |\n" + "\n".join(f"| {k} | {v} |" for k, v in rows.items())


@contextmanager
def _exporters() -> Iterator[list[int]]:
    """Two node_exporters that collect what the comparison is about; none where it is not installed."""
    program = shutil.which(_EXPORTER)
    if program is None:
        yield []
        return
    collectors = {_NETDEV: ["--collector.netdev"], _NETCLASS: ["--collector.netdev", "--collector.netclass"]}
    running = [
        netns.spawn([program, "--collector.disable-defaults", *names, f"--web.listen-address=127.0.0.1:{port}"])
        for port, names in collectors.items()
    ]
    try:
        for port in collectors:
            eventually(partial(netns.reaches, None, "127.0.0.1", port), 10, "node_exporter listens")
        yield list(collectors)
    finally:
        for process in running:
            process.kill()
            process.wait()


def _in_turns(ways: list[Callable[[], None]], trials: int) -> list[float]:
    took: list[list[float]] = [[] for _ in ways]
    for trial in range(trials + 2):
        for place, way in enumerate(ways):
            begin = time.perf_counter()
            way()
            if trial >= 2:
                took[place].append(time.perf_counter() - begin)
    return [median(each) for each in took]


def _scrape(port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        assert b"_network_receive_bytes_total{" in connection.getresponse().read()


def _plumbs(ground: Ground[Vethd], trials: int) -> tuple[float, float]:
    quiet: list[float] = []
    scraped: list[float] = []
    for _ in range(4):
        quiet += [ground.trial().usable for _ in range(trials // 4)]
        done = threading.Event()
        scraper = threading.Thread(target=_scrape_every_second, args=(done,))
        scraper.start()
        scraped += [ground.trial().usable for _ in range(trials // 4)]
        done.set()
        scraper.join()
    return median(quiet), median(scraped)


def _scrape_every_second(done: threading.Event) -> None:
    while not done.wait(1.0):
        _scrape(_OURS)


def _conntrack() -> tuple[float, float, float]:
    """Seconds for the kernel's dump, for our tally, and for the tool's, of the same table."""
    observe.run("nft", _TRACK)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.bind(("127.1.0.1", 0))
        for number in range(_ENTRIES):
            sender.sendto(b"x", (f"127.2.{number // 50_000}.1", 1024 + number % 50_000))
    holders = {socket.inet_aton("127.1.0.1"): Cookie(1)}

    def tally() -> None:
        assert count_flows(holders).total() >= _ENTRIES

    def tool() -> None:
        subprocess.run(
            "conntrack -L 2>/dev/null | awk '{n[$4]++} END {for (k in n) print k, n[k]}'",
            shell=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    dump, tallied, told = _in_turns([_dump, tally, tool], 5)
    return dump, tallied, told


def _dump() -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        assert sum(map(len, netlink.datagrams(_DUMP)))
