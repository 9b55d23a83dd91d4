"""How panels of vethd look: one function for each kind, all with a title, a description and a unit.

Units are Grafana's: bps, pps, s, percentunit, short and so on.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_shapes
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef("prometheus", "${datasource}")
GREEN, YELLOW, RED = "green", "yellow", "red"
WHOLE, HALF, THIRD, SIXTH = 24, 12, 8, 4
_HEIGHT = 8

AnyPanel = Builder[models.Panel]
_Panel = TypeVar("_Panel", timeseries.Panel, stat.Panel, bargauge.Panel, heatmap.Panel, table.Panel)
Limits = tuple[float, float]  # from here on yellow, from here on red


class Query(NamedTuple):
    """PromQL, and what a series of it is called: text with ``{{label}}``."""

    expr: str
    legend: str = "__auto"


class Column(NamedTuple):
    """One column of numbers in a table by labels."""

    title: str
    expr: str
    unit: str


def curves(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = HALF,
    stacked: bool = False,
    limits: Limits | None = None,
) -> AnyPanel:
    """Curves over time, with a legend table of last, mean and highest values."""
    panel = timeseries.Panel().min(0).line_width(1).fill_opacity(30 if stacked else 8)
    panel.show_points(shapes.VisibilityMode.NEVER)
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.TABLE).show_legend(True)
    panel.legend(
        legend.placement(shapes.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "mean", "max"])
        .sort_by("Max")
        .sort_desc(True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if limits:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED))
    return _styled(panel, title, description, unit, span, limits, [_range(query) for query in queries])


def figure(title: str, description: str, unit: str, expr: str, limits: Limits | None = None) -> AnyPanel:
    """One number, coloured by its limits, over a curve of how it came to be."""
    panel = stat.Panel().graph_mode(shapes.BigValueGraphMode.AREA).color_mode(shapes.BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).no_value("0")
    return _styled(panel, title, description, unit, SIXTH, limits, [_range(Query(expr))]).height(4)


def bars(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    span: int = HALF,
    limits: Limits | None = None,
    full: float | None = None,
) -> AnyPanel:
    """One bar for each series as it is now; ``full`` is where a bar ends."""
    panel = bargauge.Panel().display_mode(shapes.BarGaugeDisplayMode.GRADIENT).min(0)
    panel.orientation(shapes.VizOrientation.HORIZONTAL)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if full is not None:
        panel.max(full)
    return _styled(panel, title, description, unit, span, limits, [_instant(query)])


def buckets(title: str, description: str, unit: str, expr: str) -> AnyPanel:
    """A histogram over time; ``expr`` has the label ``le``."""
    query = prometheus.Dataquery().expr(expr).range().legend_format("{{le}}").format(PromQueryFormat.HEATMAP)
    panel = heatmap.Panel().calculate(False).hide_legend().show_tooltip()
    panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(shapes.AxisPlacement.LEFT))
    colours = heatmap.HeatmapColorOptions().mode(heatmap_shapes.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel.color(colours).cell_gap(1)
    return _styled(panel, title, description, unit, HALF, None, [query])


def rows(
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    labels: Mapping[str, str],
    sort_by: str,
    link: tuple[str, str, str] | None = None,
) -> AnyPanel:
    """One line for each series: ``labels`` (label to heading) first, then ``columns``.

    ``link`` is (heading of the column, what it says, URL).
    """
    panel = table.Panel().show_header(True)
    panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    names = {f"Value #{_letter(number)}": column.title for number, column in enumerate(columns)}
    order = {name: number for number, name in enumerate([*labels, *names])}
    panel.with_transformation(models.DataTransformerConfig("merge", options={}))
    options = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": dict(labels) | names}
    panel.with_transformation(models.DataTransformerConfig("organize", options=options))
    for column in columns:
        panel.override_by_name(column.title, [models.DynamicConfigValue("unit", column.unit)])
    if link:
        heading, says, url = link
        panel.override_by_name(heading, [models.DynamicConfigValue("links", [{"title": says, "url": url}])])
    queries = [_instant(Query(column.expr)).format(PromQueryFormat.TABLE) for column in columns]
    return _styled(panel, title, description, "short", WHOLE, None, queries)


def facts(title: str, description: str, expr: str, labels: Mapping[str, str]) -> AnyPanel:
    """The labels of an info metric (label to heading), one line for each series."""
    panel = table.Panel().show_header(True)
    options = {"include": {"names": list(labels)}}
    panel.with_transformation(models.DataTransformerConfig("filterFieldsByName", options=options))
    panel.with_transformation(models.DataTransformerConfig("organize", options={"renameByName": dict(labels)}))
    query = _instant(Query(expr)).format(PromQueryFormat.TABLE)
    return _styled(panel, title, description, "short", WHOLE, None, [query]).height(4)


def _styled(
    panel: _Panel,
    title: str,
    description: str,
    unit: str,
    span: int,
    limits: Limits | None,
    queries: Sequence[prometheus.Dataquery],
) -> _Panel:
    targets: list[Builder[Dataquery]] = [query.ref_id(_letter(number)) for number, query in enumerate(queries)]
    steps = [models.Threshold(None, GREEN)]
    if limits:
        steps += [models.Threshold(value, colour) for value, colour in zip(limits, (YELLOW, RED), strict=True)]
    panel.title(title).description(description).datasource(SOURCE).unit(unit).span(span).height(_HEIGHT)
    return panel.targets(targets).thresholds(
        builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    )


def _range(query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).range().legend_format(query.legend)


def _instant(query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).instant().legend_format(query.legend)


def _letter(number: int) -> str:
    return chr(ord("A") + number)
