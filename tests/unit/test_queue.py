"""The dirty set: no wake-up is lost, no key is worked on twice at once, none comes before its time."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core.queue import DirtySet

KEYS = st.sampled_from("abc")
TIMES = st.integers(0, 6)


def test_comes_when_it_is_due_and_once() -> None:
    dirty: DirtySet[str] = DirtySet()
    dirty.add("a", 5.0)
    assert dirty.take(4.9) is None
    assert dirty.next_due() == 5.0
    assert dirty.take(5.0) == "a"
    assert dirty.take(99.0) is None
    dirty.done("a")
    assert dirty.take(99.0) is None
    assert len(dirty) == 0


def test_the_earliest_time_counts() -> None:
    dirty: DirtySet[str] = DirtySet()
    for due in (5.0, 2.0, 7.0):
        dirty.add("a", due)
    assert dirty.next_due() == 2.0
    assert dirty.take(2.0) == "a"
    dirty.done("a")
    assert dirty.take(99.0) is None


def test_who_is_due_for_longest_comes_first_and_of_equals_the_one_marked_first() -> None:
    dirty: DirtySet[str] = DirtySet()
    for key, due in (("late", 3.0), ("first", 1.0), ("second", 1.0), ("early", 0.5)):
        dirty.add(key, due)
    assert [dirty.take(9.0) for _ in range(5)] == ["early", "first", "second", "late", None]


def test_marked_while_it_is_worked_on_it_comes_again_afterwards_and_not_before() -> None:
    dirty: DirtySet[str] = DirtySet()
    dirty.add("a", 1.0)
    assert dirty.take(1.0) == "a"
    dirty.add("a", 1.0)
    assert dirty.take(99.0) is None
    assert dirty.next_due() is None
    assert "a" in dirty
    dirty.done("a")
    assert dirty.take(1.0) == "a"


def test_worked_on_counts_as_due_so_nobody_calls_it_settled() -> None:
    dirty: DirtySet[str] = DirtySet()
    dirty.add("a", 5.0)
    assert not dirty.has_due(4.0)
    assert dirty.has_due(5.0)
    dirty.take(5.0)
    assert dirty.has_due(0.0)
    dirty.done("a")
    assert not dirty.has_due(99.0)


@pytest.mark.parametrize("marks", [1, 2, 1000])
def test_being_marked_again_and_again_does_not_pile_up(marks: int) -> None:
    dirty: DirtySet[str] = DirtySet()
    for _ in range(marks):
        dirty.add("a", 1.0)
    assert len(dirty) == 1
    assert dirty.take(1.0) == "a"
    assert dirty.take(1.0) is None


class Working(RuleBasedStateMachine):
    """Against two dicts: when each key is due, and what was asked for while it was worked on."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty: DirtySet[str] = DirtySet()
        self.due: dict[str, int] = {}
        self.again: dict[str, int] = {}
        self.working: set[str] = set()

    @rule(key=KEYS, due=TIMES)
    def add(self, key: str, due: int) -> None:
        waiting = self.again if key in self.working else self.due
        waiting[key] = min(due, waiting.get(key, due))
        self.dirty.add(key, due)

    @rule(now=TIMES)
    def take(self, now: int) -> None:
        ready = {due for due in self.due.values() if due <= now}
        key = self.dirty.take(now)
        if key is None:
            assert not ready, "what is due comes"
            return
        assert key not in self.working, "nothing is worked on twice at once"
        assert self.due.pop(key) == min(ready), "what is due for longest comes first"
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(place=st.integers(0, 2))
    def done(self, place: int) -> None:
        key = sorted(self.working)[place % len(self.working)]
        self.working.discard(key)
        if key in self.again:
            self.due[key] = self.again.pop(key)
        self.dirty.done(key)

    @invariant()
    def agrees(self) -> None:
        assert self.dirty.next_due() == min(self.due.values(), default=None)
        assert len(self.dirty) == len(self.due) + len(self.working)
        for key in "abc":
            assert (key in self.dirty) == (key in self.due or key in self.working)
        for now in (0, 3, 6):
            assert self.dirty.has_due(now) == (bool(self.working) or any(due <= now for due in self.due.values()))

    def teardown(self) -> None:
        """Whatever happened, every mark is answered in the end."""
        for key in sorted(self.working):
            self.dirty.done(key)
        self.due |= self.again
        answered = set()
        while (taken := self.dirty.take(99)) is not None:
            answered.add(taken)
        assert answered == set(self.due)


TestWorking = Working.TestCase
