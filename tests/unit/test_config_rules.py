"""The rules of the config: what is taken, in which order, and one line for each thing that is refused."""

import tomllib
from pathlib import Path

import pytest

from agent.config import Config, parse
from agent.errors import ConfigError
from agent.model import Rule

ROOT = Path(__file__).resolve().parents[2]
LAB = '[network.lab]\nsubnet = "10.9.0.0/24"\n[network.default]\n'


def of(text: str) -> Config:
    return parse(tomllib.loads(LAB + text), Path("vethd.toml"))


def test_rules_stand_in_their_order() -> None:
    config = of(
        """
        [[rule]]
        match = { name = "ci-*", container = "" }
        network = "lab"
        [[rule]]
        match = { source = "process", cgroup = "/system.slice/runner@*.service", userns = "any" }
        network = "default"
        [[rule]]
        match = { userns = "initial" }
        leave = true
        """
    )
    assert config.rules == (
        Rule(1, {"name": "ci-*", "container": ""}, any_userns=False, network="lab"),
        Rule(
            2,
            {"source": "process", "cgroup": "/system.slice/runner@*.service"},
            any_userns=True,
            network="default",
        ),
        Rule(3, {}, any_userns=False, network=None),
    )


def test_a_match_can_ask_for_everything_that_is_known() -> None:
    asked = {key: f"{key}-*" for key in ("name", "path", "command", "cgroup", "user", "container")}
    lines = "\n".join(f'{key} = "{pattern}"' for key, pattern in asked.items())
    (rule,) = of(f'[[rule]]\nleave = true\n[rule.match]\nsource = "named"\n{lines}\n').rules
    assert rule.patterns == {"source": "named", **asked}


WRONG = [
    ("rule = 7", "rule: must be a list of tables: [[rule]]"),
    ("rule = [1]", "rule: must be a list of tables: [[rule]]"),
    ("[rule]\nmatch = {}", "rule: must be a list of tables: [[rule]]"),
    ("[[rule]]\nleave = true", "rule 1: match: is missing: must be a table of patterns; {} matches every namespace"),
    ('[[rule]]\nmatch = "ci-*"\nleave = true', "rule 1: match: must be a table"),
    (
        "[[rule]]\nmatch = {}\nleave = true\n[[rule]]\nmatch = { nmae = 'x' }\nleave = true",
        "rule 2: match.nmae: unknown; known here: cgroup, command, container, name, path, source, user, userns",
    ),
    ("[[rule]]\nmatch = { name = 7 }\nleave = true", "rule 1: match.name: 7 is not allowed: must be a shell pattern"),
    (
        "[[rule]]\nmatch = { name = ['a', 'b'] }\nleave = true",
        "rule 1: match.name: ['a', 'b'] is not allowed: must be a shell pattern",
    ),
    (
        "[[rule]]\nmatch = { source = 'proc*' }\nleave = true",
        """rule 1: match.source: 'proc*' is not allowed: must be "named" or "process\"""",
    ),
    (
        "[[rule]]\nmatch = { userns = 'other' }\nleave = true",
        """rule 1: match.userns: 'other' is not allowed: must be "initial" or "any\"""",
    ),
    ("[[rule]]\nmatch = {}", 'rule 1: must have either network = "NAME" or leave = true'),
    (
        "[[rule]]\nmatch = {}\nleave = true\nnetwork = 'lab'",
        'rule 1: must have either network = "NAME" or leave = true',
    ),
    (
        "[[rule]]\nmatch = {}\nleave = false\nnetwork = 'lab'",
        "rule 1: leave: False is not allowed: must be true; a rule that does not leave alone names a network",
    ),
    ("[[rule]]\nmatch = {}\nleave = 1", "rule 1: leave: 1 is not allowed: must be true; a rule that does not leave"),
    (
        "[[rule]]\nmatch = {}\nnetwork = 'ci'",
        "rule 1: network: 'ci' is not allowed: must be a network of this file: lab, default",
    ),
    ("[[rule]]\nmatch = {}\nnetwork = 7", "rule 1: network: 7 is not allowed: must be a network of this file: lab"),
    ("[[rule]]\nmatch = {}\nnetwrok = 'lab'", "rule 1: netwrok: unknown; known here: leave, match, network"),
    ("[[rule]]\nmatch = {}\n'a\\nb' = 1", "rule 1: a\\\\nb: unknown; known here: leave, match, network"),
    ('[[rule]]\nmatch = {}\n"a\\nb" = 1', "rule 1: a\\x0ab: unknown; known here: leave, match, network"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_rules_are_refused_by_number_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        # A `rule` that is no table has to stand before the tables.
        parse(tomllib.loads(text + "\n" + LAB if text.startswith("rule") else LAB + text), Path("vethd.toml"))
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(f"vethd.toml: {message}"), line


def test_the_examples_in_the_file_that_comes_with_vethd_are_rules() -> None:
    shipped = (ROOT / "config" / "vethd.toml").read_text()
    examples = shipped[shipped.index("# [[rule]]") : shipped.index("[metrics]")]
    uncommented = "\n".join(line.removeprefix("# ") for line in examples.splitlines())
    rules = parse(tomllib.loads(uncommented), None).rules
    assert [(rule.network, rule.any_userns) for rule in rules] == [("default", False), ("default", False), (None, True)]
