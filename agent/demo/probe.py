"""Outside observers: sockets inside namespaces that tell whether, and since when, a network works.

Everywhere `netns` is a name in /run/netns or a path, or None for the host that the calling thread is in.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from agent.demo.isolation import inside, refuse_initial_namespace

Name = str | bytes | Path

# RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE of linux/rtnetlink.h
_ALL_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_LONGEST_PAUSE = 0.05
_BEAT_PAUSE = 0.002
_DEAD_AFTER = 10.0
_ICMP_HEADER = struct.Struct("!BBHHH")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ECHO6_REQUEST, _ECHO6_REPLY = 128, 129
_IDENTIFIER = 0x7E74


def enter(netns: Name | None) -> contextlib.AbstractContextManager[None]:
    refuse_initial_namespace()
    return contextlib.nullcontext() if netns is None else inside(netns)


def socket_in(
    netns: Name | None, address: str, kind: socket.SocketKind = socket.SOCK_STREAM, protocol: int = 0
) -> socket.socket:
    """A socket that lives in `netns`, of the family of `address`."""
    with enter(netns):
        return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, protocol)


def tcp_connect(netns: Name | None, address: str, port: int, timeout: float = 3.0) -> float:
    """Seconds until the connection stood; OSError when it was refused or timed out."""
    with socket_in(netns, address) as sock:
        sock.settimeout(timeout)
        begin = time.perf_counter()
        sock.connect((address, port))
        return time.perf_counter() - begin


def tcp_ask(netns: Name | None, address: str, port: int, timeout: float = 3.0) -> str:
    """What a server says to whoever connects, before it closes."""
    with socket_in(netns, address) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        with sock.makefile("r") as answer:
            return answer.read()


def listen(netns: Name | None, address: str, port: int) -> socket.socket:
    """A TCP listener; the kernel answers connects to it without anyone accepting them."""
    sock = socket_in(netns, address)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(4096)
    return sock


def icmp_echo(netns: Name | None, address: str, timeout: float = 1.0) -> float:
    """One ping: seconds until the answer; TimeoutError without one. RFC 792, RFC 4443."""
    v6 = ":" in address
    request, reply = (_ECHO6_REQUEST, _ECHO6_REPLY) if v6 else (_ECHO_REQUEST, _ECHO_REPLY)
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    deadline = time.monotonic() + timeout
    with socket_in(netns, address, socket.SOCK_RAW, protocol) as sock:
        begin = time.perf_counter()
        # The kernel fills in the checksum of ICMPv6 only.
        checksum = 0 if v6 else _ones_complement(request << 8, _IDENTIFIER, 1)
        sock.sendto(_ICMP_HEADER.pack(request, 0, checksum, _IDENTIFIER, 1), (address, 0))
        while True:
            sock.settimeout(max(0.0, deadline - time.monotonic()) or 0.001)
            message = sock.recv(2048)
            # IPv4 raw sockets see the IP header, IPv6 ones do not: raw(7), ipv6(7).
            header = message if v6 else message[(message[0] & 15) * 4 :]
            kind, _, _, identifier, _ = _ICMP_HEADER.unpack_from(header)
            if (kind, identifier) == (reply, _IDENTIFIER):
                return time.perf_counter() - begin
            if time.monotonic() > deadline:
                raise TimeoutError


def _ones_complement(*words: int) -> int:
    total = sum(words)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


class Changes:
    """Hears of every change of links, addresses and routes in a namespace: rtnetlink(7).

    Keeps the namespace alive until it is closed.
    """

    def __init__(self, netns: Name | None) -> None:
        with enter(netns):
            self._heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._heard.bind((0, _ALL_GROUPS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._heard.close()

    def until(self, predicate: Callable[[], object], timeout: float, what: str) -> float:
        """Seconds until `predicate` was true; TimeoutError with `what` when it did not become so.

        It is asked at once, after each change, and now and then for what netlink does not tell.
        """
        begin = time.monotonic()
        while not predicate():
            left = begin + timeout - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {timeout} s: {what}")
            if select.select([self._heard], [], [], min(left, _LONGEST_PAUSE))[0]:
                # An overrun says the same as a message: something has changed.
                with contextlib.suppress(OSError):
                    self._heard.recv(65536)
        return time.monotonic() - begin


def has_default_route(netns: Name, v6: bool = False) -> bool:
    with enter(netns):
        table = Path("/proc/thread-self/net", "ipv6_route" if v6 else "route").read_text().splitlines()
    if v6:
        return any(line.startswith(f"{'0' * 32} 00") and not line.endswith(" lo") for line in table)
    return any(line.split()[1] == "00000000" for line in table[1:])


def await_default_route(netns: Name, v6: bool = False, timeout: float = 5.0) -> float:
    """Seconds until the default route was there."""
    with Changes(netns) as changes:
        return changes.until(lambda: has_default_route(netns, v6), timeout, f"a default route in {netns!r}")


class Heartbeat:
    """A TCP connection to an echo server that never rests: one byte there and back, again and again.

    A context manager; `longest_gap` is the longest time in seconds between two answers.
    """

    def __init__(self, netns: Name | None, address: str, port: int) -> None:
        self.beats = 0
        self.longest_gap = 0.0
        self.failure: Exception | None = None
        self._end = threading.Event()
        self._stream = socket_in(netns, address)
        self._stream.settimeout(_DEAD_AFTER)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream.connect((address, port))
        self.local = self._stream.getsockname()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._stream.close()

    def await_beats(self, count: int) -> None:
        """Until `count` more answers have come."""
        aim = self.beats + count
        while self.beats < aim and self._thread.is_alive():
            self._end.wait(_BEAT_PAUSE)
        if self.failure is not None:
            raise self.failure

    def _beat(self) -> None:
        last = time.monotonic()
        try:
            while not self._end.wait(_BEAT_PAUSE):
                self._stream.sendall(b"x")
                if not self._stream.recv(1):
                    raise ConnectionResetError("the server has closed the connection")
                now = time.monotonic()
                self.longest_gap = max(self.longest_gap, now - last)
                self.beats += 1
                last = now
        except OSError as error:
            self.failure = error
