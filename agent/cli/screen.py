"""The screen of ``vethd top``: a table that fills the terminal, and keys that sort it."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.cli import render
from agent.cli.rates import HEAD, ORDERS, Looks, Rate, cells, size

KEYS = {
    b"u": "use",
    b"r": "receive",
    b"t": "transmit",
    b"p": "packets",
    b"c": "connections",
    b"n": "name",
    b"w": "network",
}
QUIT = b"q"
HELP = "u use  r receive  t transmit  p packets  c conns  n name  w network  q quit"
# Lines above and below the table's rows: the summary, the heading, what is left out, the keys.
AROUND = 4
LEFT_ALIGNED = 2  # names and networks; all else are numbers
# On a terminal of fewer columns than this, the sums at the end of a row are left out: names need the room.
WIDE = 100
SUMS = 2


def show(looks: Looks, sort: str, interval: float) -> None:
    """Until q is pressed. Raises AgentNotRunning, and whatever ends the program, with the terminal put back."""
    console = Console(highlight=False)
    rates: list[Rate] = []
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                rates = looks.rates()
                due = time.monotonic() + interval
            live.update(_screen(rates, sort, console.width, console.height), refresh=True)
            key = pressed(max(due - time.monotonic(), 0))
            if key == QUIT:
                return
            sort = KEYS.get(key, sort)


def _screen(rates: list[Rate], sort: str, width: int, height: int) -> Group:
    room = max(height - AROUND, 1)
    shown = sorted(rates, key=ORDERS[sort])[:room]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, header_style="bold")
    columns = len(HEAD) if width >= WIDE else len(HEAD) - SUMS
    for number, title in enumerate(HEAD[:columns]):
        left = number < LEFT_ALIGNED
        table.add_column(title, justify="left" if left else "right", no_wrap=True, ratio=1 if number == 0 else None)
    for rate in shown:
        # Text, not str: a name may hold what rich takes for markup.
        table.add_row(*(Text(render.printable(cell)) for cell in cells(rate)[:columns]))
    left_out = f"and {len(rates) - len(shown)} more" if len(rates) > len(shown) else ""
    return Group(_summary(rates, sort), table, Text(left_out, style="dim"), Text(HELP, style="dim", no_wrap=True))


def _summary(rates: list[Rate], sort: str) -> Text:
    receive = size(sum(rate.receive for rate in rates))
    transmit = size(sum(rate.transmit for rate in rates))
    return Text(
        f"{time.strftime('%H:%M:%S')}  {len(rates)} namespaces receive {receive}/s, send {transmit}/s; by {sort}",
        style="bold",
        no_wrap=True,
    )


class _Pressed:
    """The next key within some seconds, empty when none came."""

    def __init__(self, descriptor: int | None) -> None:
        self._watched = [] if descriptor is None else [descriptor]

    def __call__(self, seconds: float) -> bytes:
        if not select.select(self._watched, [], [], seconds)[0]:
            return b""
        key = os.read(self._watched[0], 1)
        if not key:
            # The terminal is gone: asking it again would not wait.
            self._watched = []
        return key


@contextlib.contextmanager
def _keys() -> Iterator[_Pressed]:
    """Keys without Enter, unseen; the terminal as it was afterwards."""
    if not sys.stdin.isatty():
        yield _Pressed(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Pressed(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
