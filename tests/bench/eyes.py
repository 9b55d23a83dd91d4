"""An outside observer: sockets inside one namespace, and a look at the host's devices."""

import contextlib
import math
import select
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from agent.demo.isolation import inside
from agent.demo.probe import Changes
from agent.kernel import decode, messages, routing
from agent.kernel.netlink import Netlink
from agent.kernel.rtnetlink import AF_INET
from agent.model import Link

Target = tuple[str, int]

_RTNLGRP_IPV4_ROUTE = 7
_USABLE_TIMEOUT = 20.0
_CONNECT_TIMEOUT = 4.0
_GONE_TIMEOUT = 60.0
# SO_LINGER on, with 0 seconds: closing resets the connection and leaves no TIME_WAIT behind.
_RESET = b"\1\0\0\0\0\0\0\0"


class Eyes:
    """Everything is opened at once and beforehand, so that looking and connecting need not enter again.

    Keeps the namespace alive until it is closed.
    """

    def __init__(self, netns: str) -> None:
        with inside(netns):
            self._asking = Netlink()
            self._hearing = Netlink()
            self._streams = [socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(2)]
        self._netns = netns
        self._hearing.subscribe(_RTNLGRP_IPV4_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asking.close()
        self._hearing.close()
        for stream in self._streams:
            stream.close()

    def await_usable(self) -> None:
        """Until an IPv4 address and the default route are there: looks at once, then after each change of a route."""
        deadline = time.monotonic() + _USABLE_TIMEOUT
        while not (self._has_default_route() and self.addresses()):
            if not self._hearing.wait(deadline - time.monotonic()):
                raise TimeoutError(f"{self._netns} is not usable after {_USABLE_TIMEOUT} s")

    def addresses(self) -> set[bytes]:
        """IPv4 addresses but for loopback's."""
        found = map(decode.address, self._asking.dump(routing.dump_addresses()))
        return {each.address for each in found if len(each.address) == 4 and each.address[0] != 127}

    def devices(self) -> list[Link]:
        """All but loopback."""
        found = map(decode.link, self._asking.dump(messages.dump_links()))
        return [link for link in found if link.name != "lo"]

    def host_end(self) -> int:
        """The ifindex that the one device's other end has in the host."""
        (device,) = self.devices()
        return device.peer

    def connect(self, targets: Sequence[Target]) -> list[float]:
        """Send a SYN to each of two targets, one right after the other; seconds until each was answered."""
        waiting: dict[int, tuple[int, socket.socket, float]] = {}
        answered = [math.inf] * len(targets)
        poll = select.poll()
        for place, (stream, target) in enumerate(zip(self._streams, targets, strict=True)):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            waiting[stream.fileno()] = (place, stream, time.perf_counter())
            stream.connect_ex(target)
            poll.register(stream, select.POLLOUT)
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while waiting and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                place, stream, begin = waiting.pop(descriptor)
                poll.unregister(descriptor)
                if stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    answered[place] = time.perf_counter() - begin
        return answered

    def _has_default_route(self) -> bool:
        found = map(decode.route, self._asking.dump(routing.dump_routes(AF_INET)))
        return any(route is not None and not route.destination for route in found)


def await_gone(changes: Changes, host_ends: Sequence[int]) -> None:
    """Until the host has none of the devices. `changes` must have been opened before they began to go."""
    # The last to go is probably the newest: while it is there, nothing else has to be asked for.
    newest_first = host_ends[::-1]
    changes.until(lambda: not any(map(_exists, newest_first)), _GONE_TIMEOUT, f"{len(host_ends)} host ends are gone")


def _exists(index: int) -> bool:
    # An ioctl, as that waits for no lock which whoever deletes the device may hold.
    with contextlib.suppress(OSError):
        return bool(socket.if_indextoname(index))
    return False
