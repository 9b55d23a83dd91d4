"""What was carried outlives the agent, not the boot, and nothing that stands in the file can hurt."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.ledger import Account, Books
from agent.model import Cookie, Traffic
from agent.state.traffic import TrafficFile

TRAFFIC = st.builds(Traffic, *[st.integers(0, 2**64)] * 8)
BOOKS = st.builds(
    Books,
    st.dictionaries(
        st.integers(0, 2**64 - 1).map(Cookie),
        st.builds(Account, st.text(max_size=5), st.integers(0, 2**31), TRAFFIC, TRAFFIC),
        max_size=3,
    ),
    st.dictionaries(st.text(max_size=5), TRAFFIC, max_size=2),
)
SOME = Books({Cookie(7): Account("default", 9, Traffic(rx_bytes=1), Traffic(tx_bytes=2))}, {"default": Traffic(3)})


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(books=BOOKS)
def test_what_was_written_is_read(tmp_path: Path, books: Books) -> None:
    TrafficFile(tmp_path).write(books)
    assert TrafficFile(tmp_path).read() == (books, "")


def test_no_file_is_no_traffic_and_no_fault(tmp_path: Path) -> None:
    assert TrafficFile(tmp_path).read() == (Books({}, {}), "")


def test_counters_of_another_boot_are_another_kernel_s(tmp_path: Path) -> None:
    TrafficFile(tmp_path).write(SOME)
    path = tmp_path / "traffic.json"
    path.write_text(json.dumps(document(path) | {"boot": "5f0c"}))
    assert TrafficFile(tmp_path).read() == (Books({}, {}), "")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"accounts": []},
        {"accounts": {"x": ["default", 9, [0] * 8, [0] * 8]}},
        {"accounts": {"7": ["default", 9, [0] * 8]}},
        {"accounts": {"7": 5}},
        {"accounts": {"7": [5, 9, [0] * 8, [0] * 8]}},
        {"accounts": {"7": ["default", -1, [0] * 8, [0] * 8]}},
        {"accounts": {"7": ["default", 9, [0] * 9, [0] * 8]}},
        {"accounts": {"7": ["default", 9, [0.5] * 8, [0] * 8]}},
        {"closed": {"default": "12345678"}},
        {"closed": {"default": [True] * 8}},
        {"closed": {"default": [-1] * 8}},
        {"closed": None},
    ],
)
def test_what_makes_no_sense_is_set_aside(tmp_path: Path, change: dict[str, Any]) -> None:
    TrafficFile(tmp_path).write(SOME)
    path = tmp_path / "traffic.json"
    path.write_text(json.dumps(document(path) | change))
    assert TrafficFile(tmp_path).read() == (Books({}, {}), f"{path}: is damaged, set aside as {path}.damaged")
    assert TrafficFile(tmp_path).read() == (Books({}, {}), "")
