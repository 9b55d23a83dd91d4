"""Having the kernel say no to a running agent: by the file that its environment names (agent/kernel/faults.py)."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.kernel.faults import REFUSE
from agent.kernel.rtnetlink import RTM_GETLINK

FOR_EVER = 1_000_000
_serials = itertools.count()


class Refusals:
    """The faults of one agent, which must be started with `environment`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "faults.json"
        self._struck = directory / "faults.json.struck"
        self._draft = directory / "faults.new"
        self.environment = {REFUSE: str(self._path)}

    def begin(self, code: str, *, call: str = "netlink", skip: int = 0, count: int = FOR_EVER, holds: str = "") -> None:
        """From now on `count` calls fail with `code`, after `skip` that do not; those that hold `holds`, if given."""
        self._struck.unlink(missing_ok=True)
        fault = {"call": call, "code": code, "skip": skip, "count": count, "holds": holds, "serial": next(_serials)}
        if code == "ENODEV":
            # To the question for a device this is an answer, and no refusal.
            fault["spares"] = RTM_GETLINK
        # In one step, as the agent may read it at any time.
        self._draft.write_text(json.dumps([fault]))
        self._draft.replace(self._path)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)

    def struck(self) -> int:
        """How many calls have failed since the last `begin`."""
        return len(self._struck.read_text().splitlines()) if self._struck.exists() else 0

    @contextmanager
    def during(self, code: str, *, call: str = "netlink", holds: str = "") -> Iterator[None]:
        self.begin(code, call=call, holds=holds)
        try:
            yield
        finally:
            self.end()
