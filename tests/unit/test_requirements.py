"""What is installed is what was pinned: each package by version and by the hashes of its files."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = ("service.txt", "dev.txt", "tools.txt")

Pins = dict[str, tuple[str, frozenset[str]]]


def pins(file: str) -> Pins:
    """Package to version and hashes; fails for a line that is neither."""
    found: Pins = {}
    text = (FOLDER / file).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            told = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
            assert told, f"{file}: {line[:80]}"
            found[canonical(told[1])] = (told[2], frozenset(told[3].split()))
    return found


def canonical(name: str) -> str:
    """As packages are compared, PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\s<>=!~;\[]", requirement)[0]) for requirement in requirements}


@pytest.mark.parametrize("file", FILES)
def test_every_package_is_pinned_with_hashes(file: str) -> None:
    assert pins(file)


def test_all_that_the_project_asks_for_is_pinned() -> None:
    service = names(PROJECT["project"]["dependencies"]) | names(PROJECT["build-system"]["requires"])
    assert service <= pins("service.txt").keys()
    assert names(PROJECT["project"]["optional-dependencies"]["dev"]) <= pins("dev.txt").keys()
    asked = [line for line in (FOLDER / "tools.in").read_text().splitlines() if not line.startswith("#")]
    assert names(asked) <= pins("tools.txt").keys()


def test_what_is_tested_is_what_the_service_runs_on() -> None:
    assert pins("service.txt").items() <= pins("dev.txt").items()


@pytest.mark.parametrize("file", FILES)
def test_where_packages_come_from_is_the_machine_s_to_say(file: str) -> None:
    text = (FOLDER / file).read_text(encoding="utf-8")
    assert not re.search(r"://|^\s*-(?:i|f|-index|-extra|-find|-trusted)", text, re.MULTILINE)


def test_nothing_is_installed_without_hashes() -> None:
    """Ours alone has none; it is taken from this folder, and brings nothing along."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-index --no-deps" in line for line in installs)
