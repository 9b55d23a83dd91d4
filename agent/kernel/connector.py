"""The kernel's process connector: every fork, exec and change of name on the whole host.

It answers in the initial network namespace, to processes of the initial pid namespace and
to nobody else. A socket filter keeps in the kernel what is about threads, and all exits.

Source: include/uapi/linux/cn_proc.h, drivers/connector/cn_proc.c, Documentation/driver-api/connector.rst.
"""

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final

from agent.errors import HostError
from agent.kernel import cn_proc, eventfilter, netnsfilter
from agent.kernel.btf import UnknownTypeError
from agent.kernel.namespaces import come_back, enter
from agent.kernel.wire import HEADER

Event = tuple[int, int, int]
"""What happened (see cn_proc), the process (of FORK the parent), the child (of FORK alone, else arbitrary)."""

_NLMSG_DONE: Final = 3
_OPERATION: Final = struct.Struct("=I")
_EVENT: Final = struct.Struct("=I16xI4xI")
_ACK: Final = struct.Struct("=I12xI")
_SO_RCVBUFFORCE: Final = 33
_MSG_DONTWAIT: Final = 0x40
BUFFER_BYTES: Final = 8 << 20
AT_ONCE: Final = 512
_ROUNDS: Final = 64
_ACK_MS: Final = 200
_UNANSWERED: Final = (
    "the kernel's process connector does not answer: it takes CONFIG_PROC_EVENTS and the initial pid namespace"
)

_libc = ctypes.CDLL(None, use_errno=True)


class Connector:
    """A subscription to process events."""

    def __init__(self, passed_over: Collection[int] = (), buffer_bytes: int = BUFFER_BYTES) -> None:
        """Subscribe; ``buffer_bytes`` of events are kept by the kernel until they are taken.

        Of processes in the network namespaces ``passed_over`` (inodes) no events come, where the
        kernel lets its filter look (``passes_over`` tells). Raises HostError where the connector
        does not answer.
        """
        self._lost = False
        with contextlib.ExitStack() as undo:
            try:
                self._socket = undo.enter_context(_open_in_initial_namespace())
                self.passes_over = _filter(self._socket, passed_over)
                self._socket.bind((0, cn_proc.CN_IDX_PROC))
                self._ask(cn_proc.LISTEN)
                self._await_ack()
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
            except OSError as error:
                raise HostError(f"{_UNANSWERED} ({error.strerror})") from error
            undo.pop_all()
        self._mailbag = _Mailbag()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with events."""
        return self._socket.fileno()

    def take(self) -> tuple[list[Event], bool]:
        """Take what has come, without waiting; tell whether events were lost.

        A loss is told once nothing is left to take: until then the kernel drops events without
        a word (NETLINK_S_CONGESTED in net/netlink/af_netlink.c).
        """
        events: list[Event] = []
        for _ in range(_ROUNDS):
            count = self._mailbag.fill(self._socket.fileno())
            if count == -errno.ENOBUFS:
                self._lost = True
                continue
            events += self._mailbag.events(max(count, 0))
            if count < AT_ONCE:
                lost, self._lost = self._lost, False
                return events, lost
        return events, False

    def close(self) -> None:
        """End the subscription: before Linux 6.6 the kernel would go on composing events for nobody."""
        with contextlib.suppress(OSError):
            self._ask(cn_proc.IGNORE)
        self._socket.close()

    def _ask(self, operation: int) -> None:
        body = cn_proc.CN_MSG.pack(cn_proc.CN_IDX_PROC, cn_proc.CN_VAL_PROC, 0, 0, _OPERATION.size, 0)
        body += _OPERATION.pack(operation)
        self._socket.send(HEADER.pack(HEADER.size + len(body), _NLMSG_DONE, 0, 0, 0) + body)

    def _await_ack(self) -> None:
        """Read up to the answer; a connector that is not for us is silent."""
        arrived = select.poll()
        arrived.register(self._socket, select.POLLIN)
        while arrived.poll(_ACK_MS):
            datagram = self._socket.recv(1 << 12)
            what, code = _ACK.unpack_from(datagram, cn_proc.WHAT)
            if what == cn_proc.NONE:
                if code:
                    raise OSError(code, os.strerror(code))
                return
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


class _Mailbag:
    """Room for many messages, which one system call fills (recvmmsg(2))."""

    def __init__(self) -> None:
        self._events = bytearray(AT_ONCE * _EVENT.size)
        events = ctypes.addressof(ctypes.c_char.from_buffer(self._events))
        # What comes before each event is written to one place over and over, and read by nobody.
        self._head = ctypes.create_string_buffer(cn_proc.WHAT)
        parts = []
        for place in range(AT_ONCE):
            parts.append(_Part(ctypes.addressof(self._head), cn_proc.WHAT))
            parts.append(_Part(events + place * _EVENT.size, _EVENT.size))
        self._parts = (_Part * len(parts))(*parts)
        self._slots = (_Slot * AT_ONCE)()
        for place, slot in enumerate(self._slots):
            slot.message.parts = ctypes.addressof(self._parts) + 2 * place * ctypes.sizeof(_Part)
            slot.message.parts_count = 2
        self._fill = _libc.recvmmsg
        self._address = ctypes.c_void_p(ctypes.addressof(self._slots))

    def fill(self, descriptor: int) -> int:
        """Receive what is there; return the number of messages, or a negative errno."""
        count: int = self._fill(descriptor, self._address, AT_ONCE, _MSG_DONTWAIT, None)
        return count if count >= 0 else -ctypes.get_errno()

    def events(self, count: int) -> Iterator[Event]:
        """Read the first ``count`` messages."""
        return _EVENT.iter_unpack(memoryview(self._events)[: count * _EVENT.size])


class _Part(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("parts_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Slot(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", _Message), ("received", ctypes.c_uint))


def _filter(listener: socket.socket, passed_over: Collection[int]) -> bool:
    """Attach the better filter, or else the simple one; tell whether it is the better."""
    if passed_over:
        with contextlib.suppress(OSError, UnknownTypeError):
            netnsfilter.pass_elsewhere(listener, passed_over)
            return True
    eventfilter.pass_processes(listener)
    return False


def _open_in_initial_namespace() -> socket.socket:
    """Open the socket there, or where we are if that cannot be entered: mostly it is the same."""
    initial = _initial_namespace()
    if initial is None:
        return _open()
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(initial)
        try:
            return _open()
        finally:
            come_back(here)
    finally:
        os.close(here)
        os.close(initial)


def _initial_namespace() -> int | None:
    # A hardened process 1 may not let itself be looked at; kthreadd, process 2, never leaves that namespace.
    for pid in (1, 2):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return None


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, cn_proc.NETLINK_CONNECTOR)
