"""Writes vethd.json (a host and all its namespaces) and vethd-namespace.json (one namespace in depth).

Run `python -m dashboards.build` after a change; a test compares the files with what this makes.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards import namespace, overview
from dashboards.panels import SOURCE, AnyPanel
from dashboards.queries import HOST, NAMESPACE_UID, NETWORK

HERE = Path(__file__).parent
TAG = "vethd"
OVERVIEW_UID = "vethd"
Section = tuple[str, Iterator[AnyPanel]]


def variables(*, many: bool) -> Iterator[builders.DatasourceVariable | builders.QueryVariable]:
    """Yield what can be chosen, from wide to narrow."""
    yield builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    for name, label, query in (
        ("instance", "Host", "label_values(vethd_build_info, instance)"),
        ("network", "Network", f"label_values(vethd_namespaces{{{HOST}}}, network)"),
        ("netns", "Namespace", f"label_values(vethd_netns_info{{{NETWORK}}}, netns)"),
    ):
        made = builders.QueryVariable(name).label(label).datasource(SOURCE).query(query)
        made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        yield made.multi(True).include_all(True).all_value(".*") if many or name != "netns" else made.multi(False)


def dashboard(uid: str, title: str, description: str, sections: Iterable[Section], *, many: bool) -> str:
    """Return the JSON text of a dashboard."""
    made = builders.Dashboard(title).uid(uid).description(description).tags([TAG]).editable()
    made.time("now-1h", "now").refresh("30s").tooltip(models.DashboardCursorSync.CROSSHAIR)
    for variable in variables(many=many):
        made.with_variable(variable)
    link = builders.DashboardLink("vethd").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    made.link(link.icon("dashboard").keep_time(True).include_vars(True))
    for heading, panels in sections:
        made.with_row(builders.Row(heading))
        for panel in panels:
            made.with_panel(panel)
    built = made.build()
    for number, item in enumerate(built.panels or [], start=1):
        item.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def overview_json() -> str:
    """Return vethd.json."""
    sections: list[Section] = [
        ("At a glance", overview.glance()),
        ("Traffic", overview.traffic()),
        ("Drops", overview.drops()),
        ("Connections", overview.conntrack()),
        ("Leases and limits", overview.leases()),
        ("Time to plumb", overview.latency()),
        ("Drift", overview.drift()),
        ("The agent", overview.health()),
    ]
    says = "Every namespace of a host that vethd networks: traffic, connections, limits, and the agent itself."
    return dashboard(OVERVIEW_UID, "vethd / Overview", says, sections, many=True)


def namespace_json() -> str:
    """Return vethd-namespace.json."""
    sections: list[Section] = [
        ("Namespace", namespace.glance()),
        ("Traffic", namespace.traffic()),
        ("Connections", namespace.conntrack()),
    ]
    says = "One namespace that vethd networks, in depth."
    return dashboard(NAMESPACE_UID, "vethd / Namespace", says, sections, many=False)


def files() -> dict[Path, str]:
    """Return every file that is generated, and its text."""
    return {HERE / f"{OVERVIEW_UID}.json": overview_json(), HERE / f"{NAMESPACE_UID}.json": namespace_json()}


def main() -> None:
    """Write all files."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
