"""Becoming a program inside a namespace that a path leads to, and staying where one was when that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.demo.private_host import PrivateHost
from agent.kernel.namespaces import Namespaces
from tests.harness import netns

# Becomes a program; when it cannot, says why, and whether it is where it was.
BECOME = """
import json, os, sys
from agent.kernel.inside import CannotEnter, CannotRun, Place, become

def where():
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt")]

path, cookie, name, *program = sys.argv[1:]
before = where()
try:
    become(list(map(os.fsencode, program)), Place(os.fsencode(path), int(cookie), os.fsencode(name) or None), print)
except (CannotEnter, CannotRun) as error:
    print(json.dumps({"why": f"{type(error).__name__}: {error}", "back": where() == before}))
"""


def become(path: str, cookie: int, name: str, *program: str) -> str:
    command = [sys.executable, "-c", BECOME, path, str(cookie), name, *program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def refused(path: str, cookie: int, *program: str) -> str:
    """Why it was refused, with the process back where it was."""
    told: dict[str, Any] = json.loads(become(path, cookie, "", *program).splitlines()[-1])
    assert told["back"]
    return str(told["why"])


@pytest.fixture
def web(private_host: PrivateHost) -> int:
    """The cookie of a namespace of the name web, with a file in /etc/netns."""
    netns.add_many(["web"])
    directory = Path("/etc/netns/web")
    directory.mkdir(parents=True)
    (directory / "hosts").write_text("192.0.2.7 seven\n")
    opened = Namespaces()
    with opened.open("/run/netns/web") as handle:
        cookie = handle.cookie
    opened.close()
    return cookie


def test_a_named_one_has_its_files(web: int) -> None:
    assert become("/run/netns/web", web, "web", "cat", "/etc/hosts") == "192.0.2.7 seven\n"


def test_that_of_a_process_is_entered_by_its_path_and_has_none(web: int) -> None:
    with subprocess.Popen(["ip", "netns", "exec", "web", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        held.stdin.write(b"entered\n")
        held.stdin.flush()
        assert held.stdout.readline() == b"entered\n"
        seen = become(f"/proc/{held.pid}/ns/net", web, "", "sh", "-c", "readlink /proc/self/ns/net; cat /etc/hosts")
        assert os.readlink(f"/proc/{held.pid}/ns/net") in seen
        assert "seven" not in seen
        held.stdin.close()


def test_a_path_that_leads_elsewhere_by_now_is_refused(web: int) -> None:
    """A name that was given away, a process number that was: the host's own namespace above all."""
    netns.delete_many(["web"])
    netns.add_many(["web"])
    assert "another namespace" in refused("/run/netns/web", web, "true")
    assert "another namespace" in refused("/proc/self/ns/net", web, "true")


@pytest.mark.parametrize("path", ["/run/netns/gone", "/etc/hosts", "/proc/self/ns/mnt", "/run/fifo", "/run"])
def test_what_is_no_network_namespace_is_refused(web: int, path: str) -> None:
    os.mkfifo("/run/fifo")
    assert refused(path, web, "true").startswith(f"CannotEnter: {path}: ")


def test_without_its_program_it_is_back(web: int) -> None:
    assert refused("/run/netns/web", web, "no-such-program") == "CannotRun: no-such-program: No such file or directory"
    assert refused("/run/netns/web", web, "/run") == "CannotRun: /run: Permission denied"
