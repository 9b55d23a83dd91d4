"""TCP throughput between namespaces and beyond the NAT, against the same shape made by hand."""

import json
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from agent.demo.private_host import PrivateHost
from agent.demo.uplink import BEYOND4
from tests.bench.contenders import Contender, OnTheEdge
from tests.bench.eyes import Eyes
from tests.bench.ground import Apart, Ground
from tests.bench.peers import run_script
from tests.bench.results import Pair
from tests.bench.side_by_side import Say
from tests.bench.sizes import Sizes
from tests.bench.turns import pair
from tests.harness import netns
from tests.harness.expect import address4

PROGRAM = Path("/usr/bin/iperf3")
_PORT = "7200"
_LISTENING = "Server listening"


class HandMade(Contender):
    """A bridge with two ports and two routed namespaces, one nftables rule that masquerades: by `ip` and `nft`."""

    title = "made by hand"
    gateway = "10.91.0.1"
    ports: ClassVar[int] = 2

    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        run_script("hand-host.sh")

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        run_script("hand-port.sh" if number < self.ports else "hand-routed.sh", netns, f"10.91.0.{number + 2}")
        eyes.await_usable()

    def release(self, netns: str, number: int) -> None:
        """Nothing: the kernel deletes the pair together with the namespace."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """From one namespace to another by their places, or beyond the NAT."""

    what: str
    source: int
    target: int | None


_STREAMS = (
    _Stream("namespace to namespace, ports of a bridge", 0, 1),
    _Stream("namespace to namespace, both routed", 2, 3),
    _Stream("to beyond the NAT, from a bridge port", 0, None),
    _Stream("to beyond the NAT, routed", 2, None),
)


def measure(sizes: Sizes, say: Say) -> tuple[Pair, ...]:
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Apart[Contender](each)) for each in (OnTheEdge(), HandMade()))
        for future in [ground.start(Ground.fill, 4, sizes.fill_seconds) for ground in (ours, theirs)]:
            future.result()
        return tuple(_pair(stream, ours, theirs, sizes, say) for stream in _STREAMS)


def _pair(stream: _Stream, ours: Apart[Contender], theirs: Apart[Contender], sizes: Sizes, say: Say) -> Pair:
    say(f"throughput: {stream.what}")

    def rate(apart: Apart[Contender]) -> float:
        return apart.start(_rate, stream, sizes.stream_bytes).result()

    return pair(stream.what, sizes.stream_runs, partial(rate, ours), partial(rate, theirs))


def _rate(ground: Ground[Contender], stream: _Stream, count: int) -> float:
    """Bits a second that arrived."""
    names = ground.names
    if stream.target is None:
        inside: str | Path = ground.host.internet
        address = BEYOND4
    else:
        inside = names[stream.target]
        address = address4(inside)
    serve = [str(PROGRAM), "--server", "--one-off", "--forceflush", "--bind", address, "--port", _PORT]
    ask = [str(PROGRAM), "--client", address, "--port", _PORT, "--bytes", str(count), "--json"]
    with netns.enter(inside), netns.reading(serve) as server:
        while _LISTENING not in server.readline():
            pass
        with netns.enter(names[stream.source]):
            told = subprocess.run(ask, check=True, capture_output=True).stdout
    return float(json.loads(told)["end"]["sum_received"]["bits_per_second"])
