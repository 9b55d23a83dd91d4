"""What is read by a layout that is known is what is read one by one."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.layouts import Reader
from agent.kernel.wire import attribute, attributes

WANTED = (1, 3)
# Few lengths and types, so that layouts come again; some end before their time, or are no attributes at all.
ATTRIBUTES = st.builds(attribute, st.integers(0, 4), st.binary(max_size=9))
ENDS = st.one_of(
    st.just(b""),
    st.binary(max_size=6),
    st.builds(lambda length, kind: struct.pack("=HH", length, kind), st.integers(0, 12), st.integers(0, 4)),
)
PAYLOADS = st.builds(lambda parts, end: b"".join(parts) + end, st.lists(ATTRIBUTES, max_size=5), ENDS)


def plain(payload: bytes, offset: int) -> dict[int, bytes]:
    found = attributes(memoryview(payload), offset)
    return {kind: bytes(value) for kind, value in found.items() if kind in WANTED}


@given(st.lists(st.tuples(PAYLOADS, st.sampled_from([0, 4])), max_size=6))
def test_it_reads_what_is_there(payloads: list[tuple[bytes, int]]) -> None:
    reader = Reader(WANTED)
    for payload, offset in payloads * 2:
        found = reader.read(memoryview(payload), offset)
        assert {kind: bytes(value) for kind, value in found.items()} == plain(payload, offset)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_one_layout_is_not_taken_for_another_of_the_same_length(one: bytes, other: bytes) -> None:
    reader = Reader(WANTED)
    length = min(len(one), len(other))
    for payload in (one[:length], other[:length], one[:length]):
        found = reader.read(memoryview(payload))
        assert {kind: bytes(value) for kind, value in found.items()} == plain(payload, 0)


def test_of_more_layouts_than_there_are_it_keeps_some() -> None:
    reader = Reader(WANTED)
    for length in range(1000):
        payload = attribute(1, bytes(length))
        assert reader.read(memoryview(payload)).keys() == {1}
    assert len(reader._layouts) <= 256


def test_of_a_type_that_comes_twice_the_last_one_stays() -> None:
    payload = attribute(1, b"a") + attribute(1 | 0x8000, b"b")
    assert bytes(Reader(WANTED).read(memoryview(payload))[1]) == b"b"
