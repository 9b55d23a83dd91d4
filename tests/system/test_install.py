"""`make install` and `make uninstall`, for real; what they write to the machine's folders is thrown away."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUT = {
    "etc/systemd/network/10-vethd.link",
    "etc/systemd/network/10-vethd.network",
    "etc/systemd/system/vethd.service",
    "etc/vethd/vethd.toml",
}
# Overlays whose upper layers are on a file system of their own; no systemd is spoken to.
MACHINE = """
mkdir -p "$LAYERS"; mount -t tmpfs layers "$LAYERS"
for place in etc opt usr/local; do
    mkdir -p "$LAYERS/$place/upper" "$LAYERS/$place/work"
    mount -t overlay vethd-install "/$place" \
        -o "lowerdir=/$place,upperdir=$LAYERS/$place/upper,workdir=$LAYERS/$place/work"
done
if [ -d /run/systemd ]; then mount -t tmpfs hidden /run/systemd; fi
echo ready; exec cat
"""


class Machine:
    """The machine with folders of its own to install to: a mount namespace that a process holds."""

    def __init__(self, holder: subprocess.Popen[str], layers: Path) -> None:
        self._pid = holder.pid
        self._layers = layers

    def run(self, *command: str, cwd: Path, offline: bool = False) -> str:
        """What a command says that must succeed; offline, it is in a network namespace of its own."""
        inside = ["nsenter", f"--target={self._pid}", "--mount", f"--wdns={cwd}"]
        apart = ["unshare", "--net"] if offline else []
        done = subprocess.run([*inside, *apart, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def written(self) -> dict[str, Path]:
        """Everything but folders that has been written, by its path from the root, and where it is to be read."""
        layers = Path(f"/proc/{self._pid}/root{self._layers}")
        uppers = [(place, layers / place / "upper") for place in ("etc", "opt", "usr/local")]
        return {
            f"{place}/{path.relative_to(upper)}": path
            for place, upper in uppers
            for path in upper.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    layers = tmp_path / "layers"
    command = ["unshare", "--mount", "sh", "-euc", MACHINE]
    env = {**os.environ, "LAYERS": str(layers)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield Machine(holder, layers)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """As a clone has it: what is built stays there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    clone = tmp_path / "clone"
    for name in filter(None, listed.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    return clone


def test_installed_it_works_and_uninstalled_only_the_config_is_left(machine: Machine, source: Path) -> None:
    machine.run("make", "install", cwd=source)
    written = machine.written()
    assert {path for path in written if path.startswith("etc/")} >= PUT
    assert os.readlink(written["usr/local/bin/vethd"]) == "/opt/vethd/venv/bin/vethd"
    packed = {path.partition("site-packages/")[2] for path in written if "/site-packages/agent/" in path}
    ours = {str(path.relative_to(source)) for path in (source / "agent").rglob("*") if path.is_file()}
    assert {path for path in packed if not path.endswith(".pyc")} == ours

    vethd = "/usr/local/bin/vethd"
    machine.run(vethd, "check-config", "/etc/vethd/vethd.toml", cwd=Path("/"), offline=True)
    assert "All of it was true" in machine.run(vethd, "demo", cwd=Path("/"))

    assert "kept: /etc/vethd" in machine.run("make", "uninstall", cwd=source, offline=True)
    assert set(machine.written()) == {"etc/vethd/vethd.toml"}
