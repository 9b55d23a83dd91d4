"""One name at a time, with a crew that does as it is told: what is told of failures, and that nobody is forgotten."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from agent.config import load
from agent.config.wishes import stamps
from agent.core.identity import ALIAS_PREFIX, host_end_mac, host_end_name
from agent.core.roster import named
from agent.core.steps import Step
from agent.errors import KernelError
from agent.kernel.awaiting import NotYet
from agent.kernel.crew import Crew
from agent.kernel.reaper import Last, Removal
from agent.model import LINK_GROUP, Cookie, Inside, Link, Observed, Origin
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.hearing import Hearing
from agent.reconciler.keys import Keys
from agent.reconciler.names import Names
from agent.reconciler.watched import Watch
from agent.reconciler.wishing import wish_directories
from agent.reconciler.world import World
from tests.unit.worlds import LOOPBACK, bridge_for, link

WEB, DB = "/run/netns/web", "/run/netns/db"
FIRST, SECOND = Cookie(11), Cookie(12)
BUSY = KernelError("delete it", errno.EBUSY)


class StubCrew:
    """Sees what it is given, makes everything right at once, and fails when it is to."""

    def __init__(self) -> None:
        self.seen: dict[str, Observed] = {}
        self.failure: KernelError | None = None
        self.removal_failure: KernelError | None = None
        self.removed: list[str] = []
        self.meanwhile: Callable[[], object] | None = None

    async def settle(
        self,
        origin: Origin,
        expect: object,
        decide: Callable[[Observed], Sequence[Step]],
        finish: Callable[[int], None],
    ) -> Link | None:
        if self.failure is not None and origin.path not in self.seen:
            raise self.failure
        seen = self.seen[origin.path]
        decide(seen)
        if self.meanwhile is not None:
            await self.meanwhile()  # type: ignore[misc]
        if self.failure is not None:
            raise self.failure
        return seen.host_end

    async def remove(self, removal: Removal, meanwhile: Callable[[], object]) -> Last:
        self.removed.append(removal.host_end)
        return Last(None, 0, 0, None, self.removal_failure)

    def leads_to_namespace(self, origin: Origin) -> bool:
        return True


class Place:
    """The names of a world with one network, whose bridge stands."""

    def __init__(self) -> None:
        config = load(None)
        self.world = World(config, Cookie(1))
        self.world.bridges = {network.name: bridge_for(network) for network in config.networks}
        self.world.wish_stamps = stamps(wish_directories(config))
        self.crew = StubCrew()
        self.told: list[str] = []
        bulletin = Bulletin()
        bulletin.listen(lambda notice: self.told.append(notice["event"]))
        self.names = Names(self.world, cast(Crew, self.crew), bulletin, Watch(self.world))

    def see(self, path: str, cookie: Cookie, host_end: Link | None = None) -> None:
        self.crew.seen[path] = Observed(cookie, host_end, Inside((LOOPBACK,)))

    async def network(self, path: str, cookie: Cookie) -> None:
        self.see(path, cookie)
        assert (await self.names.settle(path)).result in {"changed", "unchanged"}
        record = self.world.roster.get(path)
        assert record is not None
        assert record.state == "ready"


@pytest.fixture
def place() -> Place:
    return Place()


async def test_who_is_looked_at_by_another_name_is_not_taken_down(place: Place) -> None:
    await place.network(WEB, FIRST)
    place.see(DB, FIRST)
    outcomes = []

    async def meanwhile() -> None:
        place.world.roster.leave(WEB)
        outcomes.append(await place.names.take_down(FIRST))

    place.crew.meanwhile = meanwhile
    await place.names.settle(DB)
    assert [outcome.result for outcome in outcomes] == ["waiting"]
    assert outcomes[0].retry is not None
    place.crew.meanwhile = None
    assert (await place.names.take_down(FIRST)).look == (DB,)
    assert place.crew.removed == []


async def test_what_cannot_be_taken_down_is_told_once_and_tried_again_ever_later(place: Place) -> None:
    await place.network(WEB, FIRST)
    record = place.world.roster.get(WEB)
    place.world.roster.leave(WEB)
    place.crew.removal_failure = BUSY
    delays = []
    for _ in range(6):
        outcome = await place.names.take_down(FIRST)
        assert outcome.result == "failed"
        assert outcome.retry is not None
        delays.append(outcome.retry)
    assert delays[-1] > 10 * delays[0]
    assert place.told.count("failed") == 1
    assert "EBUSY" in place.world.troubles["removal"]
    assert record is not None
    assert "EBUSY" in record.history[-1].detail
    assert place.world.lease_of(FIRST) is not None, "its address is nobody else's yet"
    place.crew.removal_failure = None
    assert (await place.names.take_down(FIRST)).result == "gone"
    assert place.world.troubles == {}
    assert place.world.lease_of(FIRST) is None


async def test_one_that_has_a_name_again_is_no_trouble(place: Place) -> None:
    await place.network(WEB, FIRST)
    place.world.roster.leave(WEB)
    place.crew.removal_failure = BUSY
    await place.names.take_down(FIRST)
    await place.network(DB, FIRST)
    assert (await place.names.take_down(FIRST)).result == "unchanged"
    assert place.world.troubles == {}


async def test_the_namespace_that_a_name_led_to_before_is_not_forgotten_when_the_next_fails(place: Place) -> None:
    await place.network(WEB, FIRST)
    theirs = link(7, "wlan0", "macvlan")
    lease = place.world.leases["default"].acquire(SECOND, "web")
    ours = link(9, host_end_name(SECOND), mac=host_end_mac(lease), alias=f"{ALIAS_PREFIX}web", group=LINK_GROUP, peer=2)
    place.crew.seen[WEB] = Observed(SECOND, ours, Inside((LOOPBACK, theirs)))
    place.crew.removal_failure = BUSY
    outcome = await place.names.settle(WEB)
    assert (outcome.result, outcome.orphans) == ("failed", (FIRST,))


async def test_a_namespace_that_cannot_be_entered_keeps_what_it_has(place: Place) -> None:
    await place.network(WEB, FIRST)
    del place.crew.seen[WEB]
    place.crew.failure = KernelError("enter /run/netns/web", errno.EMFILE)
    outcome = await place.names.settle(WEB)
    assert (outcome.result, outcome.orphans) == ("failed", ())
    owner = place.world.roster.owner(FIRST)
    assert owner is not None
    assert (owner.path, owner.state) == (WEB, "failed")
    assert "EMFILE" in owner.reason
    assert place.crew.removed == []


async def test_what_the_kernel_is_not_done_with_is_no_failure_for_a_while(place: Place) -> None:
    place.see(WEB, FIRST)
    place.crew.failure = NotYet("wait for the IPv6 address")
    outcome = await place.names.settle(WEB)
    assert (outcome.result, place.told) == ("waiting", [])
    record = place.world.roster.get(WEB)
    assert record is not None
    assert (record.state, "not done yet" in record.reason) == ("pending", True)
    for _ in range(30):
        outcome = await place.names.settle(WEB)
    assert (outcome.result, place.told) == ("failed", ["failed"])


async def test_what_was_not_seen_and_is_there_is_looked_at_again_before_it_is_a_failure(place: Place) -> None:
    place.see(WEB, FIRST)
    place.crew.failure = KernelError("add the default route", errno.EEXIST)
    outcome = await place.names.settle(WEB)
    assert (outcome.result, outcome.look, place.told) == ("waiting", (WEB,), [])
    assert (await place.names.settle(WEB)).result == "failed"


async def test_nothing_is_remembered_of_who_is_taken_down(place: Place) -> None:
    world = place.world
    lease = world.leases["default"].acquire(FIRST, "web")
    end = link(9, host_end_name(FIRST), mac=host_end_mac(lease), alias=f"{ALIAS_PREFIX}web", group=LINK_GROUP, peer=2)
    place.see(WEB, FIRST, replace(end, peer_nsid=77))
    await place.names.settle(WEB)
    assert (world.attached, set(world.inside)) == ({77: FIRST}, {FIRST})
    # As one without a name would be.
    world.admitted[FIRST] = named(WEB)
    world.roster.leave(WEB)
    assert (await place.names.take_down(FIRST)).result == "gone"
    assert (world.attached, world.inside, world.admitted) == ({}, {}, {})
    assert world.lease_of(FIRST) is None


class Marked:
    """Keys that note what is marked."""

    def __init__(self) -> None:
        self.keys: list[object] = []

    def mark(self, key: object, delay: float = 0.0, *, reason: str) -> None:
        self.keys.append(key)


async def test_a_device_that_is_made_anew_is_looked_at_again_when_others_change_it_meanwhile(place: Place) -> None:
    """What the kernel tells of it then comes before the look is over, and never again."""
    marked, unused = Marked(), cast(Any, None)
    hearing = Hearing(place.world, unused, unused, unused, cast(Keys, marked), unused)
    await place.network(WEB, FIRST)
    record = place.world.roster.get(WEB)
    assert record is not None
    record.appeared = -1000.0
    record.ready_since = -1000.0
    place.world.attached[7] = FIRST
    changed = link(index=3, name="eth0", peer=99, mac=b"\x02\0\0\0\0\x77", up=True)
    hearing.check_link(7, changed)
    assert marked.keys == [], "a stranger's"

    async def meanwhile() -> None:
        hearing.check_link(7, changed)

    place.crew.meanwhile = meanwhile
    await place.names.settle(WEB)
    assert marked.keys == [WEB]
