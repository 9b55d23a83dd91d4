"""An outside observer: sockets inside one namespace, and a look at the host's devices."""

import contextlib
import errno
import math
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.demo.isolation import inside
from agent.demo.uplink import BEYOND4
from agent.kernel import decode, messages, routing
from agent.kernel.netlink import Netlink
from agent.model import Link

Target = tuple[str, int]

_ANY_PORT = 9
_PAUSE = 0.0001
_LONGEST_PAUSE = 0.005
_USABLE_TIMEOUT = 20.0
_CONNECT_TIMEOUT = 4.0
_GONE_TIMEOUT = 60.0
# SO_LINGER on, with 0 seconds: closing resets the connection and leaves no TIME_WAIT behind.
_RESET = b"\1\0\0\0\0\0\0\0"


class NotUsable(Exception):
    """A namespace has no network after all the time that it may take."""


class Eyes:
    """Everything is opened at once and beforehand, so that looking and connecting need not enter again.

    Looking is one system call that takes no lock of the kernel's: a subscriber to rtnetlink's messages
    would be woken by each change, and the kernel's work would take thrice as long on two cores.
    Keeps the namespace alive until it is closed.
    """

    def __init__(self, netns: str | Path) -> None:
        with inside(netns):
            self._probe = socket.socket(type=socket.SOCK_DGRAM)
            self._streams = [socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(2)]
        self._netns = netns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._probe.close()
        for stream in self._streams:
            stream.close()

    def await_usable(self, in_vain: Callable[[], bool] = lambda: False) -> None:
        """Until there is a route to the world and an address to send from; looks every 0.1 ms.

        Raises NotUsable, at once when it is `in_vain`.
        """
        deadline = time.monotonic() + _USABLE_TIMEOUT
        while not self._is_usable():
            if in_vain() or time.monotonic() > deadline:
                raise NotUsable(f"{self._netns} has no default route")
            time.sleep(_PAUSE)

    def addresses(self) -> set[bytes]:
        """IPv4 addresses but for loopback's."""
        with self._asking() as netlink:
            found = map(decode.address, netlink.dump(routing.dump_addresses()))
            return {each.address for each in found if len(each.address) == 4 and each.address[0] != 127}

    def devices(self) -> list[Link]:
        """All but loopback."""
        with self._asking() as netlink:
            found = map(decode.link, netlink.dump(messages.dump_links()))
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

    def _is_usable(self) -> bool:
        # Connecting a datagram socket sends nothing: the kernel looks for a route, and chooses its own address.
        result = self._probe.connect_ex((BEYOND4, _ANY_PORT))
        if result not in {0, errno.ENETUNREACH}:
            raise OSError(result, errno.errorcode[result])
        return result == 0 and self._probe.getsockname()[0] != "0.0.0.0"

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Netlink]:
        with inside(self._netns):
            netlink = Netlink()
        with netlink:
            yield netlink


def await_gone(host_ends: Sequence[int]) -> None:
    """Until the host has none of the devices; looks every 0.1 ms at first."""
    deadline, pause = time.monotonic() + _GONE_TIMEOUT, _PAUSE
    # The last to go is probably the newest: while it is there, nothing else has to be asked for.
    newest_first = host_ends[::-1]
    while any(map(_exists, newest_first)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"some of {len(host_ends)} host ends are not gone after {_GONE_TIMEOUT} s")
        time.sleep(pause)
        if len(host_ends) > 1:
            pause = min(2 * pause, _LONGEST_PAUSE)


def _exists(index: int) -> bool:
    # An ioctl, as that waits for no lock which whoever deletes the device may hold.
    with contextlib.suppress(OSError):
        return bool(socket.if_indextoname(index))
    return False
