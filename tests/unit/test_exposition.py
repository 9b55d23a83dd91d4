"""The hand-written samples mean what prometheus_client's own would: both are read by its parsers."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.registry import Collector

from agent.core.identity import printable
from agent.export.exposition import Family, Kind, Renderer, labels, line

LABELS = ("netns", "network")
VALUES = st.text(max_size=20).map(printable) | st.sampled_from(
    ['a"} 1\nevil_metric 1', "\\", '"', "<script>", "\udcff\udcfe", "\x1b[31m", "é", "100 %d%"]
).map(printable)
# Prometheus holds values as floats, which are exact to here.
SAMPLES = st.dictionaries(st.tuples(VALUES, VALUES), st.integers(0, 2**53), max_size=5)
NAMES = st.sampled_from(["vethd_network_receive_bytes", "vethd_conntrack_entries"])

Meaning = dict[str, tuple[str, str, dict[frozenset[tuple[str, str]], float]]]


class _Reference(Collector):
    def __init__(self, name: str, kind: Kind, samples: dict[tuple[str, str], int]) -> None:
        family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        self._metric: Metric = family(name, "What it tells.", labels=LABELS)
        for values, value in samples.items():
            self._metric.add_metric(values, value)

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def _meaning(families: Iterable[Metric]) -> Meaning:
    return {
        family.name: (
            family.type,
            family.documentation,
            {frozenset(sample.labels.items()): sample.value for sample in family.samples},
        )
        for family in families
    }


def _family(name: str, kind: Kind, samples: dict[tuple[str, str], int]) -> Family:
    lines = (line(name, kind, labels(netns=netns), labels(network=network)) for netns, network in samples)
    return Family(name, "What it tells.", kind, b"".join(lines), tuple(samples.values()))


def _text(family: Family, openmetrics: bool) -> str:
    return b"".join(Renderer().render([family], openmetrics)).decode()


@given(NAMES, st.sampled_from(["counter", "gauge"]), SAMPLES)
def test_both_renderings_mean_the_same(name: str, kind: Kind, samples: dict[tuple[str, str], int]) -> None:
    registry = CollectorRegistry()
    registry.register(_Reference(name, kind, samples))
    ours = _family(name, kind, samples)
    text = _text(ours, openmetrics=False)
    assert _meaning(read_text(text)) == _meaning(read_text(generate_latest(registry).decode()))
    reference = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    text = _text(ours, openmetrics=True) + "# EOF\n"
    assert _meaning(read_openmetrics(text)) == _meaning(read_openmetrics(reference))  # type: ignore[no-untyped-call]


def test_a_hostile_name_stays_one_value_of_one_sample() -> None:
    hostile = 'a"} 1\nevil_metric 1'
    lines = line("vethd_netns_info", "gauge", labels(netns=hostile))
    (found,) = read_text(_text(Family("vethd_netns_info", "Who.", "gauge", lines, (1,)), openmetrics=False))
    assert [(sample.labels, sample.value) for sample in found.samples] == [({"netns": hostile}, 1.0)]


LINES = [b"".join(line("vethd_some", "gauge", labels(netns=netns)) for netns in pair) for pair in ("ab", "ab", "cd")]
STEPS = st.tuples(st.sampled_from(LINES), st.tuples(st.integers(0, 2), st.integers(0, 2)), st.booleans())


@given(st.lists(STEPS, max_size=8))
def test_text_that_was_kept_is_never_out_of_date(steps: list[tuple[bytes, tuple[int, int], bool]]) -> None:
    renderer = Renderer()
    for lines, values, openmetrics_ in steps:
        family = Family("vethd_some", "What it tells.", "gauge", lines, values)
        assert b"".join(renderer.render([family], openmetrics_)).decode() == _text(family, openmetrics_)
