"""A thousand names through every door by which a name gets out: it is told whole, and as text."""

import io
import json
import os
import re

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from structlog.typing import Processor

from agent.cli import render
from agent.core.identity import alias_of, printable
from agent.export import log
from agent.export.exposition import labels, line
from agent.export.rows import shown

# What terminals, shells, parsers and people take for something else, and all other bytes.
TEMPTING = [
    b"\x1b[31m", b"\x1b]0;t\x07", b"\x9b", b"\xc2\x9b", b"\n", b"\r", b"\x08", b"\x7f", b"\\", b"\\x1b", b'"', b"'",
    b"{", b"}", b",", b"=", b"%s", b"%n", b"$(id)", b"`id`", b"-", b"--", b"..", b" ", b"\t", b"\xff", b"\xc3",
    b"\xed\xa0\x80", b"\xc0\x80", "\u202e".encode(), "\u200b".encode(), "\u2028".encode(), "\ufeff".encode(),
    "\u0435".encode(), "e\u0301".encode(), "\U000e0041".encode(), b"[red]", b"<b>", b"&lt;", b"#",
]  # fmt: skip
RAW = st.lists(st.sampled_from(TEMPTING) | st.binary(max_size=4), min_size=1, max_size=12).map(b"".join)
NAMES = RAW.map(lambda raw: raw.replace(b"\0", b"").replace(b"/", b"")[:255]).filter(
    lambda raw: raw not in (b"", b".", b"..")
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def logged(renderer: Processor, name: str) -> str:
    sink = io.StringIO()
    structlog.configure(processors=[renderer], logger_factory=structlog.WriteLoggerFactory(sink))
    try:
        log.on_notice({"event": "networked", "name": name, "network": "default"})
    finally:
        structlog.reset_defaults()
    return sink.getvalue()


@settings(max_examples=1000)
@given(NAMES)
def test_whatever_it_is_it_comes_out_as_text(raw: bytes) -> None:
    name = os.fsdecode(raw)
    text = printable(name)
    assert text.isprintable()
    assert alias_of(name).isprintable()
    assert shown(name).isprintable()
    (_, row) = render.table(("NAME", "STATE"), [(name, "ready")])
    assert row.isprintable()
    sample = line("vethd_netns_info", "gauge", labels(netns=text)) % 1
    ((metric,),) = [family.samples for family in text_string_to_metric_families(sample.decode())]
    assert metric.labels == {"netns": text}
    told = logged(structlog.processors.JSONRenderer(), name)
    assert json.loads(told)["name"] == text
    assert told.removesuffix("\n").isprintable()
    assert COLOUR.sub("", logged(structlog.dev.ConsoleRenderer(), name)).removesuffix("\n").isprintable()
