"""One run: all parts, one after the other, and what could not be measured here."""

import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.demo.isolation import PrivateHostError
from tests.bench import burst, connections, growth, scrapes, side_by_side, throughput
from tests.bench.contenders import Contender, Vethd
from tests.bench.eyes import NotUsable
from tests.bench.ground import Apart, Ground
from tests.bench.native import Native
from tests.bench.peers import PEERS, Cni, PeerFailed
from tests.bench.results import Growth, Pair, Refresh, Results, Session
from tests.bench.side_by_side import Say
from tests.bench.sizes import Sizes

T = TypeVar("T")
# Three contenders with 900 namespaces each: the kernel frees namespaces one by one, so more make it crawl.
_PEERS_A_SESSION = 2


class Run:
    """``watching`` is what was found about scrapes, in Markdown, after `measure`."""

    def __init__(self, sizes: Sizes, say: Say) -> None:
        self._sizes = sizes
        self._say = say
        self._remarks: list[str] = []
        self._failures: list[str] = []
        self._connections: list[Pair] = []
        self.watching = ""

    def measure(self) -> Results:
        """A part that fails is told among the failures. Raises PrivateHostError where no private host can be had."""
        sizes, say = self._sizes, self._say
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            native = Native.build(Path(directory))
            if native.why_not:
                self._remark(f"the floor and new connections are not measured: {native.why_not}")
            # First, so that whatever is wrong with the agent shows before the peers have taken their minutes.
            grown = self._attempt("growth", lambda: growth.measure(sizes, native.floor, say, self._attempt))
            bursts = self._attempt("bursts", lambda: burst.measure(sizes, say))
            self._attempt("connections", lambda: self._count_connections(native.connects))
            sessions = self._peers(native)
            streams = self._attempt("throughput", self._throughput)
            refresh = self._attempt("watching", self._watch)
        return Results(
            sessions,
            grown or Growth((), None, None),
            bursts or (),
            streams or (),
            tuple(self._connections),
            refresh,
            tuple(self._remarks),
            tuple(self._failures),
        )

    def _attempt(self, what: str, part: Callable[[], T]) -> T | None:
        try:
            return part()
        except PrivateHostError:
            raise
        except Exception as error:  # noqa: BLE001  what was measured already, and the other parts, are worth their minutes
            traceback.print_exc()
            self._failures.append(f"{what}: {error!r:.200}")
            return None

    def _peers(self, native: Native) -> tuple[Session, ...]:
        peers = [peer for peer in PEERS if not self._is_missing(peer)]
        groups = [peers[start : start + _PEERS_A_SESSION] for start in range(0, len(peers), _PEERS_A_SESSION)]
        sessions = []
        for group in groups:
            measure = partial(side_by_side.measure, (Vethd, *group), self._sizes, self._say)
            at_last = partial(self._count_beside_chains, native.connects)
            sessions.append(self._attempt(", ".join(peer.title for peer in group), partial(measure, at_last)))
        return tuple(session for session in sessions if session is not None)

    def _count_connections(self, program: Path | None) -> None:
        if program is not None:
            self._connections.append(connections.with_many_against_one(self._sizes, program, self._say))

    def _count_beside_chains(self, program: Path | None, grounds: Sequence[Apart[Contender]]) -> None:
        ours, *others = grounds
        chained = [each for each in others if isinstance(each.ground.contender, Cni)]
        # With few namespaces there are few chains.
        if program is not None and chained and len(self._sizes.peer_levels) > 1:
            self._connections += connections.beside_chains(ours, chained[0], self._sizes, program, self._say)

    def _is_missing(self, peer: type[Contender]) -> bool:
        reason = _why_not(peer)
        if reason:
            self._remark(f"{peer.title} is not measured: {reason}")
        return bool(reason)

    def _throughput(self) -> tuple[Pair, ...]:
        if not throughput.PROGRAM.exists():
            self._remark(f"throughput is not measured: there is no {throughput.PROGRAM}")
            return ()
        return throughput.measure(self._sizes, self._say)

    def _watch(self) -> Refresh:
        found = scrapes.measure(self._sizes.watched, self._sizes.watch_trials, self._say)
        self.watching = scrapes.render(found)
        return Refresh(found.entries, found.tally, found.dump)

    def _remark(self, line: str) -> None:
        self._say(line)
        self._remarks.append(line)


def _why_not(peer: type[Contender]) -> str:
    """One trial tells whether a peer works here at all."""
    if peer.program is not None and not peer.program.exists():
        return f"there is no {peer.program}"
    try:
        with Ground(peer()) as ground:
            ground.trial()
    except (PeerFailed, NotUsable) as failure:
        return str(failure)
    return ""
