"""Conntrack's table, tallied: every protocol, both families, both directions, and nobody else's entries."""

import socket
import subprocess
from contextlib import ExitStack, closing

import pytest

from agent.demo.private_host import PrivateHost
from agent.kernel.flows import count_flows, read_table
from agent.model import Cookie
from tests.harness import observe

FOUR, SIX = "127.1.0.1", "fd01::1"
WEB = Cookie(7)
HOLDERS = {socket.inet_pton(socket.AF_INET, FOUR): WEB, socket.inet_pton(socket.AF_INET6, SIX): WEB}
TRACK = """
table inet track {
    chain output { type filter hook output priority 0; ct state new accept; }
}
"""


@pytest.fixture
def tracked(private_host: PrivateHost) -> None:
    """A host whose conntrack is at work, with an IPv6 address of its own."""
    observe.run("ip", "address", "add", f"{SIX}/128", "dev", "lo", "nodad")
    subprocess.run(["nft", "-f", "-"], input=TRACK, text=True, check=True)


def _connected(address: str, stack: ExitStack) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = stack.enter_context(closing(socket.create_server((address, 0), family=family)))
    stack.enter_context(closing(socket.create_connection(server.getsockname()[:2])))


def test_every_kind_of_entry_is_told_apart(tracked: None) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            _connected(FOUR, stack)
        _connected(SIX, stack)
        _connected("127.2.0.2", stack)
        sender = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        sender.bind((FOUR, 0))
        for port in range(9001, 9006):
            sender.sendto(b"x", ("127.2.0.2", port))
        observe.run("ping", "-c1", "-q", FOUR)
        observe.run("ping", "-c1", "-q", SIX)
        flows = count_flows(HOLDERS)
    assert dict(flows) == {
        (WEB, "tcp", "established"): 4,
        (WEB, "udp", "unreplied"): 5,
        (WEB, "icmp", "replied"): 1,
        (WEB, "icmpv6", "replied"): 1,
    }


def test_it_agrees_with_the_tool_on_every_tcp_state(tracked: None) -> None:
    with ExitStack() as stack:
        _connected(FOUR, stack)
        with ExitStack() as short:
            for _ in range(4):
                _connected(FOUR, short)
        flows = count_flows(HOLDERS)
        told = [line.split()[3].lower() for line in observe.conntrack_list() if line.startswith("tcp")]
    assert {state: count for (_, protocol, state), count in flows.items() if protocol == "tcp"} == {
        state: told.count(state) for state in set(told)
    }


def test_many_entries_are_all_counted(tracked: None) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.bind((FOUR, 0))
        for port in range(10_000, 13_000):
            sender.sendto(b"x", ("127.2.0.2", port))
    assert count_flows(HOLDERS)[WEB, "udp", "unreplied"] == 3000
    table = read_table()
    assert table.entries >= 3000
    assert table.limit > table.entries
    assert {"drop", "early_drop", "insert_failed", "search_restart"} <= set(table.statistics[0])
