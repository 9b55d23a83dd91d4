"""A real systemd as the first process of a process namespace: services as on a host that was booted."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from tests.harness.cgroups import ROOT
from tests.harness.waiting import eventually
from tests.system.tools.ground import run, started

_UNITS = Path("/run/systemd/system")
_TARGET = "test.target"
# /dev and /tmp are the machine's: it gets others, with nothing in them that is worth anything. /run is that of the
# host, and mounts in it are seen on both sides.
_BOOT = """
set -e
mount -t proc proc /proc
mount -t tmpfs tmp /var/tmp
mkdir /var/tmp/dev
mount -t tmpfs -o mode=755 dev /var/tmp/dev
for node in null zero full random urandom tty ptmx; do
    touch /var/tmp/dev/$node
    mount --bind /dev/$node /var/tmp/dev/$node
done
mkdir /var/tmp/dev/pts /var/tmp/dev/shm
mount --move /var/tmp/dev /dev
mount -t tmpfs tmp /tmp
# As it does itself where it is told of no container: services in mount namespaces of their own see later mounts.
mount --make-rshared /
exec env -i container=test PATH="$PATH" \
    /lib/systemd/systemd --system --unit={target} --log-target=console --show-status=no
"""


def service(lines: str) -> str:
    """A unit with these lines in its ``[Service]``, and nothing that a booted machine would have started before."""
    return f"[Unit]\nDefaultDependencies=no\n[Service]\n{lines}\n"


@contextlib.contextmanager
def booted(units: Mapping[str, str]) -> Iterator[Callable[..., str]]:
    """Have systemd run services for the length of the block: what stands in which file of its directory of units.

    Yields what runs a command beside the services, and returns what it says.
    """
    services = [name for name in units if "/" not in name]
    target = f"[Unit]\nDefaultDependencies=no\nWants={' '.join(services)}\n"
    for name, text in {**units, _TARGET: target}.items():
        file = _UNITS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    command = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "unchanged")
    with started(*command, "sh", "-c", _BOOT.format(target=_TARGET), group="/") as systemd:

        def has_started_all() -> bool:
            assert systemd.poll() is None, systemd.communicate()
            # A template's instances are in a slice of their own.
            return all(any(ROOT.glob(f"system.slice/**/{name}")) for name in services)

        eventually(has_started_all, 20, "systemd has started the services")
        first = Path(f"/proc/{systemd.pid}/task/{systemd.pid}/children").read_text().strip()
        yield partial(run, "nsenter", "--target", first, "--mount", "--pid")
