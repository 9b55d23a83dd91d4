"""Real traffic of many namespaces: datagrams to the internet's echo, which come back."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator, Mapping

from agent.demo import internet
from tests.harness.netns import socket_in

_ROUND_SECONDS = 0.1
_DATAGRAM = 1200
_ECHO = (internet.ADDRESSES[0], internet.ECHO_PORT)


@contextlib.contextmanager
def talking(rates: Mapping[str, int]) -> Iterator[None]:
    """Have each namespace send about so many bytes a second, and hear as many, for the length of the block."""
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket_in(name, _ECHO[0], socket.SOCK_DGRAM)) for name in rates}
        done = threading.Event()
        talker = threading.Thread(target=_talk, args=(sockets, rates, done))
        talker.start()
        stack.callback(talker.join)
        stack.callback(done.set)
        yield


def _talk(sockets: Mapping[str, socket.socket], rates: Mapping[str, int], done: threading.Event) -> None:
    chance = random.Random(1)
    while not done.wait(_ROUND_SECONDS):
        for name, sock in sockets.items():
            left = round(rates[name] * _ROUND_SECONDS * chance.uniform(0.4, 1.6))
            while left > 0:
                with contextlib.suppress(OSError):
                    sock.sendto(bytes(min(left, _DATAGRAM)), _ECHO)
                left -= _DATAGRAM
            with contextlib.suppress(BlockingIOError):
                while sock.recv(2048, socket.MSG_DONTWAIT):
                    pass
