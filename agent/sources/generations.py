"""Changes of nftables: who changed our table, told by the kernel after every transaction.

Source: NFNLGRP_NFTABLES and NFT_MSG_NEWGEN in include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Iterable
from typing import Final

from agent.kernel import eventfilter
from agent.kernel.netlink import NETLINK_NETFILTER
from agent.kernel.ownsockets import is_own_port
from agent.kernel.wire import Message, attributes
from agent.model import TABLE
from agent.sources.listener import Listener
from agent.sources.sink import Sink

SOURCE: Final = "nftables"

_NFNLGRP_NFTABLES: Final = 7
_BUFFER_BYTES: Final = 8 << 20
_NFT_MSG_NEWGEN: Final = (10 << 8) | 15
_NFTA_TABLE: Final = 1
_NFTA_GEN_PROC_PID: Final = 2
_NFTA_GEN_PROC_NAME: Final = 3
_NFGENMSG_BYTES: Final = 4
_OURS: Final = TABLE.encode()


class GenerationSource(Listener):
    """Listens for transactions of others that touch our tables."""

    def __init__(self, sink: Sink, own_ports: Iterable[int]) -> None:
        """Stay deaf to transactions from ``own_ports``: they tell of each element that is made or removed."""
        super().__init__(NETLINK_NETFILTER, (_NFNLGRP_NFTABLES,), _BUFFER_BYTES)
        eventfilter.pass_foreign(self.socket, own_ports)
        self._sink = sink
        self._touched = False

    def together_seconds(self) -> float:
        """See Listener: without our rules every packet that leaves may cost a connection."""
        return 0.0

    def on_lost(self) -> None:
        """See Listener."""
        self._touched = False
        self._sink.dropped(SOURCE)

    def on_read(self, count: int) -> None:
        """See Listener."""
        self._sink.heard(SOURCE, count)

    def on_message(self, nsid: int | None, message: Message) -> None:
        """See Listener."""
        found = attributes(message.payload, _NFGENMSG_BYTES)
        if message.kind != _NFT_MSG_NEWGEN:
            self._touched |= bytes(found.get(_NFTA_TABLE, b"")).rstrip(b"\0") == _OURS
            return
        touched, self._touched = self._touched, False
        if touched and not is_own_port(NETLINK_NETFILTER, message.port):
            self._sink.look_host(_culprit(found))


def _culprit(found: dict[int, memoryview]) -> str:
    name = bytes(found.get(_NFTA_GEN_PROC_NAME, b"unknown")).rstrip(b"\0").decode(errors="replace")
    process = found.get(_NFTA_GEN_PROC_PID)
    return f"{name} (process {struct.unpack('>I', process)[0]})" if process else name
