"""A config is obeyed only where nobody else can write it."""

import os
import re
from pathlib import Path

import pytest

from agent.config import load, reading
from agent.errors import ConfigError

NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    path = directory / "vethd.toml"
    path.write_text('[agent]\nmode = "observe"\n')
    path.chmod(0o644)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def test_a_file_of_root_is_obeyed(file: Path) -> None:
    assert load(file).mode == "observe"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_can_write_to_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert refusal(file) == f"others than its owner can write to it (mode {mode:04o}): chmod go-w {file}"


def test_a_file_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(file, NOBODY, -1)
    assert refusal(file) == f"belongs to user {NOBODY}, who can change it: chown root {file}"


def test_a_file_of_the_agents_own_user_is_obeyed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(file, NOBODY, -1)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert load(file).mode == "observe"


def test_a_file_of_the_codes_owner_is_obeyed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user's checkout, run by sudo."""
    code = file.with_name("code.py")
    code.touch()
    for path in (file, code):
        os.chown(path, NOBODY, -1)
    monkeypatch.setattr(reading, "__file__", str(code))
    assert load(file).mode == "observe"


def test_a_directory_that_others_can_write_to_is_refused(file: Path) -> None:
    file.parent.chmod(0o775)
    line = f"{file.parent}: others than its owner can write to it (mode 0775): chmod go-w {file.parent}"
    assert refusal(file) == f"can be replaced by others: {line}"


def test_a_directory_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(file.parent, NOBODY, -1)
    line = f"{file.parent}: belongs to user {NOBODY}, who can change it: chown root {file.parent}"
    assert refusal(file) == f"can be replaced by others: {line}"


def test_a_directory_with_the_sticky_bit_is_as_good_as_its_owner(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert load(file).mode == "observe"
    os.chown(file.parent, NOBODY, -1)
    assert refusal(file).startswith("can be replaced by others: ")


def test_where_a_link_leads_to_counts(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert load(link).mode == "observe"
    file.parent.chmod(0o777)
    assert refusal(link).startswith(f"can be replaced by others: {file.parent}: others than its owner")
    file.parent.chmod(0o755)
    file.chmod(0o666)
    assert re.match(r"others than its owner can write to it \(mode 0666\)", refusal(link))


def test_what_comes_by_a_pipe_is_read() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as end:
        end.write('[agent]\nmode = "observe"\n')
    try:
        assert load(Path(f"/dev/fd/{reader}")).mode == "observe"
    finally:
        os.close(reader)
