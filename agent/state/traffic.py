"""What namespaces carried before the agent was restarted, kept on disk until the next boot.

The kernel keeps a device's counters itself; only what a device that was made anew had carried
before, and the sums of namespaces that are gone, would be lost.
"""

from pathlib import Path
from typing import Final

from agent.core.ledger import Account, Books
from agent.model import Cookie, Traffic
from agent.state import files

_VERSION: Final = 1
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class TrafficFile:
    """The file ``traffic.json`` in the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "traffic.json"
        self._boot = _BOOT.read_text().strip()

    def read(self) -> tuple[Books, str]:
        """Return what was written in this boot and a remark, empty when all is well."""
        return files.read(self._path, self._parse, Books({}, {}))

    def write(self, books: Books) -> None:
        """Replace the file. Raises OSError."""
        accounts = {
            str(cookie): [each.network, each.device, each.carried, each.last] for cookie, each in books.accounts.items()
        }
        closed = dict(books.closed)
        files.write(self._path, {"version": _VERSION, "boot": self._boot, "accounts": accounts, "closed": closed})

    def _parse(self, document: object) -> Books:
        if not isinstance(document, dict) or document["version"] != _VERSION:
            raise ValueError
        if document["boot"] != self._boot:
            return Books({}, {})
        return Books(
            {
                Cookie(int(cookie)): Account(_text(network), _count(device), _traffic(carried), _traffic(last))
                for cookie, (network, device, carried, last) in document["accounts"].items()
            },
            {_text(network): _traffic(sums) for network, sums in document["closed"].items()},
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def _traffic(counters: object) -> Traffic:
    if not isinstance(counters, list):
        raise TypeError
    return Traffic(*(_count(counter) for counter in counters))
