"""The file that remembers addresses: losing it, or finding anything at all in it, breaks nothing."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.demo.isolation import mount
from agent.demo.private_host import PrivateHost
from agent.state.leases import LeaseFile

_MS_RDONLY, _MS_REMOUNT = 1, 32
MEMORY = {"default": {"web": 2, "db": 3}, "lab": {}}
FILE_NAMES = st.binary(min_size=1, max_size=20).map(os.fsdecode)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def path(state_dir: Path) -> Path:
    state_dir.mkdir()
    return state_dir / "leases.json"


def test_no_file_is_no_memory_and_no_fault(state_dir: Path) -> None:
    assert LeaseFile(state_dir).read() == ({}, "")


def test_what_was_written_is_read(state_dir: Path) -> None:
    LeaseFile(state_dir).write(MEMORY)
    assert LeaseFile(state_dir).read() == (MEMORY, "")
    assert os.listdir(state_dir) == ["leases.json"]
    assert stat.S_IMODE((state_dir / "leases.json").stat().st_mode) == 0o600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    memory=st.dictionaries(
        st.text("abc", max_size=3), st.dictionaries(FILE_NAMES, st.integers(2, 2**24), max_size=5), max_size=3
    )
)
def test_any_name_keeps_its_place_in_the_order(tmp_path: Path, memory: dict[str, dict[str, int]]) -> None:
    LeaseFile(tmp_path).write(memory)
    found, remark = LeaseFile(tmp_path).read()
    assert (found, remark) == (memory, "")
    assert [list(names) for names in found.values()] == [list(names) for names in memory.values()]


WHOLE = json.dumps({"version": 1, "networks": MEMORY})
DAMAGED = {
    "empty": "",
    "zeros": "\0" * 512,
    "another version": json.dumps({"version": 2, "networks": {}}),
    "no version": json.dumps({"networks": {}}),
    "no networks": json.dumps({"version": 1}),
    "a list": "[]",
    "a number": "7",
    "networks are a list": json.dumps({"version": 1, "networks": [1]}),
    "names are a list": json.dumps({"version": 1, "networks": {"default": ["web"]}}),
    "text for a number": json.dumps({"version": 1, "networks": {"default": {"web": "2"}}}),
    "truth for a number": json.dumps({"version": 1, "networks": {"default": {"web": True}}}),
    "a fraction": json.dumps({"version": 1, "networks": {"default": {"web": 2.5}}}),
    "not a number": '{"version": 1, "networks": {"default": {"web": NaN}}}',
    "deep": "[" * 100_000,
    "digits": '{"version": 1, "networks": {"default": {"web": ' + "9" * 10_000 + "}}}",
}


@pytest.mark.parametrize("content", [*DAMAGED.values(), *(WHOLE[:cut] for cut in range(1, len(WHOLE), 7))])
def test_a_damaged_file_is_set_aside_and_told_of(path: Path, content: str) -> None:
    path.write_text(content)
    memory, remark = LeaseFile(path.parent).read()
    assert memory == {}
    assert remark == f"{path}: is damaged, set aside as {path}.damaged"
    assert (path.parent / "leases.json.damaged").read_text() == content
    assert LeaseFile(path.parent).read() == ({}, "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40) | st.binary(max_size=9).map(lambda tail: WHOLE.encode()[:-9] + tail))
def test_no_content_can_stop_the_agent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "leases.json").write_bytes(content)
    memory, remark = LeaseFile(tmp_path).read()
    assert memory == {} or not remark
    LeaseFile(tmp_path).write(memory)


def test_strange_numbers_are_left_for_the_table_to_judge(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "networks": {"default": {"web": -1, "db": 10**30}}, "later": 1}))
    assert LeaseFile(path.parent).read() == ({"default": {"web": -1, "db": 10**30}}, "")


NOBODY = 65534


def test_a_file_that_others_can_change_is_set_aside(path: Path) -> None:
    for owner, mode in ((0, 0o660), (0, 0o602), (NOBODY, 0o600)):
        LeaseFile(path.parent).write(MEMORY)
        os.chown(path, owner, -1)
        path.chmod(mode)
        told = f"{path}: can be changed by others, set aside as {path}.damaged"
        assert LeaseFile(path.parent).read() == ({}, told)
        assert LeaseFile(path.parent).read() == ({}, "")


def test_a_file_without_end_is_not_read(path: Path) -> None:
    path.symlink_to("/dev/full")
    # Where devices can be written to by all, as usual, that is the reason; it is not read in any case.
    assert LeaseFile(path.parent).read()[1].endswith(f", set aside as {path}.damaged")
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert LeaseFile(path.parent).read() == ({}, f"{path}: is damaged, set aside as {path}.damaged")


def test_a_fifo_in_its_place_does_not_hold_the_agent_up(path: Path) -> None:
    os.mkfifo(path)
    memory, remark = LeaseFile(path.parent).read()
    assert memory == {}
    assert "is damaged, set aside" in remark


def test_a_directory_in_its_place_is_told_of(path: Path) -> None:
    path.mkdir()
    assert LeaseFile(path.parent).read() == (
        {},
        f"{path}: cannot be read: Is a directory",
    )
    with pytest.raises(OSError, match="Is a directory"):
        LeaseFile(path.parent).write(MEMORY)


def test_links_are_replaced_never_written_through(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "passwd"
    target.write_text("precious")
    path.symlink_to(target)
    path.with_suffix(".new").symlink_to(target)
    LeaseFile(path.parent).write(MEMORY)
    assert target.read_text() == "precious"
    assert not path.is_symlink()
    assert LeaseFile(path.parent).read() == (MEMORY, "")


def test_a_draft_of_a_crash_does_no_harm(path: Path) -> None:
    draft = path.with_suffix(".new")
    draft.write_text('{"version": 1, "networks": {"def')
    draft.chmod(0o644)
    assert LeaseFile(path.parent).read() == ({}, "")
    LeaseFile(path.parent).write(MEMORY)
    assert LeaseFile(path.parent).read() == (MEMORY, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not draft.exists()


def test_what_cannot_be_written_raises_and_leaves_the_old(path: Path) -> None:
    LeaseFile(path.parent).write(MEMORY)
    path.with_suffix(".new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        LeaseFile(path.parent).write({})
    assert LeaseFile(path.parent).read() == (MEMORY, "")


def test_a_directory_that_cannot_be_made_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        LeaseFile(tmp_path / "file" / "state").write(MEMORY)


def test_a_read_only_file_system_is_told_of(private_host: PrivateHost, path: Path) -> None:
    mount("vethd-test", str(path.parent), "tmpfs")
    path.write_text("{")
    mount("", str(path.parent), flags=_MS_REMOUNT | _MS_RDONLY)
    file = LeaseFile(path.parent)
    assert file.read() == ({}, f"{path}: is damaged and cannot be set aside: Read-only file system")
    with pytest.raises(OSError, match="Read-only file system"):
        file.write(MEMORY)
    assert path.read_text() == "{"
