"""A real systemd as the first process of a process namespace: services as on a host that was booted."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.harness.cgroups import ROOT
from tests.harness.waiting import eventually
from tests.system.tools.ground import started

_UNITS = Path("/run/systemd/system")
_TARGET = "test.target"
# /dev is the machine's: it gets one of its own, with nothing in it that is worth anything.
_BOOT = """
set -e
mount -t proc proc /proc
mkdir /run/dev
mount -t tmpfs -o mode=755 dev /run/dev
for node in null zero full random urandom tty; do
    touch /run/dev/$node
    mount --bind /dev/$node /run/dev/$node
done
mkdir /run/dev/pts /run/dev/shm
mount --move /run/dev /dev
exec env -i container=test PATH="$PATH" \
    /lib/systemd/systemd --system --unit={target} --log-target=console --show-status=no
"""


@contextlib.contextmanager
def booted(services: Mapping[str, str]) -> Iterator[None]:
    """Have systemd run services for the length of the block: names to the lines of their ``[Service]``."""
    _UNITS.mkdir(parents=True)
    for name, lines in services.items():
        (_UNITS / name).write_text(f"[Unit]\nDefaultDependencies=no\n[Service]\n{lines}\n")
    wanted = " ".join(services)
    (_UNITS / _TARGET).write_text(f"[Unit]\nDefaultDependencies=no\nWants={wanted}\n")
    command = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private")
    with started(*command, "sh", "-c", _BOOT.format(target=_TARGET), group="/") as systemd:

        def has_started_all() -> bool:
            assert systemd.poll() is None, systemd.communicate()
            # A template's instances are in a slice of their own.
            return all(any(ROOT.glob(f"system.slice/**/{name}")) for name in services)

        eventually(has_started_all, 20, "systemd has started the services")
        yield
