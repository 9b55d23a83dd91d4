"""Dashboards and alerts as files: generated, complete, and right by Prometheus' own tool."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dashboards import build
from tests.prometheus.server import CONFIG, DASHBOARDS, ROOT

FILES = sorted(DASHBOARDS.glob("*.json"))
ALERTS = DASHBOARDS / "alerts.yml"


def _promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def _panels(file: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(file.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]


def test_the_json_files_are_what_the_builder_makes() -> None:
    made = build.files()
    assert sorted(made) == FILES
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m dashboards.build`"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_says_what_it_shows_and_in_which_unit(file: Path) -> None:
    for panel in _panels(file):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["targets"], panel["title"]
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["displayMode"] == "table", panel["title"]


def test_panels_fill_the_grid_without_overlap() -> None:
    for file in FILES:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in _rows(place)}
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells


def _rows(place: dict[str, int]) -> range:
    return range(place["y"], place["y"] + place["h"])


def test_the_overview_has_the_variables_rows_and_kinds_of_panel_that_it_should() -> None:
    found = json.loads((DASHBOARDS / "vethd.json").read_text(encoding="utf-8"))
    names = [variable["name"] for variable in found["templating"]["list"]]
    assert names == ["datasource", "instance", "network", "netns"]
    assert {panel["type"] for panel in found["panels"]} == {
        "row",
        "timeseries",
        "bargauge",
        "stat",
        "table",
        "heatmap",
    }


def test_the_dashboards_lead_to_each_other() -> None:
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
    for dashboard in found.values():
        (link,) = dashboard["links"]
        assert set(link["tags"]) <= set(dashboard["tags"])
    assert f"/d/{found['vethd-namespace']['uid']}?" in json.dumps(found["vethd"]["panels"])


def test_promtool_accepts_the_scrape_config_and_its_rules() -> None:
    assert "SUCCESS" in _promtool("check", "config", CONFIG)
    assert "SUCCESS" in _promtool("check", "rules", ALERTS)


def test_every_alert_fires_and_stays_silent_in_a_test() -> None:
    assert "SUCCESS" in _promtool("test", "rules", DASHBOARDS / "alerts_test.yml")
    cases = (DASHBOARDS / "alerts_test.yml").read_text(encoding="utf-8").split("- name:")[1:]
    silent = {_alert(case) for case in cases if "exp_alerts: []" in case}
    fires = {_alert(case) for case in cases if "exp_labels" in case}
    assert silent == fires == _alerts()


def test_every_alert_has_a_section_in_the_readme() -> None:
    headings = {heading.strip() for heading in re.findall(r"^#+ (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)}
    assert _alerts() <= headings
    anchors = re.findall(r"runbook_url: README\.md#(\S+)", ALERTS.read_text(encoding="utf-8"))
    assert sorted(anchors) == sorted(alert.lower() for alert in _alerts())


def _alerts() -> set[str]:
    return set(re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8")))


def _alert(case: str) -> str:
    found = re.search(r"alertname: (\w+)", case)
    assert found is not None, case
    return found[1]
