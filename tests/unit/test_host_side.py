"""The host's side, with a crew that does as it is told: what is out of date by the time it is taken in."""

from typing import cast

import pytest

from agent.config import load
from agent.core.hostplan import HostSeen
from agent.core.identity import alias_of, host_end_mac, host_end_name
from agent.kernel.crew import Crew
from agent.kernel.reaper import Last, Removal
from agent.model import LINK_GROUP, Cookie, Link
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.host import HostSide
from agent.reconciler.removals import Removals
from agent.reconciler.world import World
from tests.unit.worlds import lease_in, link

WEB, DB = Cookie(11), Cookie(12)


class StubCrew:
    """Lists the devices; while it does so, whoever is doomed is taken down."""

    def __init__(self, world: World) -> None:
        self._removals = Removals(world, cast(Crew, self), Bulletin())
        (self._network,) = world.config.networks
        self.doomed: list[Cookie] = []
        self.generations: list[int | None] = []
        self.loads = 0

    async def host_links(self) -> list[Link]:
        listed = [self._host_end(cookie, index) for index, cookie in enumerate((WEB, DB), 2)]
        for cookie in self.doomed:
            await self._removals.withdraw(cookie, None)
        return listed

    def _host_end(self, cookie: Cookie, index: int) -> Link:
        mac = host_end_mac(lease_in(self._network, index))
        return link(index, host_end_name(cookie), mac=mac, alias=alias_of(f"n{index}"), group=LINK_GROUP)

    async def remove(self, removal: Removal, meanwhile: object) -> Last:
        return Last(None, 0, 0)

    async def observe_host(self, networks: object) -> HostSeen:
        return HostSeen({}, frozenset(), frozenset(), {}, None)

    async def apply_host(self, plan: object) -> None:
        pass

    async def load_rules(self, *_: object) -> None:
        self.loads += 1

    async def rules_generation(self) -> int | None:
        return self.generations.pop(0)

    async def forget_untranslated(self, *_: object) -> int:
        return 0

    async def rules_loaded(self) -> bool:
        return True

    async def tracked_connections(self) -> None:
        return None


async def test_what_is_taken_down_while_the_devices_are_listed_is_not_taken_for_there() -> None:
    world = World(load(None), Cookie(1))
    crew = StubCrew(world)
    host = HostSide(world, cast(Crew, crew), Bulletin())
    await host.settle()
    assert set(world.holding()) == world.strays == {WEB, DB}
    host.adopts, crew.doomed = True, [WEB]
    await host.settle()
    assert set(world.holding()) == world.strays == {DB}


@pytest.mark.parametrize(
    ("generations", "loads"),
    [
        pytest.param([7, 8], 1, id="ours alone"),
        pytest.param([7, 9], 2, id="somebody changed rules, perhaps ours, while nobody listened"),
        pytest.param([None], 1, id="a kernel that cannot say"),
    ],
)
async def test_rules_that_somebody_changed_before_anybody_listened_are_loaded_again(
    generations: list[int | None], loads: int
) -> None:
    world = World(load(None), Cookie(1))
    crew = StubCrew(world)
    crew.generations = generations
    loaded_by_then: list[int] = []
    await HostSide(world, cast(Crew, crew), Bulletin()).begin(lambda: loaded_by_then.append(crew.loads))
    assert crew.loads == loads
    assert loaded_by_then == [1], "with listeners the kernel writes a message for each element"
