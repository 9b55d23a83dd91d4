"""The benchmark in its quick form: ratios that must hold on any machine, by twice the margin; no time is judged."""

import pytest

from tests.bench.goals import goals
from tests.bench.report import render
from tests.bench.run import Run
from tests.bench.sizes import QUICK
from tests.bench.verdict import verdicts


@pytest.mark.serial
@pytest.mark.timeout(400)
def test_ratios_hold() -> None:
    results = Run(QUICK, print).measure()
    found = goals(results)
    # Shown by pytest when it fails.
    print(render(results, found))
    assert [verdict.statement for verdict in verdicts(results, found) if not verdict.holds] == []
