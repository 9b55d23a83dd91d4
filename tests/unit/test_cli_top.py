"""``vethd top``: rates from two looks, their order, and what it prints."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import rates, top
from agent.cli.client import Client
from agent.cli.main import build_parser, main
from agent.cli.screen import KEYS

NAME = b"\x1b]0;x\x07\xff\n[red]".decode("utf-8", "surrogateescape")


def carried(name: str, receive: int = 0, transmit: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "network": "default",
        "device": f"vh{name}",
        "receive_bytes": receive,
        "transmit_bytes": transmit,
        "receive_packets": receive // 100,
        "transmit_packets": transmit // 100,
        "connections": 0,
    } | more


class Answers(Client):
    """Answers each question with the next of some looks, and refuses when there is none left."""

    def __init__(self, *looks: list[dict[str, Any]], seconds: float = 2.0) -> None:
        super().__init__("nowhere")
        self._looks: Iterator[tuple[int, list[dict[str, Any]]]] = enumerate(looks)
        self._seconds = seconds

    def get(self, url: str) -> dict[str, Any]:
        assert url == "/v1/traffic"
        number, namespaces = next(self._looks)
        return {"time": 1000.0 + number * self._seconds, "namespaces": namespaces}


def told(*looks: list[dict[str, Any]]) -> list[rates.Rate]:
    return rates.Looks(Answers(*looks)).rates()


def test_a_rate_is_what_was_carried_between_two_looks() -> None:
    (rate,) = told([carried("web", 1000, 500)], [carried("web", 5000, 700, connections=7)])
    assert (rate.receive, rate.transmit, rate.receive_packets, rate.transmit_packets) == (2000, 100, 20, 1)
    assert (rate.received, rate.transmitted, rate.connections) == (5000, 700, 7)


def test_one_that_is_new_has_carried_all_of_it_since() -> None:
    assert [rate.receive for rate in told([], [carried("web", 400)])] == [200]


def test_one_that_came_back_under_its_name_begins_at_0() -> None:
    (rate,) = told([carried("web", 9000)], [carried("web", 400, device="vhother")])
    assert rate.receive == 200


def test_counters_that_went_back_are_no_negative_rate() -> None:
    assert [rate.receive for rate in told([carried("web", 9000)], [carried("web", 400)])] == [0]


def test_one_that_is_gone_is_not_shown() -> None:
    assert told([carried("web")], []) == []


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("use", "b"),
        ("receive", "a"),
        ("transmit", "b"),
        ("packets", "b"),
        ("connections", "c"),
        ("name", "a"),
        ("network", "c"),
    ],
)
def test_sorts(sort: str, first: str) -> None:
    found = told(
        [],
        [
            carried("a", 5000, 0, network="x"),
            carried("b", 1000, 9000, network="y", connections=1),
            carried("c", connections=3),
        ],
    )
    assert min(found, key=rates.ORDERS[sort]).name == first


def test_every_order_can_be_asked_for_and_has_a_key() -> None:
    assert set(KEYS.values()) == set(rates.ORDERS)
    for sort in rates.ORDERS:
        assert build_parser().parse_args(["top", "--sort", sort]).sort == sort


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (999.7, "1.0 kB"), (1234567, "1.2 MB"), (123456789, "123 MB"), (10**18, "1000 PB")],
)
def test_sizes(count: float, shown: str) -> None:
    assert rates.size(count) == shown


def test_once_prints_one_escaped_table(capsys: pytest.CaptureFixture[str]) -> None:
    client = Answers([carried(NAME)], [carried(NAME, 2_000_000)])
    assert top.run(client, "use", 0.0, once=True, as_json=False) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "NAME"
    assert line.isprintable()
    assert line.startswith("\\e]0;x\\x07\\xff\\n[red]  default  1.0 MB/s")


def test_once_without_any_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert top.run(Answers([], []), "use", 0.0, once=True, as_json=False) == 0
    assert capsys.readouterr().out == "no namespace is networked\n"


def test_json_is_one_ascii_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert top.run(Answers([], [carried(NAME, 400)]), "use", 0.0, once=True, as_json=True) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    found = json.loads(out)
    assert (found["time"], found["seconds"]) == (1002.0, 2.0)
    assert found["namespaces"][0] == {
        "name": NAME,
        "network": "default",
        "device": f"vh{NAME}",
        "receive_bytes_per_second": 200.0,
        "transmit_bytes_per_second": 0.0,
        "receive_packets_per_second": 2.0,
        "transmit_packets_per_second": 0.0,
        "receive_bytes": 400,
        "transmit_bytes": 0,
        "connections": 0,
    }


@pytest.mark.parametrize("line", [["--interval", "0"], ["--interval", "x"], ["--sort", "beauty"]])
def test_bad_usage(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["top", *line])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--once"], ["--json"]])
def test_without_an_agent_it_is_one_line_and_4(more: list[str], tmp_path: Path) -> None:
    config = tmp_path / "vethd.toml"
    config.write_text(f'[agent]\nsocket = "{tmp_path / "nobody"}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "agent", "top", *more],
        env=os.environ | {"VETHD_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert "the agent is not running" in done.stderr
