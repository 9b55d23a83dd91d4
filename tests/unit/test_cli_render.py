"""Nothing that a namespace may be called reaches the terminal as anything but visible text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import render

HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\n\r\t\x1b\x00\x7f\x9b\\\u202e\u2028\ufeff"),
        st.integers(0xDC80, 0xDCFF).map(chr),
    ),
    max_size=30,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web", "web"),
        ("a\nb", "a\\nb"),
        ("a\\nb", "a\\\\nb"),
        ("\x1b[31mred", "\\e[31mred"),
        ("\x9b31m", "\\x9b31m"),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), "\\xff\\xfe"),
        ("\u202eevil", "\\u202eevil"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\U000e0041tag", "\\U000e0041tag"),
        ("na\u00efve \u7db2", "na\u00efve \u7db2"),
        (" sp ace", " sp ace"),
    ],
)
def test_names_are_shown_as_visible_text(name: str, shown: str) -> None:
    assert render.printable(name) == shown


@given(HOSTILE)
def test_no_control_character_survives(name: str) -> None:
    for shown in (render.printable(name), render.harmless(name)):
        assert shown.isprintable()
        assert not any(unicodedata.category(character).startswith("C") for character in shown)
        shown.encode("utf-8")


@given(HOSTILE, HOSTILE)
def test_two_names_never_look_the_same(one: str, other: str) -> None:
    assert (one == other) == (render.printable(one) == render.printable(other))


def test_prose_keeps_its_backslashes() -> None:
    assert render.harmless("pattern 'a\\*'\x1b[2J") == "pattern 'a\\*'\\e[2J"


@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=5))
def test_a_table_is_one_line_a_row_with_aligned_columns(rows: list[tuple[str, str]]) -> None:
    lines = render.table(("NAME", "WHY"), rows)
    assert len(lines) == len(rows) + 1
    first = max(4, *(render.width(render.printable(name)) for name, _ in rows)) if rows else 4
    for line, (name, why) in zip(lines[1:], rows, strict=True):
        cell = render.printable(name)
        padding = " " * (first - render.width(cell) + 2)
        assert line == (cell + padding + render.printable(why)).rstrip()


def test_wide_characters_take_two_columns() -> None:
    assert render.width("ab") == 2
    assert render.width("\u7db2\u8def") == 4
    assert render.width("e\u0301") == 1
    assert render.table(("A", "B"), [("\u7db2", "x")]) == ["A   B", "\u7db2  x"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (93784, "1 d 2 h"), (86400 + 5, "1 d 5 s")],
)
def test_durations_say_the_two_largest_units(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


def test_a_pipe_gets_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render.coloured("ready", "green") == "ready"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert render.coloured("ready", "green") == "\x1b[32mready\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert render.coloured("ready", "green") == "ready"
