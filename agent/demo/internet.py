"""The far side of the uplink: real servers, run as a process of their own by `PrivateHost`.

Uses nothing but the standard library and imports nothing of vethd, so that it is up in some
40 ms. It serves in the network namespace it was started in, until its standard input closes.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

ADDRESSES = ("198.51.100.1", "2001:db8:1::1", "192.0.2.1", "2001:db8:2::1")
ECHO_PORT = 7
WHOAMI_PORT = 8
READY = b"ready\n"

_PR_SET_PDEATHSIG = 1
_BACKLOG = 4096


def _listen(address: str, kind: socket.SocketKind, port: int) -> socket.socket:
    """Bound per address, not to the wildcard: a UDP answer must leave from the address asked."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


class Servers:
    """TCP and UDP echo, and a TCP service that answers with the address it sees its client as."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._serve(sys.stdin.fileno(), self._leave)
        for address in ADDRESSES:
            tcp = _listen(address, socket.SOCK_STREAM, ECHO_PORT)
            udp = _listen(address, socket.SOCK_DGRAM, ECHO_PORT)
            who = _listen(address, socket.SOCK_STREAM, WHOAMI_PORT)
            self._serve(tcp, partial(self._accept_echo, tcp))
            self._serve(udp, partial(self._echo_datagram, udp))
            self._serve(who, partial(self._tell_source, who))

    def run(self) -> None:
        while True:
            for key, _events in self._selector.select():
                # A client that goes away is no reason for the others to lose their server.
                with contextlib.suppress(OSError):
                    key.data()

    def _serve(self, what: int | socket.socket, handle: Callable[[], None]) -> None:
        self._selector.register(what, selectors.EVENT_READ, handle)

    def _leave(self) -> None:
        if not os.read(sys.stdin.fileno(), 1):
            raise SystemExit(0)

    def _accept_echo(self, listener: socket.socket) -> None:
        client, _address = listener.accept()
        # An echo may block for a slow reader: none of the clients here is one.
        client.settimeout(1.0)
        self._serve(client, partial(self._echo, client))

    def _echo(self, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
            client.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(client)
            client.close()

    def _echo_datagram(self, udp: socket.socket) -> None:
        data, sender = udp.recvfrom(65535)
        udp.sendto(data, sender)

    def _tell_source(self, listener: socket.socket) -> None:
        client, address = listener.accept()
        with client:
            client.sendall(str(address[0]).encode())


def main() -> None:
    # Should the parent be killed, its end of the pipe closes too; this is for the case that
    # some other process still holds that end.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    servers = Servers()
    os.write(sys.stdout.fileno(), READY)
    servers.run()


if __name__ == "__main__":
    main()
