"""The directory netns.d: which file counts, what a bad one changes, and whose files are obeyed."""

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.wishes import Wishes, forget_runtime_wish, load_wishes, runtime_wishes
from agent.model import Wish
from tests.unit.worlds import network

NETWORKS = (network("default"), network("lab", subnet="10.9.0.0/24", subnet6=""))
NOBODY = 65534


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "netns.d"
    path.mkdir(mode=0o755)
    return path


def write(directory: Path, **files: str) -> None:
    """Write files by their names without suffix."""
    for stem, text in files.items():
        path = directory / f"{stem}.toml"
        path.write_text(text)
        path.chmod(0o644)


def read(directory: Path, former: Wishes | None = None) -> Wishes:
    return load_wishes(directory, NETWORKS, former or Wishes())


def test_a_missing_directory_wishes_for_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "netns.d") == Wishes()


def test_names_go_before_patterns_and_longer_patterns_before_shorter(directory: Path) -> None:
    for stem, mtu in {"*": 1300, "ci-*": 1301, "ci-w*": 1302, "ci-web": 1303}.items():
        write(directory, **{stem: f"mtu = {mtu}"})
    wishes = read(directory)
    assert wishes.problems == {}
    found = {name: wishes.find(name) for name in ("ci-web", "ci-wide", "ci-7", "db")}
    assert {name: wish and wish.mtu for name, wish in found.items()} == {
        "ci-web": 1303,
        "ci-wide": 1302,
        "ci-7": 1301,
        "db": 1300,
    }


def test_a_file_for_one_name_is_for_no_other(directory: Path) -> None:
    write(directory, web="mtu = 1400")
    wishes = read(directory)
    assert wishes.find("web") == Wish("netns.d/web.toml", mtu=1400)
    assert [wishes.find(name) for name in ("web2", "Web", "", "web.toml")] == [None] * 4


def test_names_that_look_like_patterns_or_are_no_text_have_their_files(directory: Path) -> None:
    write(directory, **{"a[1]": "mtu = 1300", "unit:x.service": "mtu = 1301"})
    strange = os.fsencode(directory) + b"/\xff.toml"
    with open(strange, "w", opener=lambda path, flags: os.open(path, flags, 0o644)) as file:
        file.write("mtu = 1302")
    wishes = read(directory)
    assert [(wish := wishes.find(name)) and wish.mtu for name in ("a[1]", "a1", "unit:x.service", "\udcff")] == [
        1300,
        1300,
        1301,
        1302,
    ]


def test_other_files_are_not_read(directory: Path) -> None:
    for name in ("README", "web.toml~", ".web.toml.swp", ".toml", ".#web.toml", "web.toml.dpkg-new"):
        (directory / name).write_text("no TOML")
    assert read(directory) == Wishes()


@given(st.lists(st.text("ab*?", min_size=1, max_size=3), unique=True, max_size=6), st.text("ab", max_size=3))
def test_the_own_file_counts_or_else_the_longest_pattern(stems: list[str], name: str) -> None:
    with TemporaryDirectory() as temporary:
        write(Path(temporary), **dict.fromkeys(stems, ""))
        wishes = read(Path(temporary))
        found = wishes.find(name)
        stem = None if found is None else found.source.removeprefix(f"{Path(temporary).name}/").removesuffix(".toml")
    assert wishes.problems == {}
    matching = [stem for stem in stems if {"*", "?"} & set(stem) and fnmatchcase(name, stem)]
    longest = max(map(len, matching), default=0)
    assert stem == (name if name in stems else min((each for each in matching if len(each) == longest), default=None))


def test_a_bad_file_leaves_in_force_what_it_said_before(directory: Path) -> None:
    write(directory, web="mtu = 1400", db="mtu = 1401")
    former = read(directory)
    write(directory, web="mtu = 1", db="mtu = 1402", new="mtu = 1")
    wishes = read(directory, former)
    assert wishes.by_name == {"web": former.by_name["web"], "db": Wish("netns.d/db.toml", mtu=1402)}
    assert wishes.problems == {
        f"{directory}/{stem}.toml": f"{directory}/{stem}.toml: mtu: 1 is not allowed: must be 1280 to 65535"
        for stem in ("new", "web")
    }
    write(directory, web="mtu = 1403")
    (directory / "new.toml").unlink()
    mended = read(directory, wishes)
    assert (mended.by_name["web"].mtu, mended.problems) == (1403, {})


def test_a_bad_pattern_stays_in_force_too(directory: Path) -> None:
    write(directory, **{"ci-*": "mtu = 1400"})
    former = read(directory)
    write(directory, **{"ci-*": "mtu ="})
    wishes = read(directory, former)
    assert wishes.find("ci-7") == Wish("netns.d/ci-*.toml", mtu=1400)
    assert list(wishes.problems) == [f"{directory}/ci-*.toml"]


def test_what_was_removed_is_forgotten(directory: Path) -> None:
    write(directory, web="mtu = 1400")
    former = read(directory)
    (directory / "web.toml").unlink()
    assert read(directory, former) == Wishes()


def test_an_address_is_for_the_first_that_wished_for_it(directory: Path) -> None:
    write(directory, web='address = "10.9.0.7"', db='address = "10.9.0.7"')
    wishes = read(directory)
    assert list(wishes.by_name) == ["db"]
    assert wishes.problems == {
        f"{directory}/web.toml": (
            f"{directory}/web.toml: address: 10.9.0.7 is that of db.toml; each namespace has its own"
        )
    }


def test_who_has_an_address_keeps_it(directory: Path) -> None:
    write(directory, db='address = "10.9.0.8"', web='address = "10.9.0.7"')
    former = read(directory)
    write(directory, db='address = "10.9.0.7"', app='address = "10.9.0.7"')
    wishes = read(directory, former)
    assert wishes.by_name == former.by_name
    assert list(wishes.problems) == [f"{directory}/app.toml", f"{directory}/db.toml"]


def test_two_can_change_places(directory: Path) -> None:
    write(directory, db='address = "10.9.0.8"', web='address = "10.9.0.7"')
    former = read(directory)
    write(directory, db='address = "10.9.0.7"', web='address = "10.9.0.8"')
    wishes = read(directory, former)
    assert {stem: str(wish.address) for stem, wish in wishes.by_name.items()} == {"db": "10.9.0.7", "web": "10.9.0.8"}
    assert wishes.problems == {}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize("make", [_fifo, Path.mkdir, _link_to_nothing])
def test_what_is_no_file_is_told_and_not_waited_for(directory: Path, make: Callable[[Path], None]) -> None:
    path = directory / "web.toml"
    make(path)
    assert read(directory).problems == {str(path): f"{path}: is no file"}


def test_a_link_to_a_file_is_as_good_as_the_file(directory: Path, tmp_path: Path) -> None:
    write(tmp_path, shared="mtu = 1400")
    (directory / "web.toml").symlink_to(tmp_path / "shared.toml")
    assert read(directory).find("web") == Wish("netns.d/web.toml", mtu=1400)


def test_files_that_others_can_write_are_refused(directory: Path) -> None:
    write(directory, web="mtu = 1400", db="mtu = 1400", app="mtu = 1400")
    (directory / "web.toml").chmod(0o664)
    os.chown(directory / "db.toml", NOBODY, -1)
    wishes = read(directory)
    assert list(wishes.by_name) == ["app"]
    web, db = (f"{directory}/{stem}.toml" for stem in ("web", "db"))
    assert wishes.problems == {
        web: f"{web}: others than its owner can write to it (mode 0664): chmod go-w {web}",
        db: f"{db}: belongs to user {NOBODY}, who can change it: chown root {db}",
    }


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_can_write_changes_nothing(directory: Path, mode: int) -> None:
    write(directory, web="mtu = 1400")
    former = read(directory)
    write(directory, web="mtu = 1500", db="mtu = 1500")
    directory.chmod(mode)
    line = f"{directory}: others than its owner can write to it (mode {mode:04o}): chmod go-w {directory}"
    assert read(directory, former) == Wishes(former.by_name, problems={str(directory): line})
    assert read(directory).by_name == {}


def test_a_directory_that_others_can_replace_changes_nothing(directory: Path, tmp_path: Path) -> None:
    write(directory, web="mtu = 1400")
    tmp_path.chmod(0o777)
    wishes = read(directory)
    assert wishes.by_name == {}
    assert wishes.problems[str(directory)].startswith(f"{directory}: can be replaced by others: {tmp_path}: others")


def test_what_is_no_directory_changes_nothing(directory: Path) -> None:
    write(directory, web="mtu = 1400")
    former = read(directory)
    path = directory / "web.toml"
    assert load_wishes(path, NETWORKS, former) == Wishes(
        former.by_name, problems={str(path): f"{path}: cannot be read: Not a directory"}
    )


def test_hostile_file_names_are_shown_harmless(directory: Path) -> None:
    write(directory, **{"\x1b[2J\n": "mtu = 1"})
    (line,) = read(directory).problems.values()
    assert line == f"{directory}/\\x1b[2J\\x0a.toml: mtu: 1 is not allowed: must be 1280 to 65535"


def test_a_name_leads_to_no_file_elsewhere(tmp_path: Path) -> None:
    socket = tmp_path / "vethd" / "vethd.sock"
    directory = runtime_wishes(socket)
    directory.mkdir(parents=True)
    write(directory, web="mtu = 1400")
    write(tmp_path, web="")
    forget_runtime_wish(socket, "../../web")
    assert (tmp_path / "web.toml").exists()
    forget_runtime_wish(socket, "web")
    assert not (directory / "web.toml").exists()
