"""How others have something looked at."""

from typing import Protocol

from agent.model import Cookie

Key = str | Cookie
"""A path: look at what the name leads to. A cookie: take down what nobody names."""


class Keys(Protocol):
    """The dirty keys. Marking one that is marked already is no error: the earliest time counts."""

    def mark(self, key: Key, delay: float = 0.0, *, reason: str) -> None:
        """Have a key looked at in ``delay`` seconds."""

    def mark_host(self, delay: float) -> None:
        """Have the host's side looked at in ``delay`` seconds."""

    def resync(self) -> None:
        """Have everything looked at."""
