"""Making namespaces and acting inside them: by `ip`, `ping` and plain sockets, never by vethd.

Everywhere `netns` is a name in /run/netns (text or bytes), or None for the private host itself.
"""

import contextlib
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agent.demo.isolation import add_named, delete_named, prepare_netns_dir, refuse_initial_namespace
from agent.demo.probe import Heartbeat, Name, await_default_route, enter, listen, socket_in, tcp_ask, tcp_connect

__all__ = [
    "Heartbeat",
    "Lines",
    "Name",
    "add_many",
    "add_netns",
    "await_default_route",
    "del_netns",
    "delete_many",
    "enter",
    "listen",
    "of_process",
    "ping",
    "reaches",
    "reading",
    "socket_in",
    "spawn",
    "tcp_ask",
    "tcp_connect",
    "udp_echo",
]


def add_netns(name: str | bytes) -> None:
    """As a user does it."""
    refuse_initial_namespace()
    subprocess.run(["ip", "netns", "add", name], check=True)


def del_netns(name: str | bytes) -> None:
    refuse_initial_namespace()
    subprocess.run(["ip", "netns", "del", name], check=True)


def add_many(names: list[str]) -> None:
    """As fast as the kernel lets us: some 0.5 ms each."""
    prepare_netns_dir()
    for name in names:
        add_named(name)


def delete_many(names: list[str]) -> None:
    for name in names:
        delete_named(name)


def of_process(pid: int) -> Path:
    """The namespace that a process is in, whether it has a name or not."""
    return Path(f"/proc/{pid}/ns/net")


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """A program left running in the host, silent."""
    refuse_initial_namespace()
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Lines:
    """What a program that goes on running prints, line by line."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output

    def readline(self, timeout: float = 10.0) -> str:
        """The next line; the program is expected to flush each. Fails after `timeout` seconds without any."""
        if not select.select([self._output], [], [], timeout)[0]:
            raise AssertionError(f"no line within {timeout} s")
        return self._output.readline().decode()


@contextlib.contextmanager
def reading(command: list[str]) -> Iterator[Lines]:
    """Run a program in the host for the length of the block, and read what it prints."""
    refuse_initial_namespace()
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        try:
            yield Lines(process.stdout)
        finally:
            process.kill()


def reaches(netns: Name | None, address: str, port: int, timeout: float = 1.0) -> bool:
    try:
        tcp_connect(netns, address, port, timeout)
    except OSError:
        return False
    return True


def udp_echo(netns: Name | None, address: str, port: int = 7, timeout: float = 3.0) -> float:
    """Seconds until one datagram came back."""
    with socket_in(netns, address, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        begin = time.perf_counter()
        sock.sendto(b"vethd", (address, port))
        assert sock.recv(64) == b"vethd"
        return time.perf_counter() - begin


def ping(netns: Name | None, address: str, count: int = 1, timeout: float = 1.0) -> int:
    """How many of `count` echo requests, 0.1 s apart, were answered within `timeout` seconds each."""
    command = ["ping", "-n", "-q", "-i", "0.1", "-c", str(count), "-W", str(timeout), address]
    with enter(netns):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    received = re.search(r"(\d+) received", done.stdout)
    return int(received[1]) if received else 0
