"""Changes of nftables: who changed our table, told by the kernel after every transaction.

Source: NFNLGRP_NFTABLES and NFT_MSG_NEWGEN in include/uapi/linux/netfilter/nf_tables.h.
"""

import asyncio
import errno
import os
import socket
import struct
from typing import Final

from agent.kernel.netlink import NETLINK_NETFILTER, Message, attributes, messages
from agent.model import TABLE
from agent.sources.sink import Sink

SOURCE: Final = "nftables"

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NFNLGRP_NFTABLES: Final = 7
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 8 << 20
_NFT_MSG_NEWGEN: Final = (10 << 8) | 15
_NFTA_TABLE: Final = 1
_NFTA_GEN_PROC_PID: Final = 2
_NFTA_GEN_PROC_NAME: Final = 3
_NFGENMSG_BYTES: Final = 4
_TOGETHER_SECONDS: Final = 0.003
_OURS: Final = TABLE.encode()


class GenerationSource:
    """Listens for transactions of others that touch our tables."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._touched = False
        self._later: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen from ``loop``."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._soon)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop listening."""
        if self._later is not None:
            self._later.cancel()
        loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _soon(self) -> None:
        """Read a moment later, all at once: most of what comes is the echo of our own work."""
        self._loop.remove_reader(self._socket.fileno())
        self._later = self._loop.call_later(_TOGETHER_SECONDS, self._read)

    def _read(self) -> None:
        self._drain()
        self._loop.add_reader(self._socket.fileno(), self._soon)

    def _drain(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._sink.dropped(SOURCE)
                continue
            for message in messages(datagram):
                self._on_message(message)

    def _on_message(self, message: Message) -> None:
        found = attributes(message.payload, _NFGENMSG_BYTES)
        if message.kind != _NFT_MSG_NEWGEN:
            self._touched |= bytes(found.get(_NFTA_TABLE, b"")).rstrip(b"\0") == _OURS
            return
        touched, self._touched = self._touched, False
        if not touched or _NFTA_GEN_PROC_PID not in found:
            return
        (thread,) = struct.unpack(">I", found[_NFTA_GEN_PROC_PID])
        if not _is_own_thread(thread):
            name = bytes(found.get(_NFTA_GEN_PROC_NAME, b"")).rstrip(b"\0").decode(errors="replace")
            self._sink.look_host(f"{name} (process {thread})")


def _is_own_thread(thread: int) -> bool:
    return os.path.exists(f"/proc/self/task/{thread}")
