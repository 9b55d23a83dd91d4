"""Traffic of namespaces: from their own side, and never backwards."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.ledger import Ledger, mirrored, total
from agent.model import Cookie, Traffic

TRAFFIC = st.builds(Traffic, *[st.integers(0, 2**64 - 1)] * 8)
COOKIES = st.integers(1, 3).map(Cookie)
NETWORKS = st.sampled_from(["default", "lab"])
FIELDS = Traffic._fields


def is_no_less(one: Traffic, other: Traffic) -> bool:
    return all(getattr(one, name) >= getattr(other, name) for name in FIELDS)


@given(TRAFFIC)
def test_what_the_host_end_sent_the_namespace_received(traffic: Traffic) -> None:
    seen = mirrored(traffic)
    assert (seen.rx_bytes, seen.tx_bytes) == (traffic.tx_bytes, traffic.rx_bytes)
    assert (seen.rx_dropped, seen.tx_errors) == (traffic.tx_dropped, traffic.rx_errors)
    assert mirrored(seen) == traffic


@given(st.lists(TRAFFIC, max_size=4))
def test_total_adds_every_counter(parts: list[Traffic]) -> None:
    for name in FIELDS:
        assert getattr(total(parts), name) == sum(getattr(part, name) for part in parts)


def test_a_namespace_s_counters_go_on_when_its_device_is_made_anew() -> None:
    ledger = Ledger()
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=100))
    ledger.note(Cookie(1), "default", 9, Traffic(tx_bytes=7))
    carried = ledger.carried(Cookie(1))
    assert carried is not None
    assert carried.rx_bytes == 107


def test_what_is_gone_counts_in_its_network() -> None:
    ledger = Ledger()
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=100))
    ledger.note_last(Cookie(1), "default", Traffic(tx_bytes=120, rx_bytes=5))
    closed = ledger.close(Cookie(1))
    assert (closed.rx_bytes, closed.tx_bytes) == (120, 5)
    assert ledger.carried(Cookie(1)) is None
    assert dict(ledger.totals())["default"] == closed
    assert ledger.close(Cookie(1)) == Traffic()


def test_a_last_sample_without_the_peer_s_half_takes_nothing_back() -> None:
    # A veth's receive counters are kept by its peer: once that is gone they read 0.
    ledger = Ledger()
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=100, rx_bytes=50))
    ledger.note_last(Cookie(1), "default", Traffic(tx_bytes=110, rx_bytes=0))
    closed = ledger.close(Cookie(1))
    assert (closed.rx_bytes, closed.tx_bytes) == (110, 50)


def test_what_others_counted_fills_in_what_the_last_samples_lack() -> None:
    ledger = Ledger()
    ledger.note(Cookie(1), "default", 8, Traffic(rx_bytes=50, rx_packets=1))
    ledger.note(Cookie(1), "default", 9, Traffic(rx_bytes=7, rx_packets=1))
    # Of both devices.
    ledger.note_sent(Cookie(1), 5, 200)
    ledger.note_gone(Cookie(1), 9, Traffic(tx_bytes=30, tx_packets=3))
    closed = ledger.close(Cookie(1))
    assert (closed.tx_packets, closed.tx_bytes) == (5, 200)
    assert (closed.rx_packets, closed.rx_bytes) == (3, 30)


def test_what_others_counted_less_of_takes_nothing_back() -> None:
    ledger = Ledger()
    ledger.note(Cookie(1), "default", 8, Traffic(rx_bytes=50, rx_packets=1))
    ledger.note_sent(Cookie(1), 5, 20)
    closed = ledger.close(Cookie(1))
    assert (closed.tx_packets, closed.tx_bytes) == (5, 50)


def test_what_is_told_of_another_device_or_nobody_is_no_ones() -> None:
    ledger = Ledger()
    ledger.note_gone(Cookie(1), 8, Traffic(tx_bytes=30))
    ledger.note_sent(Cookie(1), 1, 1)
    assert ledger.carried(Cookie(1)) is None
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=1))
    ledger.note_gone(Cookie(1), 7, Traffic(tx_bytes=30))
    assert ledger.close(Cookie(1)) == Traffic(rx_bytes=1)


def test_a_sample_that_was_taken_earlier_and_comes_later_takes_nothing_back() -> None:
    ledger = Ledger()
    ledger.note_all({8: Traffic(tx_bytes=1)})
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=100))
    ledger.note_all({8: Traffic(tx_bytes=90)})
    carried = ledger.carried(Cookie(1))
    assert carried is not None
    assert carried.rx_bytes == 100


def test_unknown_devices_are_nobody_s() -> None:
    ledger = Ledger()
    ledger.note_all({5: Traffic(tx_bytes=1)})
    assert dict(ledger.totals()) == {}


def test_what_went_while_no_agent_ran_is_closed_with_what_was_known() -> None:
    ledger = Ledger()
    for cookie, device in ((1, 8), (2, 9)):
        ledger.note(Cookie(cookie), "default", device, Traffic(tx_bytes=100))
    ledger.close_all_but({Cookie(2)})
    assert ledger.carried(Cookie(1)) is None
    assert ledger.carried(Cookie(2)) is not None
    assert dict(ledger.totals())["default"].rx_bytes == 200


def test_books_are_a_copy_that_goes_on_nobody_s_account() -> None:
    ledger = Ledger()
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=100))
    books = ledger.books()
    ledger.note(Cookie(1), "default", 8, Traffic(tx_bytes=150))
    ledger.close(Cookie(1))
    assert books.accounts[Cookie(1)].last.rx_bytes == 100
    assert books.closed == {}


def test_the_last_device_is_known() -> None:
    ledger = Ledger()
    assert ledger.device(Cookie(1)) is None
    ledger.note(Cookie(1), "default", 8, Traffic())
    ledger.note(Cookie(1), "default", 9, Traffic())
    assert ledger.device(Cookie(1)) == 9


class Counting(RuleBasedStateMachine):
    """Devices come, count and go, are sampled in any order, and no counter ever goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.device: dict[Cookie, int] = {}
        self.network: dict[Cookie, str] = {}
        self.counters: dict[int, Traffic] = {}
        self.next_device = 10
        self.carried: dict[Cookie, Traffic] = {}
        self.totals: dict[str, Traffic] = {}

    @rule(cookie=COOKIES, network=NETWORKS)
    def make_device(self, cookie: Cookie, network: str) -> None:
        self.device[cookie] = self.next_device
        self.network.setdefault(cookie, network)
        self.counters[self.next_device] = Traffic()
        self.next_device += 1
        self.sample(cookie)

    @rule(cookie=COOKIES, more=st.builds(Traffic, *[st.integers(0, 1000)] * 8))
    def carry(self, cookie: Cookie, more: Traffic) -> None:
        device = self.device.get(cookie)
        if device is not None:
            self.counters[device] = total((self.counters[device], more))

    @rule(cookie=COOKIES)
    def sample(self, cookie: Cookie) -> None:
        device = self.device.get(cookie)
        if device is not None:
            self.ledger.note(cookie, self.network[cookie], device, self.counters[device])

    @rule()
    def sample_all(self) -> None:
        self.ledger.note_all(dict(self.counters))
        for cookie, device in self.device.items():
            carried = self.ledger.carried(cookie)
            assert carried is not None
            assert is_no_less(carried, mirrored(self.counters[device]))

    @rule()
    def restart(self) -> None:
        """The agent goes and comes; what it wrote down is all that is left."""
        books = self.ledger.books()
        self.ledger = Ledger()
        self.ledger.recall(books)

    @rule(cookie=COOKIES, half=st.booleans())
    def end(self, cookie: Cookie, half: bool) -> None:
        device = self.device.pop(cookie, None)
        if device is None:
            return
        last = self.counters.pop(device)
        if half:
            last = Traffic(tx_bytes=last.tx_bytes, tx_packets=last.tx_packets)
        self.ledger.note_last(cookie, self.network.pop(cookie), last)
        closed = self.ledger.close(cookie)
        assert is_no_less(closed, self.carried.pop(cookie, Traffic()))

    @invariant()
    def nothing_goes_back(self) -> None:
        for cookie in self.device:
            carried = self.ledger.carried(cookie)
            assert carried is not None
            assert is_no_less(carried, self.carried.get(cookie, Traffic()))
            self.carried[cookie] = carried
        totals = dict(self.ledger.totals())
        for network, former in self.totals.items():
            assert is_no_less(totals[network], former)
        self.totals = totals


TestCounting = Counting.TestCase
