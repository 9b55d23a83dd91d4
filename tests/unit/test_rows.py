"""The rows of the live page, against lists of everything that ever happened."""

import json
import random

from agent.config import parse
from agent.core.roster import Record
from agent.export.rows import HISTORY, Row, Rows
from agent.model import Attachment, Cookie, Traffic
from agent.reconciler.world import World
from tests.unit.worlds import bridge_for, lease_in

WEB = Cookie(7)
SPARK = 60


def settled(world: World, path: str, cookie: Cookie, index: int = 2) -> Record:
    network = world.config.networks[0]
    world.roster.lead(path, cookie, 0.0)
    record = world.roster.get(path)
    assert record is not None
    record.state, record.network = "ready", network.name
    record.attachment = Attachment(cookie, record.name, network, lease_in(network, index), bridge_for(network))
    return record


def only(rows: Rows) -> Row:
    (row,) = rows
    return row


def test_history_and_sparkline_are_those_of_the_last_samples() -> None:
    chance = random.Random(1)
    world, rows = World(parse({}, None), Cookie(99)), Rows()
    settled(world, "/run/netns/web", WEB)
    carried = Traffic()
    rates: list[tuple[int, int]] = []
    for sample in range(2 * HISTORY + 50):
        # Busy for a while, idle for a while, longer than a sparkline is and than the history is.
        busy = sample < HISTORY // 2 or sample % 150 < 10
        more = (chance.randrange(1, 1000), chance.randrange(1000)) if busy else (0, 0)
        carried = carried._replace(rx_bytes=carried.rx_bytes + more[1], tx_bytes=carried.tx_bytes + more[0])
        world.ledger.note(WEB, "default", 5, carried)
        rows.update(world, 1.0 if sample else 0.0)
        rates.append(more if sample else (0, 0))
        row = only(rows)
        assert (row.receive, row.transmit) == rates[-1]
        assert (row in rows.moved) == (rates[-1] != (rates[-2] if sample else (0, 0)) or not sample)
        last = rates[-HISTORY:]
        assert rows.history(row) == ([rate for rate, _ in last], [rate for _, rate in last])
        sums = [sum(rate) for rate in rates[-SPARK:]]
        assert rows.spark(row) == (sums if any(sums) else [])


def test_a_row_is_put_in_words_again_when_what_it_tells_has_changed() -> None:
    world, rows = World(parse({}, None), Cookie(99)), Rows()
    record = settled(world, "/run/netns/web", WEB)
    world.ledger.note(WEB, "default", 5, Traffic())
    rows.update(world, 0.0)
    assert json.loads(rows.text(world, only(rows)))["address"] == "172.27.0.2/16"
    settled(world, "/run/netns/web", WEB)
    rows.update(world, 1.0)
    assert rows.changed == [], "looked at again, and the same"
    settled(world, "/run/netns/web", WEB, index=3)
    rows.update(world, 1.0)
    assert rows.changed == [only(rows)]
    assert json.loads(rows.text(world, only(rows)))["address"] == "172.27.0.3/16"
    record.state, record.reason = "failed", "two\nlines"
    rows.update(world, 1.0)
    told = json.loads(rows.text(world, only(rows)))
    assert (told["state"], told["reason"]) == ("failed", "two\\x0alines")


def test_a_name_that_leads_elsewhere_has_no_rate_of_two_namespaces() -> None:
    world, rows = World(parse({}, None), Cookie(99)), Rows()
    settled(world, "/run/netns/web", WEB)
    world.ledger.note(WEB, "default", 5, Traffic(tx_bytes=1000))
    rows.update(world, 0.0)
    settled(world, "/run/netns/web", Cookie(8))
    world.ledger.note(Cookie(8), "default", 6, Traffic(tx_bytes=900_000))
    rows.update(world, 1.0)
    assert only(rows).receive == 0
    world.ledger.note(Cookie(8), "default", 6, Traffic(tx_bytes=900_500))
    rows.update(world, 0.5)
    assert only(rows).receive == 1000
    world.roster.leave("/run/netns/web")
    gone = only(rows)
    rows.update(world, 1.0)
    assert rows.gone == [gone.number]
    assert list(rows) == []
    assert rows.find(gone.key) == ("/run/netns/web", None)
