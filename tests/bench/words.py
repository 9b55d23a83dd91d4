"""Figures and tables as text."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from tests.bench.results import p99


def milliseconds(seconds: Iterable[float], digits: int = 2) -> str:
    """Median, and behind it the 99th percentile."""
    values = [each * 1000 for each in seconds]
    return f"{median(values):.{digits}f} ({p99(values):.{digits}f}) ms"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""

    def lines() -> Iterator[str]:
        for cells in (head, ["---"] * len(head), *rows):
            yield "| " + " | ".join(cells) + " |"

    return "\n".join(lines())
