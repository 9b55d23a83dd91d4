"""Where sources say what to look at."""

from typing import Protocol

from agent.model import Cookie, Link, Origin


class Sink(Protocol):
    """What a source may say. Every call is cheap and may be repeated or come too late.

    ``nsid`` is the number by which the host knows a namespace, None for the host's own.
    """

    def look(self, path: str) -> None:
        """Look at a name: it appeared, went, or leads elsewhere now."""

    def placeholder(self, path: str) -> None:
        """A name is there that is no namespace yet."""

    def process_appeared(self, origin: Origin) -> None:
        """A process is in a namespace; or another process stands for one, or a process is known better."""

    def process_gone(self, path: str) -> None:
        """A process that stood for a namespace is gone: look whether that lives on."""

    def known_paths(self) -> set[str]:
        """Return the names that are known, so that a listing can tell which are gone."""

    def look_attachment(self, cookie: Cookie) -> None:
        """Look at the attachment of a namespace: its host end changed."""

    def host_end_gone(self, cookie: Cookie, link: Link) -> None:
        """A namespace's host end is gone; ``link`` is how it was, but what it received is told no more."""

    def look_inside(self, nsid: int) -> None:
        """Look at a namespace: something changed inside."""

    def look_host(self, culprit: str) -> None:
        """Look at the host's side; ``culprit`` tells who changed the ruleset, or is empty."""

    def look_host_device(self, index: int) -> None:
        """Look at the host's side if this device (ifindex) is a bridge of ours or the uplink."""

    def check_link(self, nsid: int | None, link: Link) -> None:
        """A device is now like this: look at its namespace if it should be otherwise."""

    def neighbour_gone(self, nsid: int | None, index: int, address: bytes) -> None:
        """A neighbour entry of a device (ifindex) is gone: look if it is one of ours."""

    def heard(self, source: str, events: int) -> None:
        """So many events of a source were taken."""

    def dropped(self, source: str) -> None:
        """Events of a source were lost: look at everything."""
