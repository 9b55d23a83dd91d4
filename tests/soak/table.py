"""What was tried, how often, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """``wrong`` counts whatever was lost, left over or not as it should be; ``remark`` says the rest."""

    what: str
    tried: int
    wrong: int
    remark: str = ""


def render(rows: Sequence[Row]) -> str:
    """As a table of Markdown."""
    head = ("what", "how often", "lost, left, wrong", "")
    cells = [head, *((row.what, f"{row.tried:,}", f"{row.wrong:,}", row.remark) for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
