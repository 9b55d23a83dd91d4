"""A blocking netlink socket, for the hot path.

The kernel works on a request inside ``sendmsg`` and has queued the answer when that
returns, so a blocking exchange costs two system calls and no wait. pyroute2 serves
everything that is not done per namespace; here its per-attribute cost would be most of
the time of a plumb.

Source: netlink(7), include/uapi/linux/netlink.h.
"""

import errno
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from agent.errors import KernelError
from agent.kernel import faults
from agent.kernel.wire import (
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    Message,
    Request,
    attributes,
    messages,
)

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12

_NFNL_MSG_BATCH_BEGIN: Final = 0x10
_NFNL_MSG_BATCH_END: Final = 0x11
_NFTABLES_BATCH: Final = struct.pack("=BB", 0, 0) + struct.pack(">H", 10)
_ERRNO: Final = struct.Struct("=i")
_RECEIVE_SIZE: Final = 1 << 16
_DONE_BYTES: Final = 20
# The answer is there when the request was sent: what is not there now was lost.
_ANSWER_SECONDS: Final = 1
_DUMP_TRIES: Final = 30
# The answers of so many requests fit the receive buffer (net.core.rmem_default).
_BATCH: Final = 64
_SOCKET: Final = faults.socket_kind()


class Answer(NamedTuple):
    """What came back for one request: a positive errno (0: done), text, reply payloads."""

    code: int
    detail: str
    replies: tuple[memoryview, ...]


_SUCCESS: Final = (0, "")


class Netlink:
    """A netlink socket in the namespace of the thread that opens it; blocking, for one thread at a time.

    Opening one and asking raise KernelError, with ETIMEDOUT for an answer that does not come within 1 s.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        try:
            self._socket = _SOCKET(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise KernelError("open a netlink socket", error.errno or 0) from error
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", _ANSWER_SECONDS, 0))
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 0

    def fileno(self) -> int:
        """The socket's file descriptor, for getsockopt and the like."""
        return self._socket.fileno()

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Read a socket option of ``size`` bytes."""
        return self._socket.getsockopt(level, option, size)

    def close(self) -> None:
        """Close the socket; a namespace is kept alive by an open one."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def subscribe(self, group: int) -> None:
        """Have the kernel send a multicast group's messages here."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def wait(self, seconds: float) -> bool:
        """Wait for a subscribed message and drop it with all that came; False when none came in time."""
        # Not select(2), which knows the descriptors below 1024 alone.
        arrived = select.poll()
        arrived.register(self._socket, select.POLLIN)
        if not arrived.poll(max(0.0, seconds) * 1000):
            return False
        while True:
            try:
                self._socket.recv(_RECEIVE_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError as error:
                # An overrun says that something happened, like a message.
                if error.errno != errno.ENOBUFS:
                    raise

    def exchange(self, requests: Sequence[Request]) -> list[Answer]:
        """Send requests in as few datagrams as can be and return their answers in the same order.

        The kernel goes on after a request that fails; the caller reads ``code``. Only the last request
        of a datagram is to be acknowledged: of those before it, failures are told unasked.
        """
        return [
            answer
            for start in range(0, len(requests), _BATCH)
            for answer in self._exchange(requests[start : start + _BATCH])
        ]

    def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        first = self._sequence + 1
        self._sequence += len(requests)
        last = len(requests) - 1
        frames = (
            _frame(request, first + place, NLM_F_ACK if place == last else 0) for place, request in enumerate(requests)
        )
        self._send(requests[0].what, b"".join(frames))
        replies: list[list[memoryview]] = [[] for _ in requests]
        verdicts: dict[int, tuple[int, str]] = {}
        while last not in verdicts:
            for message in self._receive(requests[0].what):
                place = message.sequence - first
                if not 0 <= place <= last:
                    continue
                if message.kind == NLMSG_ERROR:
                    verdicts[place] = _verdict(message)
                else:
                    replies[place].append(message.payload)
        return [Answer(*verdicts.get(place, _SUCCESS), tuple(replies[place])) for place in range(len(requests))]

    def ask(self, request: Request) -> Answer:
        """Send one request and return its answer."""
        return self.exchange((request,))[0]

    def dump(self, request: Request) -> list[memoryview]:
        """Return the payloads of a whole, consistent dump.

        A dump that the kernel flags as interrupted (NLM_F_DUMP_INTR) is read again, up to
        30 times; then KernelError with EINTR.
        """
        for _ in range(_DUMP_TRIES):
            payloads, consistent = self._dump_once(request)
            if consistent:
                return payloads
        raise KernelError(request.what, errno.EINTR, "the dump was interrupted by changes every time")

    def transact(self, requests: Sequence[Request]) -> None:
        """Send nf_tables changes as one transaction: all of them happen or none.

        Raises KernelError for the first that the kernel refuses: that is told unasked, before the last's answer.
        Source: net/netfilter/nfnetlink.c, nfnetlink_rcv_batch().
        """
        first = self._sequence + 1
        self._sequence += len(requests) + 2
        begin = _frame(Request(_NFNL_MSG_BATCH_BEGIN, 0, _NFTABLES_BATCH, ""), first, 0)
        end = _frame(Request(_NFNL_MSG_BATCH_END, 0, _NFTABLES_BATCH, ""), self._sequence, 0)
        last = len(requests) - 1
        frames = (
            _frame(request, first + 1 + place, NLM_F_ACK if place == last else 0)
            for place, request in enumerate(requests)
        )
        self._send(requests[0].what, b"".join((begin, *frames, end)))
        while True:
            for message in self._receive(requests[0].what):
                # What hits the transaction as a whole is told for its beginning, which is at -1.
                place = message.sequence - first - 1
                if message.kind != NLMSG_ERROR or not -1 <= place <= last:
                    continue
                code, detail = _verdict(message)
                if code:
                    raise KernelError(requests[max(place, 0)].what, code, detail)
                if place == last:
                    return

    def _dump_once(self, request: Request) -> tuple[list[memoryview], bool]:
        self._sequence += 1
        self._send(request.what, _frame(request, self._sequence, NLM_F_DUMP))
        payloads: list[memoryview] = []
        consistent = True
        while True:
            for message in self._receive(request.what):
                if message.sequence != self._sequence:
                    continue
                if message.flags & NLM_F_DUMP_INTR:
                    consistent = False
                if message.kind not in {NLMSG_DONE, NLMSG_ERROR}:
                    payloads.append(message.payload)
                    continue
                code, detail = _verdict(message)
                # A routing table that nobody used yet is not there; all else ends a dump before its time.
                if code and not (message.kind == NLMSG_DONE and code == errno.ENOENT):
                    raise KernelError(request.what, code, detail)
                return payloads, consistent

    def datagrams(self, request: Request) -> Iterator[bytes]:
        """Yield the datagrams of a dump as they come, the last one ends with NLMSG_DONE.

        For tables so large that the caller decodes them himself. Raises KernelError.
        """
        self._sequence += 1
        self._send(request.what, _frame(request, self._sequence, NLM_F_DUMP))
        while True:
            data = self._receive_datagram(request.what)
            _, kind, _, _, _ = HEADER.unpack_from(data)
            if kind in {NLMSG_ERROR, NLMSG_DONE}:
                # A dump's end that says why it came before its time stands alone, and has text behind it.
                code, detail = _verdict(next(messages(data)))
                if code:
                    raise KernelError(request.what, code, detail)
            yield data
            if _ends_dump(data, self._sequence):
                return

    def _send(self, what: str, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(what, error.errno or 0) from error

    def _receive(self, what: str) -> Iterator[Message]:
        return messages(self._receive_datagram(what))

    def _receive_datagram(self, what: str) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_SIZE)
        except OSError as error:
            code = errno.ETIMEDOUT if error.errno == errno.EAGAIN else error.errno or 0
            raise KernelError(what, code, "no answer") from error


def _frame(request: Request, sequence: int, flags: int) -> bytes:
    length = 16 + len(request.body)
    header = HEADER.pack(length, request.kind, request.flags | NLM_F_REQUEST | flags, sequence, 0)
    return header + request.body + bytes(-length % 4)


def _ends_dump(data: bytes, sequence: int) -> bool:
    """Tell whether a datagram's last message is NLMSG_DONE: header and an errno, 20 bytes."""
    if len(data) < _DONE_BYTES:
        return False
    length, kind, _, found, _ = HEADER.unpack_from(data, len(data) - _DONE_BYTES)
    return (length, kind, found) == (_DONE_BYTES, NLMSG_DONE, sequence)


def _verdict(message: Message) -> tuple[int, str]:
    """Read how a request or a dump ended: a positive errno (0: well), and text."""
    (code,) = _ERRNO.unpack_from(message.payload)
    detail = ""
    if message.flags & NLM_F_ACK_TLVS:
        # With NETLINK_CAP_ACK only the header of the offending request comes back; a dump's end has none.
        found = attributes(message.payload, 4 if message.kind == NLMSG_DONE else 4 + 16)
        if NLMSGERR_ATTR_MSG in found:
            detail = bytes(found[NLMSGERR_ATTR_MSG]).rstrip(b"\0").decode(errors="replace")
    return -code, detail
