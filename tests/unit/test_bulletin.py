"""Telling what happened: everyone hears all, and who does not read stops nobody."""

import asyncio

import pytest

from agent.reconciler.bulletin import Bulletin, Notice


async def test_listeners_hear_at_once_and_in_order() -> None:
    bulletin = Bulletin()
    heard: list[Notice] = []
    bulletin.listen(heard.append)
    bulletin.publish("networked", name="web", seconds=0.002)
    bulletin.publish("removed", name="web")
    assert [(notice["event"], notice["name"]) for notice in heard] == [("networked", "web"), ("removed", "web")]
    assert heard[0]["seconds"] == 0.002
    assert isinstance(heard[0]["time"], float)


async def test_subscribers_hear_what_comes_while_they_listen() -> None:
    bulletin = Bulletin()
    bulletin.publish("before")
    with bulletin.subscribe() as first, bulletin.subscribe() as second:
        bulletin.publish("meanwhile")
        assert (await first.get())["event"] == (await second.get())["event"] == "meanwhile"
    bulletin.publish("after")
    assert first.empty()


async def test_who_waits_is_woken() -> None:
    bulletin = Bulletin()
    with bulletin.subscribe() as queue:
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        bulletin.publish("networked")
        assert (await waiting)["event"] == "networked"


async def test_who_does_not_read_loses_the_oldest_and_hinders_nobody() -> None:
    bulletin = Bulletin()
    with bulletin.subscribe() as idle, bulletin.subscribe() as quick:
        for number in range(10_005):
            bulletin.publish("networked", number=number)
            assert quick.get_nowait()["number"] == number
        assert idle.qsize() == 10_000
        assert idle.get_nowait()["number"] == 5


async def test_a_subscription_ends_with_its_block_however_that_ends() -> None:
    bulletin = Bulletin()
    subscription = bulletin.subscribe()
    with pytest.raises(ConnectionResetError), subscription as queue:
        await _break()
    bulletin.publish("networked")
    assert queue.empty()


async def _break() -> None:
    raise ConnectionResetError
