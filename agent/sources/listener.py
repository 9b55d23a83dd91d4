"""A netlink socket that listens: subscribes, reads in bursts, notices what was lost."""

import asyncio
import errno
import socket
import struct
from collections.abc import Iterable
from typing import Final

from agent.kernel.netlink import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK
from agent.kernel.wire import Message, messages

_NETLINK_LISTEN_ALL_NSID: Final = 8
_SO_RCVBUFFORCE: Final = 33
_DATAGRAM_BYTES: Final = 1 << 18
_NSID: Final = struct.Struct("=i")
_TOGETHER_SECONDS: Final = 0.003


class Listener:
    """Base of the netlink sources: a subclass says what to do with messages.

    The buffer is large (SO_RCVBUFFORCE), the socket asks for nothing: an overrun, which
    poisons a socket's answers, costs a resync and no more.
    """

    def __init__(self, protocol: int, groups: Iterable[int], buffer_bytes: int, all_namespaces: bool = False) -> None:
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
        )
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        if all_namespaces:
            self.socket.setsockopt(SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
        self.socket.bind((0, 0))
        for group in groups:
            self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._buffer = bytearray(_DATAGRAM_BYTES)
        self._later: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen from ``loop``."""
        self._loop = loop
        loop.add_reader(self.socket.fileno(), self._soon)

    def close(self) -> None:
        """Stop listening."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self.socket.fileno())
        self.socket.close()

    def together_seconds(self) -> float:
        """Return how long to collect messages before they are read.

        Reading wakes the loop and takes the interpreter from the threads that plumb. It also is
        the least time a repair takes.
        """
        return _TOGETHER_SECONDS

    def on_message(self, nsid: int | None, message: Message) -> None:
        """Take a message; ``nsid`` is None when it comes from the host's own namespace."""
        raise NotImplementedError

    def on_lost(self) -> None:
        """Messages were lost."""
        raise NotImplementedError

    def on_read(self, count: int) -> None:
        """All messages that were there, ``count`` of them, have been taken."""
        raise NotImplementedError

    def _soon(self) -> None:
        self._loop.remove_reader(self.socket.fileno())
        self._later = self._loop.call_later(self.together_seconds(), self.read)

    def read(self) -> None:
        """Take what was told so far."""
        self._loop.add_reader(self.socket.fileno(), self._soon)
        count = 0
        while True:
            try:
                size, ancillary, _, _ = self.socket.recvmsg_into([self._buffer], socket.CMSG_SPACE(_NSID.size))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.on_lost()
                continue
            nsid = _NSID.unpack(ancillary[0][2])[0] if ancillary else None
            for message in messages(memoryview(self._buffer)[:size]):
                self.on_message(nsid, message)
                count += 1
        self.on_read(count)
