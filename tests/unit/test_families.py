"""What scrapes keep from one to the next is never out of date, whoever comes, goes or is called anew."""

from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client.parser import text_string_to_metric_families

from agent.config import parse
from agent.core.identity import host_end_name, printable
from agent.core.roster import Record
from agent.export.exposition import Renderer
from agent.export.families import NamespaceFamilies
from agent.export.residents import Residents
from agent.model import Attachment, Cookie, Origin, Traffic
from agent.reconciler.watched import Watch
from agent.reconciler.world import World
from tests.unit.worlds import bridge_for, lease_in

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

COOKIES = st.integers(1, 4).map(Cookie)
NAMES = st.sampled_from(["web", "db", 'a"} 1\nevil_metric 1', "100 %d%", "back\\slash", "\udcff", "é"])
FOLDERS = st.sampled_from(["/run/netns", "/run/other"])
COUNTS = st.integers(0, 2**53)
TRAFFIC = st.builds(Traffic, *[COUNTS] * 8)
KINDS = st.sampled_from([("tcp", "established"), ("tcp", "time_wait"), ("udp", "unreplied")])
FIELDS = {
    "receive_bytes": "rx_bytes", "receive_packets": "rx_packets",
    "receive_errs": "rx_errors", "receive_drop": "rx_dropped",
    "transmit_bytes": "tx_bytes", "transmit_packets": "tx_packets",
    "transmit_errs": "tx_errors", "transmit_drop": "tx_dropped",
}  # fmt: skip


class Town:
    """A world that tests fill by hand, and the families of it."""

    def __init__(self) -> None:
        self.world = World(parse({}, None), Cookie(99))
        self.residents = Residents(self.world, Watch(self.world))
        self.families = NamespaceFamilies(self.world)
        self.renderer = Renderer()

    def settle(self, path: str, cookie: Cookie, index: int) -> Record:
        network = self.world.config.networks[0]
        self.world.roster.lead(path, cookie, 0.0)
        record = self.world.roster.get(path)
        assert record is not None
        record.state, record.network = "ready", network.name
        record.attachment = Attachment(cookie, record.name, network, lease_in(network, index), bridge_for(network))
        return record

    def told(self) -> Samples:
        """The samples as a scraper reads them; none of them twice."""
        families = self.families.collect(self.residents.now())
        return _read(b"".join(self.renderer.render(families, openmetrics=False)))


def _read(text: bytes) -> Samples:
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, "told twice"
            samples[key] = sample.value
    return samples


@given(NAMES, TRAFFIC, COUNTS, COUNTS, st.dictionaries(KINDS, COUNTS))
def test_all_is_told_of_a_namespace(
    name: str, traffic: Traffic, opened: int, accepted: int, entries: dict[tuple[str, str], int]
) -> None:
    town, cookie = Town(), Cookie(1)
    record = town.settle(f"/run/netns/{name}", cookie, 2)
    assert town.told() == {}, "nothing was read of it yet"
    town.world.ledger.note(cookie, "default", 7, Traffic(*traffic[4:], *traffic[:4]))
    town.world.connections.note(cookie, opened, accepted)
    town.world.connections.note_flows(Counter({(cookie, *kind): count for kind, count in entries.items()}))
    named = {"netns": printable(name), "network": "default"}
    device = {"device": host_end_name(cookie)}
    expected = [
        *((f"vethd_network_{metric}_total", named | device, getattr(traffic, FIELDS[metric])) for metric in FIELDS),
        ("vethd_conntrack_connections_total", named | {"direction": "opened"}, opened),
        ("vethd_conntrack_connections_total", named | {"direction": "accepted"}, accepted),
        *(
            ("vethd_conntrack_entries", named | {"protocol": protocol, "state": state}, count)
            for (protocol, state), count in entries.items()
        ),
        (
            "vethd_netns_info",
            named | device | {"source": "named", "address": "172.27.0.2", "address6": "fd00:7e74:1::2"},
            1,
        ),
    ]
    assert town.told() == {(metric, frozenset(labels.items())): value for metric, labels, value in expected}
    record.state = "failed"
    assert town.told() == {}


def test_one_name_in_two_directories_is_told_apart() -> None:
    town = Town()
    for number, path in enumerate(("/run/netns/web", "/run/other/web"), 1):
        town.world.ledger.note(Cookie(number), "default", number, Traffic())
        town.settle(path, Cookie(number), number + 1)
    names = {dict(labels)["netns"] for _, labels in town.told()}
    assert names == {"web", "/run/other/web"}
    town.world.roster.leave("/run/netns/web")
    assert {dict(labels)["netns"] for _, labels in town.told()} == {"/run/other/web"}, "its series go on"


class Living(RuleBasedStateMachine):
    """After each change, families that saw all of it tell what those tell that see the world for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.town = Town()
        self.paths: dict[Cookie, str] = {}

    @rule(cookie=COOKIES, folder=FOLDERS, name=NAMES, index=st.integers(2, 5))
    def come(self, cookie: Cookie, folder: str, name: str, index: int) -> None:
        path = f"{folder}/{name}"
        if path not in self.paths.values():
            self.go(cookie)
            self.town.settle(path, cookie, index)
            self.paths[cookie] = path

    @rule(cookie=COOKIES)
    def go(self, cookie: Cookie) -> None:
        path = self.paths.pop(cookie, None)
        if path is not None:
            self.town.world.roster.leave(path)

    @rule(cookie=COOKIES, index=st.integers(2, 5))
    def look_again(self, cookie: Cookie, index: int) -> None:
        """The same name, with an attachment that is equal to the former, or not."""
        if cookie in self.paths:
            self.town.settle(self.paths[cookie], cookie, index)

    @rule(cookie=COOKIES, name=NAMES)
    def rename(self, cookie: Cookie, name: str) -> None:
        """A process may run another program."""
        if cookie in self.paths:
            path = self.paths[cookie]
            self.town.world.roster.enter(path, 0.0, Origin("process", name, path, 1))

    @rule(cookie=COOKIES, traffic=TRAFFIC)
    def carry(self, cookie: Cookie, traffic: Traffic) -> None:
        self.town.world.ledger.note(cookie, "default", cookie, traffic)

    @rule(cookie=COOKIES, opened=COUNTS)
    def connect(self, cookie: Cookie, opened: int) -> None:
        self.town.world.connections.note(cookie, opened, 0)

    @rule(entries=st.dictionaries(st.tuples(COOKIES, KINDS), COUNTS))
    def refresh(self, entries: dict[tuple[Cookie, tuple[str, str]], int]) -> None:
        flows = Counter({(cookie, *kind): count for (cookie, kind), count in entries.items()})
        self.town.world.connections.note_flows(flows)

    @invariant()
    def nothing_is_out_of_date(self) -> None:
        fresh = NamespaceFamilies(self.town.world)
        residents = self.town.residents.now()
        assert self.town.residents.now() is residents
        expected = _read(b"".join(Renderer().render(fresh.collect(residents), openmetrics=False)))
        assert self.town.told() == expected
        told = {dict(labels)["device"]: dict(labels) for name, labels in expected if name == "vethd_netns_info"}
        for cookie, path in self.paths.items():
            labels = told.get(host_end_name(cookie))
            record = self.town.world.roster.get(path)
            assert record is not None
            if labels is not None:
                assert labels["netns"] in {printable(record.name), printable(path)}
                assert record.attachment is not None
                assert labels["address"] == str(record.attachment.lease.address)


TestLiving = Living.TestCase
TestLiving.settings = settings(max_examples=30, stateful_step_count=25)
