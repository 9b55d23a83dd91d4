"""Names, the namespaces they lead to, and what becomes of both."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.identity import host_end_name
from agent.core.roster import Incident, Record, Roster, named
from agent.model import Cookie, Origin
from tests.unit.worlds import attachment

PATHS = st.sampled_from(["/run/netns/a", "/run/netns/b", "/run/netns/c", "/srv/netns/a"])
COOKIES = st.integers(1, 3).map(Cookie)
A, B = "/run/netns/a", "/run/netns/b"
ONE, TWO = Cookie(1), Cookie(2)
PROCESS = Origin("process", "pid:7:sleep", "/proc/7/ns/net", 7)


def note(roster: Roster, path: str, event: str) -> None:
    roster.enter(path, 0.0).tell(Incident(0.0, event, ""))


def events(roster: Roster, path: str) -> list[str]:
    return [incident.event for incident in roster.enter(path, 0.0).history]


def test_the_first_name_owns_the_namespace_the_others_are_aliases() -> None:
    roster = Roster()
    assert roster.lead(A, ONE, 1.0) is None
    assert roster.lead(B, ONE, 2.0) is None
    owner = roster.owner(ONE)
    assert owner is not None
    assert owner.path == A
    assert roster.aliases(owner) == [B]
    assert roster.aliases(roster.enter(B, 2.0)) == [A]


def test_an_alias_takes_over_when_the_owner_goes() -> None:
    roster = Roster()
    roster.lead(A, ONE, 1.0)
    roster.lead(B, ONE, 2.0)
    assert roster.leave(A) is None, "the namespace still has a name"
    owner = roster.owner(ONE)
    assert owner is not None
    assert owner.path == B
    assert roster.leave(B) == ONE
    assert roster.owner(ONE) is None


def test_a_name_removed_and_made_again_at_once_is_another_namespace() -> None:
    roster = Roster()
    roster.lead(A, ONE, 1.0)
    note(roster, A, "networked")
    roster.enter(A, 1.0).state = "ready"
    assert roster.lead(A, TWO, 5.0) == ONE, "nothing told of the removal, and yet it is seen"
    record = roster.enter(A, 6.0)
    assert (record.cookie, record.state, record.appeared) == (TWO, "pending", 5.0)
    assert events(roster, A) == ["networked"], "the name's history goes on"


def test_renaming_leaves_the_namespace_with_a_name_throughout() -> None:
    roster = Roster()
    roster.lead(A, ONE, 1.0)
    assert roster.lead(B, ONE, 2.0) is None
    assert roster.leave(A) is None


def test_a_name_that_leads_nowhere_any_more_waits_as_a_placeholder() -> None:
    roster = Roster()
    roster.lead(A, ONE, 1.0)
    assert roster.part(A, 3.0) == ONE
    record = roster.enter(A, 9.0)
    assert (record.cookie, record.state, record.appeared) == (None, "pending", 3.0)
    assert roster.part(A, 4.0) is None


def test_a_name_that_is_gone_is_remembered_with_its_history() -> None:
    roster = Roster()
    roster.lead(A, ONE, 1.0)
    note(roster, A, "networked")
    roster.leave(A)
    assert roster.find(A) is None
    former = roster.find_former("a")
    assert former is not None
    assert former is roster.find_former(A)
    assert [incident.event for incident in former.history] == ["networked"]
    note(roster, A, "pending")
    assert events(roster, A) == ["networked", "pending"]
    assert roster.find_former("a") is None


def test_a_file_name_in_two_directories_is_the_one_seen_first_a_path_is_exact() -> None:
    roster = Roster()
    first, second = roster.enter("/run/netns/a", 1.0), roster.enter("/srv/netns/a", 2.0)
    assert roster.find("a") is first
    assert roster.find("/srv/netns/a") is second
    roster.leave("/run/netns/a")
    roster.leave("/srv/netns/a")
    former = roster.find_former("a")
    assert former is not None
    assert former.path == "/srv/netns/a", "of several that are gone, the last"


def test_memory_of_what_is_gone_is_bounded() -> None:
    roster = Roster()
    for number in range(1100):
        roster.enter(f"/run/netns/{number}", 0.0)
        roster.leave(f"/run/netns/{number}")
    assert roster.find_former("99") is None
    assert roster.find_former("100") is not None
    for _ in range(80):
        note(roster, A, "again")
    assert len(events(roster, A)) == 50


def test_a_process_that_has_departed_is_back_once_it_is_told_again() -> None:
    roster = Roster()
    record = roster.enter(PROCESS.path, 1.0, PROCESS)
    roster.lead(PROCESS.path, ONE, 1.0)
    record.departed = True
    assert roster.enter(PROCESS.path, 2.0).departed, "not by being asked for"
    renamed = replace(PROCESS, name="pid:7:cat")
    assert roster.enter(PROCESS.path, 3.0, renamed) is record
    assert not record.departed
    assert roster.find("pid:7:cat") is record
    assert roster.find("pid:7:sleep") is None


def test_a_record_knows_its_host_end_by_its_attachment() -> None:
    record = Roster().enter(A, 0.0)
    assert record.device is None
    record.attachment = attachment(cookie=7)
    assert record.device == host_end_name(Cookie(7))


@given(st.binary(min_size=1, max_size=30).filter(lambda raw: not set(raw) & {0, ord("/")} and raw not in (b".", b"..")))
def test_names_may_be_anything_a_file_name_can_be(raw: bytes) -> None:
    name = raw.decode(errors="surrogateescape")
    record = Roster().enter(f"/run/netns/{name}", 0.0)
    assert record.name == name


class Naming(RuleBasedStateMachine):
    """A roster against a plain list of (path, cookie) in the order in which names came to lead there."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.present: dict[str, float] = {}
        self.names: list[tuple[str, Cookie]] = []
        self.now = 0.0

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def cookie_of(self, path: str) -> Cookie | None:
        return next((cookie for each, cookie in self.names if each == path), None)

    def unname(self, path: str) -> Cookie | None:
        """Take a path's lead away; the namespace that has no name after that."""
        former = self.cookie_of(path)
        self.names = [(each, cookie) for each, cookie in self.names if each != path]
        return None if former is None or former in {cookie for _, cookie in self.names} else former

    @rule(path=PATHS)
    def enter(self, path: str) -> None:
        now = self.tick()
        self.present.setdefault(path, now)
        assert self.roster.enter(path, now).appeared == self.present[path]

    @rule(path=PATHS, cookie=COOKIES)
    def lead(self, path: str, cookie: Cookie) -> None:
        now = self.tick()
        if self.cookie_of(path) == cookie:
            assert self.roster.lead(path, cookie, now) is None
            return
        if self.cookie_of(path) is not None:
            self.present[path] = now
        self.present.setdefault(path, now)
        expected = self.unname(path)
        assert self.roster.lead(path, cookie, now) == expected
        self.names.append((path, cookie))

    @rule(path=PATHS)
    def part(self, path: str) -> None:
        now = self.tick()
        if self.cookie_of(path) is not None:
            self.present[path] = now
        assert self.roster.part(path, now) == self.unname(path)

    @rule(path=PATHS)
    def leave(self, path: str) -> None:
        assert self.roster.leave(path) == self.unname(path)
        self.present.pop(path, None)

    @invariant()
    def agrees(self) -> None:
        assert self.roster.paths() == set(self.present)
        assert len(self.roster) == len(self.present)
        for record in self.roster:
            assert record is self.roster.get(record.path)
            assert record.cookie == self.cookie_of(record.path)
            assert record.appeared == self.present[record.path]
            others = [path for path, cookie in self.names if cookie == record.cookie and path != record.path]
            assert self.roster.aliases(record) == others
        for cookie in (Cookie(1), Cookie(2), Cookie(3)):
            owner = self.roster.owner(cookie)
            named = [path for path, each in self.names if each == cookie]
            assert (owner.path if owner else None) == (named[0] if named else None)


TestNaming = Naming.TestCase


def test_what_happened_long_ago_is_forgotten() -> None:
    record = Record(named(A), 0.0)
    for number in range(60):
        record.tell(Incident(number, "networked", ""), Incident(number, "removed", ""))
        record.note_repair(number)
    assert len(record.history) == 50
    assert record.history[-1] == Incident(59, "removed", "")
    assert record.repairs == tuple(range(52, 60))


def test_what_happens_again_and_again_is_told_once() -> None:
    record = Record(named(A), 0.0)
    for number in range(3):
        record.tell_again(Incident(number, "host repaired", "ruleset"))
    record.tell_again(Incident(3, "host repaired", "bridge"))
    assert record.history == [Incident(2, "host repaired", "ruleset"), Incident(3, "host repaired", "bridge")]
