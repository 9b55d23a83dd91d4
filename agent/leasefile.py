"""Which name had which address, kept on disk, so a name gets its address again after a reboot.

Losing the file loses nothing else: what is held is read from the kernel.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_VERSION: Final = 1

Memory = Mapping[str, Mapping[str, int]]
"""Network name to namespace name to index in the subnet."""


class LeaseFile:
    """The file ``leases.json`` in the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "leases.json"

    def read(self) -> tuple[Memory, str]:
        """Return what was written and a remark, empty when all is well.

        A file that cannot be understood is set aside as ``leases.json.damaged``.
        """
        try:
            return _parse(json.loads(self._path.read_text())), ""
        except FileNotFoundError:
            return {}, ""
        except OSError as error:
            return {}, f"{self._path}: cannot be read ({error.strerror}): former addresses are not remembered"
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}, self._set_aside()

    def write(self, memory: Memory) -> None:
        """Replace the file in one step, readable by its owner alone. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"version": _VERSION, "networks": memory}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def _set_aside(self) -> str:
        damaged = self._path.with_suffix(".json.damaged")
        try:
            self._path.replace(damaged)
        except OSError as error:
            return f"{self._path}: is damaged and cannot be set aside ({error.strerror})"
        return f"{self._path}: is damaged, set aside as {damaged}: former addresses are not remembered"


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
