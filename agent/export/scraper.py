"""One scrape from the question to the bytes; many at once share one reading and one text."""

import asyncio
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from agent.export.families import Lines, in_words
from agent.export.metrics import Metrics
from agent.export.residents import Resident
from agent.export.sampler import Sampler
from agent.export.turns import Turns

_OPENMETRICS: Final = "application/openmetrics-text"
_OPENMETRICS_VERSION: Final = "1.0.0"
_CONTENT_TYPES: Final = {False: CONTENT_TYPE_PLAIN_0_0_4, True: CONTENT_TYPE_LATEST}
_GZIP: Final = "gzip"
# The fastest level: the others take up to twice as long for a few per cent.
_GZIP_LEVEL: Final = 1
_GZIP_WINDOW: Final = 31
_NEVER: Final = re.compile(r"0(\.0*)?")


class Scraper:
    """Renders the metrics for whoever asks, without stopping the loop for more than some milliseconds."""

    def __init__(self, sampler: Sampler, metrics: Metrics) -> None:
        self._sampler = sampler
        self._metrics = metrics
        self._turns = {
            (openmetrics, compressed): Turns(partial(self._render, openmetrics, compressed))
            for openmetrics in (False, True)
            for compressed in (False, True)
        }

    async def scrape(self, accept: str, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
        """Return the text as these headers of a request ask for it, and the answer's headers. Raises KernelError."""
        openmetrics, compressed = _wants_openmetrics(accept), _takes_gzip(accept_encoding)
        headers = {"Content-Type": _CONTENT_TYPES[openmetrics]}
        if compressed:
            headers["Content-Encoding"] = _GZIP
        return await self._turns[openmetrics, compressed].take(), headers

    async def _render(self, openmetrics: bool, compressed: bool) -> bytes:
        await self._sampler.sample()
        agent = self._metrics.render(openmetrics)
        # With thousands of namespaces, either half takes a millisecond or more: others may go first.
        await asyncio.sleep(0)
        residents = self._sampler.residents.now()
        if strangers := self._metrics.families.strangers(residents):
            self._metrics.families.introduce(await asyncio.to_thread(_put_in_words, strangers))
            residents = self._sampler.residents.now()
        text = b"".join([agent, *self._metrics.render_namespaces(openmetrics, residents)])
        return await asyncio.to_thread(zlib.compress, text, _GZIP_LEVEL, _GZIP_WINDOW) if compressed else text


def _put_in_words(residents: Sequence[Resident]) -> dict[Resident, Lines]:
    return {each: in_words(each) for each in residents}


def _wants_openmetrics(accept: str) -> bool:
    """Tell whether OpenMetrics 1.0, or any, is among what may be sent."""
    return any(
        kind == _OPENMETRICS and parameters.get("version", _OPENMETRICS_VERSION) == _OPENMETRICS_VERSION
        for kind, parameters in _listed(accept)
    )


def _takes_gzip(accept_encoding: str) -> bool:
    return any(
        coding == _GZIP and not _NEVER.fullmatch(parameters.get("q", "1"))
        for coding, parameters in _listed(accept_encoding)
    )


def _listed(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what a header lists, with parameters (RFC 9110, 5.6.6 and 12.4.2)."""
    for entry in header.lower().split(","):
        value, *parameters = (part.strip() for part in entry.split(";"))
        yield value, {name: setting for name, _, setting in (each.partition("=") for each in parameters)}
