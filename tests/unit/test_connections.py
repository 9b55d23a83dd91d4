"""Connections counted by the kernel, whose counters may begin anew at any time."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.core.connections import Connections
from agent.model import Cookie

WEB = Cookie(7)
# What is added between two looks, None where the kernel's counters began anew.
STORIES = st.lists(st.none() | st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20)


@given(STORIES)
def test_every_connection_is_counted_once_and_none_is_taken_back(story: list[tuple[int, int] | None]) -> None:
    connections = Connections()
    kernel, expected, seen = (0, 0), (0, 0), (0, 0)
    for more in story:
        opened, accepted = more or (0, 0)
        kernel = (0, 0) if more is None else (kernel[0] + opened, kernel[1] + accepted)
        expected = (expected[0] + opened, expected[1] + accepted)
        connections.note(WEB, *kernel)
        seen = connections.counted(WEB)
        assert seen == expected
    assert connections.close(WEB) == seen
    assert connections.counted(WEB) == (0, 0)


def test_the_kernel_s_last_word_counts_at_the_end() -> None:
    connections = Connections()
    connections.note(WEB, 3, 1)
    assert connections.close(WEB, 5, 1) == (5, 1)
    assert connections.close(Cookie(8), 2, 0) == (2, 0), "one that was never looked at"


def test_entries_are_those_of_the_last_refresh() -> None:
    connections = Connections()
    connections.note_flows(Counter({(WEB, "tcp", "established"): 4, (WEB, "udp", "assured"): 2}))
    assert connections.total(WEB) == 6
    connections.note_flows(Counter({(Cookie(8), "tcp", "close"): 1}))
    assert (dict(connections.entries(WEB)), connections.total(WEB)) == ({}, 0)
    assert connections.refreshes == 2
