"""What goes wrong with a request: a stranger's mistake is not told, one of vethd is."""

import structlog
from aiohttp.http_exceptions import BadStatusLine

from agent.export import requestlog


def told(error: Exception) -> list[str]:
    with structlog.testing.capture_logs() as entries:
        requestlog.of_requests().error("Error handling request", exc_info=error)
    return [entry["event"] for entry in entries]


def test_only_mistakes_of_ours_are_told_and_once() -> None:
    assert told(BadStatusLine("x")) == []
    assert told(KeyError("x")) == ["a mistake of vethd"]
    assert told(KeyError("x")) == ["a mistake of vethd"], "also when it is set up again"
