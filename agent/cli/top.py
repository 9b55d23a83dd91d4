"""``vethd top``: rates, on a terminal as a screen, otherwise one table or JSON line after the other."""

import contextlib
import json
import select
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from agent.cli import render
from agent.cli.client import Client
from agent.cli.exits import DONE
from agent.cli.rates import HEAD, ORDERS, Looks, Rate, cells


def run(client: Client, sort: str, interval: float, *, once: bool, as_json: bool) -> int:
    """Show rates every ``interval`` seconds; on a terminal as a screen, otherwise one table after the other."""
    looks = Looks(client)
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm():
        if as_json or once or not sys.stdout.isatty():
            _print(looks, sort, interval, once=once, as_json=as_json)
        else:
            from agent.cli import screen

            screen.show(looks, sort, interval)
    return DONE


def _print(looks: Looks, sort: str, interval: float, *, once: bool, as_json: bool) -> None:
    due = time.monotonic()
    while True:
        due += interval
        select.select([], [], [], max(due - time.monotonic(), 0))
        rates = sorted(looks.rates(), key=ORDERS[sort])
        print(_json(looks, rates) if as_json else "\n".join(_table(rates)), flush=True)
        if once:
            return
        if not as_json:
            print(flush=True)


def _table(rates: list[Rate]) -> list[str]:
    return render.table(HEAD, map(cells, rates)) if rates else ["no namespace is networked"]


def _json(looks: Looks, rates: list[Rate]) -> str:
    told = [
        {
            "name": rate.name,
            "network": rate.network,
            "device": rate.device,
            "receive_bytes_per_second": round(rate.receive, 3),
            "transmit_bytes_per_second": round(rate.transmit, 3),
            "receive_packets_per_second": round(rate.receive_packets, 3),
            "transmit_packets_per_second": round(rate.transmit_packets, 3),
            "receive_bytes": rate.received,
            "transmit_bytes": rate.transmitted,
            "connections": rate.connections,
        }
        for rate in rates
    ]
    return json.dumps({"time": looks.time, "seconds": round(looks.seconds, 6), "namespaces": told})


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, so that the terminal is put back; further signals come too late to disturb that."""

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in former:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in former:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
