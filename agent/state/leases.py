"""Which name had which address, kept on disk, so a name gets its address again after a reboot.

Losing the file loses nothing else: what is held is read from the kernel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.state import files

_VERSION: Final = 1

Memory = Mapping[str, Mapping[str, int]]
"""Network name to namespace name to index in the subnet."""


class LeaseFile:
    """The file ``leases.json`` in the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "leases.json"

    def read(self) -> tuple[Memory, str]:
        """Return what was written and a remark, empty when all is well."""
        return files.read(self._path, _parse, {})

    def write(self, memory: Memory) -> None:
        """Replace the file. Raises OSError."""
        files.write(self._path, {"version": _VERSION, "networks": memory})


def _parse(document: object) -> dict[str, dict[str, int]]:
    if not isinstance(document, dict) or document["version"] != _VERSION:
        raise ValueError
    memory: dict[str, dict[str, int]] = {}
    for network, names in document["networks"].items():
        memory[network] = {}
        for name, index in names.items():
            if isinstance(index, bool) or not isinstance(index, int):
                raise TypeError
            memory[network][name] = index
    return memory
