"""The files /etc/netns/NAME/resolv.conf, which `ip netns exec` puts over /etc/resolv.conf (ip-netns(8)).

Which are ours is written in them: a first line says so, and a second one that their directory
is ours too. What a person wrote, and what is no plain file, is left as it is.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.core import resolvconf
from agent.core.identity import printable
from agent.core.resolvconf import ResolvConf, Server
from agent.model import Cookie

ETC_NETNS: Final = Path("/etc/netns")
SOURCES: Final = (
    Path("/etc/resolv.conf"),
    # Those of whoever may have put itself there: systemd-resolved(8), NetworkManager.conf(5), dnsmasq with resolvconf.
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
    Path("/run/NetworkManager/resolv.conf"),
    Path("/run/dnsmasq/resolv.conf"),
)

_FILE: Final = "resolv.conf"
# Beside the names, not among a name's files: `ip netns exec` would put it over one in /etc.
_DRAFT: Final = ".resolv.conf.vethd"
_LARGEST: Final = 1 << 16
_OPEN_TO_ALL: Final = 0o755
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A link, a file or a socket where we would have a directory or a file: what a person put there.
_SOMEBODYS: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


class Resolvers:
    """Keeps the files; may be called from any thread, and blocks it.

    A method that fails changes nothing, and returns a remark: one line that says why, empty when all is well.
    """

    def __init__(self, directory: Path = ETC_NETNS, sources: Sequence[Path] = SOURCES) -> None:
        self._directory = directory
        self._sources = sources
        self._lock = threading.Lock()
        self._wanted: dict[str, _Wanted] = {}
        self._host: ResolvConf | None = None
        self._has_read = False

    def write(
        self, name: str, dns: Sequence[Server] | None = None, ipv6: bool = True, cookie: Cookie | None = None
    ) -> str:
        """Give a namespace its file, and keep it current from now on; return a remark.

        ``dns`` takes the place of the host's servers. ``ipv6``: whether the namespace has IPv6;
        servers it cannot reach are left out, unless there are no others. ``cookie`` is that of the
        namespace, for `remove`.
        """
        with self._lock:
            self._wanted[name] = _Wanted(dns, ipv6, cookie)
            if not self._has_read:
                self._host, self._has_read = self._read(), True
            return self._put(name)

    def refresh(self) -> list[str]:
        """Read the host's files again, and bring all that `write` made up to date; return remarks."""
        with self._lock:
            former, self._host = self._host, self._read()
            if self._has_read and self._host == former:
                return []
            self._has_read = True
            return list(dict.fromkeys(remark for remark in map(self._put, self._wanted) if remark))

    def remove(self, name: str, cookie: Cookie | None = None) -> str:
        """Take away a namespace's file if it is ours, and its directory if that is; return a remark.

        One that was written for another namespace of this name since, by its cookie, stays. What is no name of a
        file has none: some processes are known by such, and others may write it into the alias that names are read
        back from.
        """
        with self._lock:
            wanted = self._wanted.get(name)
            if wanted is not None and wanted.is_for_another(cookie):
                return ""
            self._wanted.pop(name, None)
            try:
                self._take(name)
            except OSError as error:
                return self._remark(name, error)
            return ""

    def keep_only(self, names: Collection[str]) -> list[str]:
        """Remove all files of ours that stand for other names, such as those of before a reboot.

        Return the paths of what was removed, printable.
        """
        with self._lock:
            removed = []
            for name in self._names():
                if name not in names:
                    self._wanted.pop(name, None)
                    with contextlib.suppress(OSError):
                        removed += self._take(name)
            return removed

    def remove_all(self) -> list[str]:
        """Remove all files of ours, and the directory above when nothing is left in it; as `keep_only`."""
        removed = self.keep_only(())
        with contextlib.suppress(OSError):
            self._directory.rmdir()
        return removed

    def _read(self) -> ResolvConf | None:
        return resolvconf.choose(resolvconf.parse(raw) for raw in self._contents())

    def _contents(self) -> Iterator[bytes]:
        for source in self._sources:
            with contextlib.suppress(OSError):
                descriptor = os.open(source, _READ)
                try:
                    yield os.read(descriptor, _LARGEST)
                finally:
                    os.close(descriptor)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._directory)
        except OSError:
            return []

    def _put(self, name: str) -> str:
        wanted = self._wanted[name]
        content = resolvconf.for_namespace(self._host, wanted.dns, wanted.ipv6)
        if content is None:
            return (
                "no name server is known but on this host's own loopback, where no namespace reaches it: "
                f"name one in {self._sources[0]}"
            )
        try:
            self._write(name, content)
        except OSError as error:
            return "" if error.errno in _SOMEBODYS else self._remark(name, error)
        return ""

    def _write(self, name: str, content: ResolvConf) -> None:
        if not _is_name(name):
            # A namespace's name is a file's, so this does not happen unless someone else is mistaken.
            raise ValueError(f"{name!r} is no name of a file")
        if not self._directory.is_dir():
            self._directory.mkdir()
            # Whatever the umask: commands inside may be anybody's.
            self._directory.chmod(_OPEN_TO_ALL)
        with _opened(self._directory, _DIRECTORY) as above:
            made = _make_directory(name, above)
            try:
                with _opened(name, _DIRECTORY | os.O_NOFOLLOW, above) as inside:
                    if not _update(content, inside):
                        _create(resolvconf.render(content, made), above, inside)
            except OSError:
                if made:
                    os.rmdir(name, dir_fd=above)
                raise

    def _take(self, name: str) -> list[str]:
        if not _is_name(name):
            return []
        try:
            with (
                _opened(self._directory, _DIRECTORY) as above,
                _opened(name, _DIRECTORY | os.O_NOFOLLOW, above) as inside,
            ):
                with _opened(_FILE, _READ | os.O_NOFOLLOW, inside) as descriptor:
                    raw = _content(descriptor)
                if not resolvconf.is_ours(raw):
                    return []
                os.unlink(_FILE, dir_fd=inside)
                if resolvconf.has_own_directory(raw):
                    # It stays when a person has put something beside our file.
                    with contextlib.suppress(OSError):
                        os.rmdir(name, dir_fd=above)
        except OSError as error:
            if error.errno in {errno.ENOENT, *_SOMEBODYS}:
                return []
            raise
        return [self._path(name)]

    def _remark(self, name: str, error: OSError) -> str:
        return f"{self._path(name)}: not kept: {error.strerror}"

    def _path(self, name: str) -> str:
        return f"{self._directory}/{printable(name)}/{_FILE}"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a name's file is to be, and for which namespace."""

    dns: Sequence[Server] | None
    ipv6: bool
    cookie: Cookie | None

    def is_for_another(self, cookie: Cookie | None) -> bool:
        return cookie is not None and self.cookie is not None and self.cookie != cookie


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name)


@contextlib.contextmanager
def _opened(path: str | Path, flags: int, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_directory(name: str, above: int) -> bool:
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:
        return False
    with _opened(name, _DIRECTORY | os.O_NOFOLLOW, above) as made:
        os.fchmod(made, _OPEN_TO_ALL)
    return True


def _content(descriptor: int) -> bytes:
    """Return what a plain file holds; anything else holds nothing of ours."""
    return os.read(descriptor, _LARGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _update(content: ResolvConf, inside: int) -> bool:
    """Bring a file of ours up to date, leave one that is not; false when there is none.

    It is written in its place: programs that run inside have this very file over /etc/resolv.conf,
    and would not see one that is put in its stead.
    """
    try:
        with _opened(_FILE, _READ | os.O_NOFOLLOW, inside) as descriptor:
            former = _content(descriptor)
            fresh = resolvconf.render(content, resolvconf.has_own_directory(former))
            if resolvconf.is_ours(former) and former != fresh:
                # Asked for only now: somebody's own may be on a file system that is read-only.
                with _opened(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC) as writable:
                    _overwrite(writable, former, fresh)
    except FileNotFoundError:
        return False
    return True


def _overwrite(descriptor: int, former: bytes, fresh: bytes) -> None:
    """Change what a file says in one step, for whoever reads it in one: the others change empty lines at its end."""
    missing = len(fresh) - len(former)
    if missing > 0:
        os.pwrite(descriptor, b"\n" * missing, len(former))
    os.pwrite(descriptor, fresh.ljust(len(former), b"\n"), 0)
    os.ftruncate(descriptor, len(fresh))


def _create(content: bytes, above: int, inside: int) -> None:
    """Put a file there in one step, unless there is one by now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_DRAFT, dir_fd=above)
    with _opened(_DRAFT, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, above) as descriptor:
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, content)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(_DRAFT, _FILE, src_dir_fd=above, dst_dir_fd=inside)
    finally:
        os.unlink(_DRAFT, dir_fd=above)
