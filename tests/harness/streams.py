"""A TCP stream that never rests, and whether one packet of it was lost on either side."""

import logging
import re
from types import TracebackType
from typing import Self

from agent.demo import internet, uplink
from agent.demo.private_host import PrivateHost
from tests.harness import observe
from tests.harness.netns import Heartbeat, Name

_log = logging.getLogger(__name__)
_PORTS = re.compile(r"\bdport=(\d+)")
_RETRANSMITS = re.compile(r"\bretrans:\d+/(\d+)")
# On a busy machine answers are late, and what was not lost is sent again: the other side says so (RFC 2883).
_IN_VAIN = re.compile(r"\bdsack_dups:(\d+)")


class Stream:
    """A `Heartbeat` from a namespace to the internet beyond, whose packets are counted. A context manager."""

    def __init__(self, host: PrivateHost, name: Name) -> None:
        self._host = host
        self._name = name
        self._beat = Heartbeat(name, uplink.BEYOND4, internet.ECHO_PORT)

    def __enter__(self) -> Self:
        self._beat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beat.__exit__(kind, error, trace)

    @property
    def beats(self) -> int:
        return self._beat.beats

    def await_beats(self, count: int) -> None:
        self._beat.await_beats(count)

    def lost(self) -> int:
        """How many segments were lost, there and back."""
        return _lost(self._name, f"sport = :{self._beat.local[1]}") + _lost(
            self._host.internet, f"dport = :{self._far_port()}"
        )

    def _far_port(self) -> int:
        """The port by which the internet knows it: its own, unless another's connection has that."""
        address, port = self._beat.local[:2]
        told = observe.run("conntrack", "-L", "-p", "tcp", "--src", address, "--sport", str(port))
        return int(_PORTS.findall(told)[-1])


def _lost(netns: Name, which: str) -> int:
    told = observe.run("ss", "-Htin", which, netns=netns)
    assert told, "the connection is there"
    sent_again, in_vain = (_count(pattern, told) for pattern in (_RETRANSMITS, _IN_VAIN))
    if sent_again > in_vain:
        _log.warning("of %r, %s, some were sent again: %s", netns, which, told)
    return max(0, sent_again - in_vain)


def _count(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1]) if found else 0
