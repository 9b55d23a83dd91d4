"""What watching costs: a scrape beside node_exporter's, plumbing while scraped, and a large conntrack table."""

import http.client
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

from agent.demo.internet import ECHO_PORT
from agent.demo.private_host import PrivateHost
from agent.demo.uplink import BEYOND4
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
# As Prometheus asks. node_exporter compresses then; vethd does not, over loopback.
_AS_PROMETHEUS = {
    "Accept": (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    ),
    "Accept-Encoding": "gzip",
}
_PLAINLY: dict[str, str] = {}
_DUMP = Request(0x0101, 0, struct.pack("=BBH", 0, 0, 0), "list connections")
_TRACK = "add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state new"


@dataclass(frozen=True, slots=True)
class Watching:
    """Medians in seconds; of scrapes by port, our own first, and ``slow`` is what a tenth of our own take longer."""

    namespaces: int
    scrapes: list[float]
    plain: list[float]
    slow: float
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
                # So that connections are told of each, too.
                eyes.connect([(BEYOND4, ECHO_PORT)] * 2)
                ground.note(name, eyes)
        with _exporters() as others:
            scrapes, plain = (
                _in_turns([partial(_scrape, port, headers) for port in (_OURS, *others)], trials)
                for headers in (_AS_PROMETHEUS, _PLAINLY)
            )
        ground.delete_and_wait(ground.names[100:])
        say("watching: plumbing with and without a scrape every second")
        plumb, scraped = _plumbs(ground, trials)
    say(f"watching: a conntrack table of {_ENTRIES} entries")
    with PrivateHost():
        dump, tally, tool = _conntrack()
    slow = quantiles(scrapes[0], n=10)[-1]
    return Watching(namespaces, _medians(scrapes), _medians(plain), slow, plumb, scraped, _ENTRIES, dump, tally, tool)


def render(found: Watching) -> str:
    def beside(place: int) -> str:
        if place >= len(found.scrapes):
            return "not installed"
        pairs = zip((found.scrapes, found.plain), ("", " plainly"), strict=True)
        return ", ".join(f"{took[place] * 1000:.1f} ms{how} = {took[place] / took[0]:.1f} x" for took, how in pairs)

    rows = {
        f"whole scrape with {found.namespaces} namespaces, as Prometheus asks": (
            f"{found.scrapes[0] * 1000:.1f} ms, a tenth above {found.slow * 1000:.1f} ms;"
            f" asked plainly {found.plain[0] * 1000:.1f} ms"
        ),
        "node_exporter, netdev alone, same host": beside(1),
        "node_exporter, netdev and netclass": beside(2),
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


def _in_turns(ways: list[Callable[[], None]], trials: int) -> list[list[float]]:
    """Seconds that each way took, one after the other, so that all meet the same weather."""
    took: list[list[float]] = [[] for _ in ways]
    for trial in range(trials + 2):
        for place, way in enumerate(ways):
            begin = time.perf_counter()
            way()
            if trial >= 2:
                took[place].append(time.perf_counter() - begin)
    return took


def _medians(took: list[list[float]]) -> list[float]:
    return [median(each) for each in took]


def _scrape(port: int, headers: Mapping[str, str]) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/metrics", headers=dict(headers))
        response = connection.getresponse()
        assert (response.status, len(response.read()) > 0) == (200, True)


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
        _scrape(_OURS, _AS_PROMETHEUS)


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

    dump, tallied, told = _medians(_in_turns([_dump, tally, tool], 5))
    return dump, tallied, told


def _dump() -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        assert sum(map(len, netlink.datagrams(_DUMP)))
