"""The ground of the kernel tests: the host's side of a network, made by the agent's own kernel layer."""

import contextlib
from collections.abc import Iterator

import pytest

from agent.demo.private_host import PrivateHost
from tests.kernel.ground import Ground


@pytest.fixture
def ground(private_host: PrivateHost) -> Iterator[Ground]:
    with contextlib.closing(Ground()) as made:
        yield made
