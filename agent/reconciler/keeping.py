"""What outlives the agent, written to disk after something changed, and read at the next start."""

import asyncio
from typing import Final

import structlog

from agent.core.ledger import Books
from agent.reconciler.bulletin import Notice
from agent.reconciler.world import Part, World
from agent.state.leases import LeaseFile, Memory
from agent.state.traffic import TrafficFile

_PART: Final[Part] = "state"
_SETTLE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 5.0
_REST_FACTOR: Final = 20

_log = structlog.get_logger()


class Keeper:
    """Keeps which name had which address, and what namespaces carried; both may be lost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lease_file = LeaseFile(world.config.state_dir)
        self._traffic_file = TrafficFile(world.config.state_dir)
        self._changed = asyncio.Event()

    def recall(self) -> None:
        """Have the world remember what was kept."""
        memory, lease_remark = self._lease_file.read()
        self._world.remember(memory)
        books, traffic_remark = self._traffic_file.read()
        self._world.ledger.recall(books)
        for remark in (lease_remark, traffic_remark):
            if remark:
                _log.warning("state not recalled", reason=remark)

    def on_notice(self, notice: Notice) -> None:
        """Listen to the bulletin."""
        if notice["event"] in {"networked", "removed", "adopted", "repaired"}:
            self._changed.set()

    async def run(self) -> None:
        """Keep it until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            began = loop.time()
            trouble = await asyncio.to_thread(self._write, self._world.memory(), self._world.ledger.books())
            self._note(trouble)
            # All of it is written each time: of thousands that come and go without end, less often.
            await asyncio.sleep(_REST_FACTOR * (loop.time() - began))
            if trouble:
                # Nothing may change until there is room again.
                loop.call_later(_RETRY_SECONDS, self._changed.set)

    def keep(self) -> None:
        """Write it for the last time."""
        self._note(self._write(self._world.memory(), self._world.ledger.books()))

    def _write(self, memory: Memory, books: Books) -> str:
        """Write both files; return what is in the way, empty when nothing is."""
        try:
            self._lease_file.write(memory)
            self._traffic_file.write(books)
        except OSError as error:
            return f"state is not kept: {error.filename or self._world.config.state_dir}: {error.strerror}"
        return ""

    def _note(self, trouble: str) -> None:
        troubles = self._world.troubles
        former = troubles.pop(_PART, "")
        if trouble:
            troubles[_PART] = trouble
        if trouble and trouble != former:
            _log.warning("state not kept", reason=trouble)
        elif former and not trouble:
            _log.info("state kept again")
