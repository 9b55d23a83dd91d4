"""What a person sees: tables, durations and names that cannot harm a terminal.

A namespace's name is any file name: it may hold newlines, escape sequences, bidirectional overrides and bytes that
are not UTF-8. Everything from outside passes through `printable` on its way to the terminal.
"""

import sys
from collections.abc import Iterable, Sequence

COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2"}
STATE_COLOURS = {
    "ready": "green",
    "ok": "green",
    "pending": "yellow",
    "warning": "yellow",
    "failed": "red",
    "critical": "red",
    "left": "dim",
    "info": "dim",
}
NAMED_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e", "\\": "\\\\"}
SURROGATE_BYTES = range(0xDC80, 0xDD00)  # what os.fsdecode makes of bytes that are not UTF-8 (PEP 383)


def printable(text: str) -> str:
    """``text`` with all that is not visible escaped, so that two different names never look the same by control bytes.

    Control and format characters, line separators, unassigned code points and stray bytes become backslash escapes;
    a backslash is doubled.
    """
    return "".join(_escaped(character) for character in text)


def harmless(text: str) -> str:
    """`printable` for prose, such as an error's line: a backslash stays as it is."""
    return "".join(character if character == "\\" else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in NAMED_ESCAPES:
        return NAMED_ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code in SURROGATE_BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def width(text: str) -> int:
    """Terminal columns of printable ``text``: wide East Asian characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    import unicodedata

    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table with its columns aligned; cells are escaped here, and the column STATE is coloured."""
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = [cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        lines.append("  ".join(map(_state, head, padded)).rstrip())
    return lines


def _state(column: str, padded: str) -> str:
    colour = STATE_COLOURS.get(padded.rstrip()) if column == "STATE" else None
    return coloured(padded, colour) if colour else padded


def pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of ``key  value``, the values aligned and escaped."""
    found = [(key, printable(value)) for key, value in rows]
    columns = max((len(key) for key, _ in found), default=0)
    return [f"{key:<{columns}}  {value}".rstrip() for key, value in found]


def duration(seconds: float) -> str:
    """``93784`` as ``1 d 2 h``: the two largest units that say something."""
    rest = int(seconds)
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def coloured(text: str, colour: str) -> str:
    """``text`` in ``colour`` if standard output is a terminal that wants it (https://no-color.org)."""
    import os

    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"
