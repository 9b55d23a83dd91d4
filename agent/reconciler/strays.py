"""Attachments whose namespaces have no name any more: left by an agent that died, or by something that went wrong."""

from agent.model import Cookie
from agent.reconciler.world import World


class Strays:
    """Finds them, once all names have been looked at."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._knows_all = False
        self.is_due = False
        """Whether to look for them as soon as no look is under way: what is being made has no name yet."""

    def find(self) -> list[Cookie]:
        """Return all that are known; all names must have been looked at once."""
        self._knows_all = True
        self.is_due = False
        world = self._world
        if world.config.mode == "observe":
            return []
        return [cookie for cookie in {*world.holding(), *world.strays} if world.roster.owner(cookie) is None]

    def find_due(self) -> list[Cookie]:
        """Return them if it is time to; to be asked while no look is under way."""
        return self.find() if self.is_due and self._knows_all else []
