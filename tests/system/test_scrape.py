"""A scrape in every format that may be asked for, and by whom it is compressed."""

import contextlib
import gzip
import http.client

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.conftest import StartAgent
from tests.harness import netns
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import eventually

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
EVERYWHERE = "0.0.0.0:9853"
UPLINK = "192.0.2.2:9853"
# What differs from one scrape to the next by itself.
MOVING = ("process_", "vethd_loop_lag", "vethd_events", "vethd_reconcile", "vethd_last_resync")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def web(start_agent: StartAgent) -> Agent:
    """An agent that listens everywhere, with a namespace of an odd name."""
    agent = start_agent({"metrics": {"listen": EVERYWHERE}})
    netns.add_netns('we"b\n{100%}')
    agent.wait_ready('we"b\n{100%}')
    return agent


def get(where: str, **headers: str) -> tuple[http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(where, timeout=10)
    with contextlib.closing(connection):
        connection.request(
            "GET", "/metrics", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return response.headers, body


def samples(families: list[Metric]) -> Samples:
    found: Samples = {}
    for family in families:
        assert family.documentation, family.name
        for sample in family.samples:
            if not sample.name.startswith(MOVING):
                key = sample.name, frozenset(sample.labels.items())
                assert key not in found, "told twice"
                found[key] = sample.value
    return found


def test_both_formats_tell_the_same(web: Agent) -> None:
    def told() -> tuple[Samples, Samples]:
        headers, body = get(METRICS, Accept=PROMETHEUS)
        assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert body.endswith(b"\n# EOF\n")
        openmetrics = samples([*read_openmetrics(body.decode())])  # type: ignore[no-untyped-call]
        headers, body = get(METRICS)
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return openmetrics, samples([*read_text(body.decode())])

    openmetrics, text = told()
    assert openmetrics.keys() == text.keys()
    assert 'we"b\\x0a{100%}' in {dict(labels).get("netns") for _, labels in text}
    # The kernel itself sends a little on a new device.
    eventually(lambda: len(set(map(_frozen, told()))) == 1, 5, "values are the same, too")


def _frozen(found: Samples) -> frozenset[object]:
    return frozenset(found.items())


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "text/html",
        "application/openmetrics-text;version=0.0.1",
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=",
        ";,;=,version",
        "x" * 4000,
    ],
)
def test_text_is_what_others_get(web: Agent, accept: str) -> None:
    headers, body = get(METRICS, Accept=accept)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in body


def test_compressed_for_those_who_ask_from_elsewhere(web: Agent) -> None:
    _, plain = get(UPLINK)
    headers, body = get(UPLINK, Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert samples([*read_text(gzip.decompress(body).decode())]).keys() == samples([*read_text(plain.decode())]).keys()
    assert len(body) < len(plain) / 3
    for where, asked in ((METRICS, "gzip"), (UPLINK, "identity"), (UPLINK, "gzip;q=0")):
        headers, body = get(where, Accept_Encoding=asked)
        assert "Content-Encoding" not in headers, where
        assert body.startswith(b"# HELP")
