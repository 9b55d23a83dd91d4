"""A browser that looks at the page of an agent."""

from collections.abc import Iterator

import pytest

from agent.demo.private_host import PrivateHost
from tests.page.browser import Browser, browsing


@pytest.fixture
def browser(private_host: PrivateHost) -> Iterator[Browser]:
    """A window as wide as a desk's, on no page yet. `private_host`: what it starts lives there."""
    with browsing() as window:
        window.resize(1280, 900)
        yield window
