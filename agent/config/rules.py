"""``[[rule]]``: which namespaces go to which network, and which are left alone."""

from collections.abc import Sequence
from typing import Final

from agent.config import values
from agent.config.table import Table
from agent.model import Rule

_PATTERNS: Final = ("name", "path", "command", "cgroup", "user", "container")


def rules(top: Table, networks: Sequence[str]) -> tuple[Rule, ...]:
    """Take the rules in their order; ``networks`` are the names that they may use. Raises ConfigError."""
    return tuple(_rule(table, number, networks) for number, table in enumerate(top.rows("rule"), 1))


def _rule(table: Table, number: int, networks: Sequence[str]) -> Rule:
    if "match" not in table:
        # A rule for everything should be one on purpose, not by a lost line.
        raise table.error("match", "is missing: must be a table of patterns; {} matches every namespace")
    match = table.table("match")
    source = match.take("source", _source, None, '"named" or "process"')
    patterns = {key: match.take(key, _pattern, None, "a shell pattern") for key in _PATTERNS}
    userns = match.take("userns", _userns, "initial", '"initial" or "any"')
    match.refuse_the_rest()
    network = table.take("network", values.text, None, _allowed(networks))
    leave = table.take("leave", _true, False, "true; a rule that does not leave alone names a network")
    table.refuse_the_rest()
    if (network is not None) == leave:
        raise table.error("", 'must have either network = "NAME" or leave = true')
    if network is not None and network not in networks:
        raise table.error("network", f"{network!r} is not allowed: must be {_allowed(networks)}")
    said = {"source": source, **patterns}
    return Rule(
        number, {key: pattern for key, pattern in said.items() if pattern is not None}, userns == "any", network
    )


def _allowed(networks: Sequence[str]) -> str:
    return f"a network of this file: {', '.join(networks)}"


def _source(value: object) -> str:
    if value not in ("named", "process"):
        raise ValueError
    return str(value)


def _pattern(value: object) -> str:
    # An empty one matches what is not there: container = "" is a namespace outside all containers.
    if not isinstance(value, str):
        raise TypeError
    return value


def _userns(value: object) -> str:
    if value not in ("initial", "any"):
        raise ValueError
    return str(value)


def _true(value: object) -> bool:
    if value is not True:
        raise ValueError
    return True
