"""The log: structured, to stderr; coloured lines for a person, JSON lines for a machine."""

import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal

import structlog

from agent.core.identity import printable

LogFormat = Literal["auto", "console", "json"]

_LEVELS = {"networked": "info", "removed": "info", "repaired": "info", "host-repaired": "info", "failed": "warning"}


def configure(log_format: LogFormat) -> None:
    """Set up structlog; ``auto`` chooses by whether stderr is a terminal."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def on_notice(notice: Mapping[str, Any]) -> None:
    """Log what happened to namespaces and host."""
    level = _LEVELS.get(notice["event"])
    if level is None:
        return
    told = {key: value for key, value in notice.items() if key not in {"time", "event", "seconds", "rule"}}
    if "name" in told:
        told["name"] = printable(told["name"])
    if "seconds" in notice:
        told["ms"] = round(notice["seconds"] * 1000, 3)
    getattr(structlog.get_logger(), level)(notice["event"], **told)
