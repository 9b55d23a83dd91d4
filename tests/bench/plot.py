"""The picture: how long a namespace takes to be usable, by how many are there already. SVG, written by hand."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from tests.bench.contenders import Vethd
from tests.bench.results import Results, p99

_WIDTH, _HEIGHT = 900, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 280, 44, 52
# Told apart by everybody (Okabe and Ito), on white and on black.
_COLOURS = ("#0072b2", "#999999", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_LABEL_GAP = 16


@dataclass(frozen=True, slots=True)
class _Point:
    """How many are there, and milliseconds."""

    there: int
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class _Line:
    title: str
    colour: str
    points: tuple[_Point, ...]


class _Scale:
    """A logarithmic axis from one power of ten to another."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._begin + share * (self._end - self._begin)

    @property
    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]


def draw(results: Results) -> str:
    """An SVG; lines are medians, what stands on them reaches up to the 99th percentile. Something was measured."""
    lines = [line for line in _lines(results) if line.points]
    points = [point for line in lines for point in line.points]
    across = _Scale([point.there for point in points], _LEFT, _WIDTH - _RIGHT)
    up = _Scale([value for point in points for value in (point.middle, point.high)], _HEIGHT - _BOTTOM, _TOP)
    body = [*_axes(across, up), *(piece for line in lines for piece in _draw(line, across, up)), *_labels(lines, up)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="13">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _lines(results: Results) -> Iterator[_Line]:
    colours = iter(_COLOURS)
    levels = results.growth.levels
    yield _Line(Vethd.title, next(colours), tuple(_point(level.vethd.there, level.vethd.usable) for level in levels))
    floor = [_point(level.vethd.there, [trial.usable for trial in level.floor]) for level in levels if level.floor]
    if floor:
        yield _Line("raw netlink in C", next(colours), tuple(floor))
    for session in results.sessions:
        for title in dict.fromkeys(measured.contender for measured in session if measured.contender != Vethd.title):
            own = [measured for measured in session if measured.contender == title]
            points = tuple(_point(measured.there, measured.usable) for measured in own)
            yield _Line(title, next(colours), points)


def _point(there: int, seconds: Sequence[float]) -> _Point:
    return _Point(there, median(seconds) * 1000, p99(seconds) * 1000)


def _axes(across: _Scale, up: _Scale) -> Iterator[str]:
    left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    yield _text(left, 24, "From a namespace's appearance to usable, ms: median, and up to the 99th percentile")
    yield _text((left + right) / 2, _HEIGHT - 10, "namespaces there already", anchor="middle")
    for value in up.ticks:
        yield f'<path d="M{left} {up(value):.1f}H{right}" stroke="#dddddd"/>'
        yield _text(left - 8, up(value) + 4, f"{value:g}", anchor="end")
    for value in across.ticks:
        yield f'<path d="M{across(value):.1f} {bottom}v5" stroke="#666666"/>'
        yield _text(across(value), bottom + 20, f"{value:,.0f}", anchor="middle")


def _draw(line: _Line, across: _Scale, up: _Scale) -> Iterator[str]:
    path = "L".join(f"{across(point.there):.1f} {up(point.middle):.1f}" for point in line.points)
    yield f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>'
    for point in line.points:
        x, y = across(point.there), up(point.middle)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{line.colour}"/>'
        yield f'<path d="M{x:.1f} {y:.1f}V{up(point.high):.1f}" stroke="{line.colour}" stroke-opacity="0.5"/>'


def _labels(lines: Sequence[_Line], up: _Scale) -> Iterator[str]:
    """To the right, at the height of each line's end, but never one upon the other."""
    free = -math.inf
    for line in sorted(lines, key=lambda line: up(line.points[-1].middle)):
        free = max(free + _LABEL_GAP, up(line.points[-1].middle) + 4)
        told = f"{line.title}: {line.points[-1].middle:.3g} ms at {line.points[-1].there:,}"
        yield _text(_WIDTH - _RIGHT + 12, free, told, colour=line.colour)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
