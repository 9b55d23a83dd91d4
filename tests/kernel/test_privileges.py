"""What is given up is gone, for the process and for all that it runs."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.errors import HostError
from agent.kernel import privileges

ALWAYS = {"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}
GIVE_UP = "from agent.kernel.privileges import give_up_all_but; give_up_all_but({kept!r}); "
ROOT = Path(__file__).resolve().parents[2]


def given_up(kept: list[str], then: str, prefix: tuple[str, ...] = ()) -> str:
    """What a Python program says that gives up all but these."""
    command = [*prefix, sys.executable, "-c", GIVE_UP.format(kept=kept) + then]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_what_is_needed_depends_on_what_it_does() -> None:
    own = str(Path(privileges.__file__))
    assert privileges.needed(False, 9853, own) == ALWAYS
    assert privileges.needed(True, 9853, own) == ALWAYS | {"CAP_CHOWN"}
    assert privileges.needed(False, 80, own) == ALWAYS | {"CAP_NET_BIND_SERVICE"}
    assert privileges.needed(True, 80, own) <= set(privileges.NAMES.values())


def test_code_of_another_user_can_still_be_read(tmp_path: Path) -> None:
    """As with sudo in somebody's checkout, below a home that is closed to all others."""
    code = tmp_path / "code.py"
    code.touch()
    os.chown(code, 65534, -1)
    assert privileges.needed(False, 9853, str(code)) == ALWAYS | {"CAP_DAC_READ_SEARCH"}


def test_only_what_is_kept_is_left_and_no_program_gets_it_back() -> None:
    told = given_up(
        ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"],
        "import subprocess; print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout)",
    )
    status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
    wanted = f"{1 << 12 | 1 << 21:016x}"
    assert [status[key] for key in ("CapPrm", "CapEff", "CapBnd")] == [wanted] * 3
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"


def test_threads_that_are_made_later_have_no_more() -> None:
    told = given_up(
        ["CAP_NET_ADMIN"],
        "import threading; t = threading.Thread(target=lambda: print(open('/proc/thread-self/status').read()));"
        " t.start(); t.join()",
    )
    assert f"CapEff:\t{1 << 12:016x}" in told


def test_what_was_not_there_is_not_gained() -> None:
    told = given_up(
        ["CAP_NET_ADMIN", "CAP_CHOWN"],
        "print(open('/proc/self/status').read())",
        ("setpriv", "--bounding-set=-chown,-setpcap", "--inh-caps=-chown,-setpcap", "--"),
    )
    assert f"CapEff:\t{1 << 12:016x}" in told
    assert "NoNewPrivs:\t1" in told, "also where the bounding set cannot be changed"


def test_among_several_threads_it_is_too_late() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        with pytest.raises(HostError, match="too late"):
            privileges.give_up_all_but([])
    finally:
        stop.set()
        other.join()
    assert privileges.read().effective == privileges.read(os.getpid()).effective != 0


def test_names_of_what_nobody_keeps_are_numbers() -> None:
    assert privileges.names_of(1 << 12 | 1 << 40) == ["CAP_NET_ADMIN", "capability 40"]
    assert privileges.names_of(0) == []


def test_who_is_gone_may_nothing() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(OSError, match="No such"):
        privileges.read(ended.pid)
