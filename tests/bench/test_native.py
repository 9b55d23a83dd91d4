"""The programs in C: built, or said why not; and never at work in the machine's own network namespace."""

import subprocess
from pathlib import Path

import pytest

from tests.bench.native import Native


def test_without_a_compiler_there_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert Native.build(tmp_path) == Native(why_not="there is no C compiler no-such-compiler")


def test_the_floor_refuses_the_initial_namespace(tmp_path: Path) -> None:
    program = Native.build(tmp_path).floor
    assert program is not None
    command = [str(program), "lo", "192.0.2.1", "24", "2001:db8::1", "64"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, "never in the initial namespace" in done.stderr) == (2, True)
