"""What aiohttp tells of requests: a stranger's bad request is no trouble of ours, and fills no log."""

import logging

import structlog
from aiohttp.http_exceptions import HttpProcessingError


def of_requests() -> logging.Logger:
    """Return what aiohttp is to tell its troubles."""
    logger = logging.getLogger("vethd.requests")
    logger.propagate = False
    logger.handlers = [_Mistakes(logging.WARNING)]
    return logger


class _Mistakes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            structlog.get_logger().error("a mistake of vethd", message=record.getMessage(), exc_info=error)
