"""Where sources say what to look at."""

from typing import Protocol

from agent.model import Cookie


class Sink(Protocol):
    """What a source may say. Every call is cheap and may be repeated or come too late."""

    def look(self, path: str) -> None:
        """Look at a name: it appeared, went, or leads elsewhere now."""

    def placeholder(self, path: str) -> None:
        """A name is there that is no namespace yet."""

    def known_paths(self) -> set[str]:
        """Return the names that are known, so that a listing can tell which are gone."""

    def look_attachment(self, cookie: Cookie) -> None:
        """Look at the attachment of a namespace: its host end changed."""

    def look_inside(self, nsid: int) -> None:
        """Look at the namespace that the host knows by this nsid: something changed inside."""

    def look_host(self, culprit: str) -> None:
        """Look at the host's side; ``culprit`` tells who changed it, or is empty."""

    def is_host_device(self, name: str, index: int) -> bool:
        """Tell whether a device is a bridge of ours or the uplink."""

    def dropped(self, source: str) -> None:
        """Events of a source were lost: look at everything."""
