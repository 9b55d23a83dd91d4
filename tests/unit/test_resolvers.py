"""The files in /etc/netns: ours are told from others', kept current, and taken away without a trace."""

import os
import stat
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import resolvconf
from agent.model import Cookie
from agent.state.resolvers import Resolvers

NAMES = st.binary(min_size=1, max_size=255).filter(lambda raw: not {0, 47} & set(raw) and raw not in (b".", b".."))
HOSTS = b"nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch corp.example\noptions ndots:2\n"
PERSONS = b"# mine\nnameserver 203.0.113.1\n"


class Etc:
    """A host's files, and the resolvers made from them."""

    def __init__(self, root: Path) -> None:
        self.netns = root / "netns"
        self.sources = (root / "resolv.conf", root / "behind.conf")
        self.sources[0].write_bytes(HOSTS)
        self.resolvers = self.again()

    def again(self) -> Resolvers:
        """As after a restart of the agent."""
        return Resolvers(self.netns, self.sources)

    def file(self, name: str = "web") -> Path:
        return self.netns / name / "resolv.conf"

    def servers(self, name: str = "web") -> list[str]:
        return list(map(str, resolvconf.parse(self.file(name).read_bytes()).servers))

    def put(self, content: bytes, name: str = "web") -> None:
        self.file(name).parent.mkdir(parents=True, exist_ok=True)
        self.file(name).write_bytes(content)


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


@pytest.fixture
def strict_umask() -> Iterator[None]:
    former = os.umask(0o077)
    yield
    os.umask(former)


def test_a_namespace_is_given_the_hosts_servers(etc: Etc) -> None:
    assert etc.resolvers.write("web") == ""
    found = etc.file().read_bytes()
    assert resolvconf.parse(found) == resolvconf.parse(HOSTS)
    assert found.startswith(b"# Made by vethd")
    assert os.listdir(etc.netns) == ["web"]
    assert os.listdir(etc.netns / "web") == ["resolv.conf"]


def test_everybody_may_read_it(etc: Etc, strict_umask: None) -> None:
    etc.resolvers.write("web")
    assert stat.S_IMODE(etc.netns.stat().st_mode) == 0o755
    assert stat.S_IMODE(etc.file().stat().st_mode) == 0o644
    assert stat.S_IMODE(etc.file().parent.stat().st_mode) == 0o755


def test_what_a_person_wrote_stays(etc: Etc) -> None:
    etc.put(PERSONS)
    assert etc.resolvers.write("web", (ip_address("198.51.100.7"),)) == ""
    etc.sources[0].write_bytes(b"nameserver 198.51.100.1\n")
    assert etc.resolvers.refresh() == []
    assert etc.resolvers.remove("web") == ""
    assert etc.resolvers.remove_all() == []
    assert etc.file().read_bytes() == PERSONS


def test_what_a_person_claims_is_left_from_then_on(etc: Etc) -> None:
    etc.resolvers.write("web")
    claimed = etc.file().read_bytes().split(b"\n", 1)[1]
    etc.file().write_bytes(claimed)
    etc.sources[0].write_bytes(b"nameserver 198.51.100.1\n")
    etc.resolvers.refresh()
    etc.resolvers.remove("web")
    assert etc.file().read_bytes() == claimed


@pytest.mark.parametrize("restarted", [False, True])
def test_it_goes_with_its_namespace_and_so_does_its_directory(etc: Etc, restarted: bool) -> None:
    etc.resolvers.write("web")
    resolvers = etc.again() if restarted else etc.resolvers
    assert resolvers.remove("web") == ""
    assert os.listdir(etc.netns) == []
    assert resolvers.remove("web") == "", "what is gone is no fault"


def test_one_that_was_given_to_the_next_of_its_name_stays(etc: Etc) -> None:
    """A name may lead to another namespace before the former one's removal is through."""
    etc.resolvers.write("web", cookie=Cookie(1))
    etc.resolvers.write("web", cookie=Cookie(2))
    etc.resolvers.remove("web", Cookie(1))
    assert etc.servers() == ["192.0.2.53", "2001:db8::53"]
    etc.sources[0].write_bytes(b"nameserver 198.51.100.1\n")
    etc.resolvers.refresh()
    assert etc.servers() == ["198.51.100.1"]
    etc.resolvers.remove("web", Cookie(2))
    assert os.listdir(etc.netns) == []


def test_of_one_that_was_there_before_a_restart_nobody_knows_whose_it_is(etc: Etc) -> None:
    etc.resolvers.write("web", cookie=Cookie(1))
    etc.again().remove("web", Cookie(1))
    assert os.listdir(etc.netns) == []


def test_a_persons_directory_stays(etc: Etc) -> None:
    (etc.netns / "web").mkdir(parents=True)
    etc.resolvers.write("web")
    assert etc.servers() == ["192.0.2.53", "2001:db8::53"]
    etc.resolvers.remove("web")
    assert os.listdir(etc.netns) == ["web"]
    assert os.listdir(etc.netns / "web") == []


def test_a_directory_that_a_person_uses_too_stays(etc: Etc) -> None:
    etc.resolvers.write("web")
    (etc.netns / "web" / "hosts").touch()
    etc.resolvers.remove("web")
    assert os.listdir(etc.netns / "web") == ["hosts"]


def test_a_change_of_the_hosts_servers_reaches_programs_that_run(etc: Etc) -> None:
    """They have this very file over /etc/resolv.conf: one in its place they would not see."""
    etc.resolvers.write("web")
    etc.resolvers.write("db", (ip_address("198.51.100.7"),))
    with etc.file().open("rb") as bound:
        before = len(bound.read())
        etc.sources[0].write_bytes(b"nameserver 198.51.100.1\n")
        assert etc.resolvers.refresh() == []
        bound.seek(0)
        found = bound.read()
    assert resolvconf.parse(found) == resolvconf.parse(b"nameserver 198.51.100.1\n")
    assert len(found) < before
    assert found == etc.file().read_bytes()
    assert etc.servers("db") == ["198.51.100.7"]
    etc.resolvers.remove("web")
    assert "web" not in os.listdir(etc.netns), "its directory is still known as ours"


def test_no_step_of_a_change_shows_a_mixture(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    etc.resolvers.write("web")
    seen: list[resolvconf.ResolvConf] = []

    def watched(call: Callable[..., int]) -> Callable[..., int]:
        def step(*arguments: object) -> int:
            result = call(*arguments)
            seen.append(resolvconf.parse(etc.file().read_bytes()))
            return result

        return step

    for name in ("pwrite", "ftruncate", "write"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    for raw in (HOSTS * 5, b"nameserver 198.51.100.1\n", HOSTS):
        before = resolvconf.parse(etc.file().read_bytes())
        etc.sources[0].write_bytes(raw)
        etc.resolvers.refresh()
        assert set(seen) <= {before, resolvconf.parse(raw)}
        assert seen[-1] == resolvconf.parse(raw)
        assert etc.file().read_bytes().endswith(b"\n")
        assert b"\n\n" not in etc.file().read_bytes()
        seen.clear()


def test_what_did_not_change_is_not_written(etc: Etc) -> None:
    etc.resolvers.write("web")
    before = etc.file().stat().st_mtime_ns
    etc.sources[0].write_bytes(HOSTS + b"# a remark\n")
    etc.resolvers.refresh()
    etc.again().write("web")
    assert etc.file().stat().st_mtime_ns == before


def test_a_wish_that_comes_and_goes(etc: Etc) -> None:
    etc.resolvers.write("web", (ip_address("198.51.100.7"),))
    assert etc.servers() == ["198.51.100.7"]
    etc.resolvers.write("web")
    assert etc.servers() == ["192.0.2.53", "2001:db8::53"]


def test_without_ipv6_its_servers_are_left_out(etc: Etc) -> None:
    etc.resolvers.write("web", ipv6=False)
    assert etc.servers() == ["192.0.2.53"]


def test_a_stub_leads_to_the_file_behind_it(etc: Etc) -> None:
    etc.sources[0].write_bytes(b"nameserver 127.0.0.53\n")
    etc.sources[1].write_bytes(b"nameserver 198.51.100.1\n")
    etc.resolvers.write("web")
    assert etc.servers() == ["198.51.100.1"]


@pytest.mark.parametrize("raw", [b"nameserver 127.0.0.53\n", b"", None])
def test_nothing_known_is_told_once_and_nothing_written(etc: Etc, raw: bytes | None) -> None:
    if raw is None:
        etc.sources[0].unlink()
    else:
        etc.sources[0].write_bytes(raw)
    remark = etc.resolvers.write("web")
    assert str(etc.sources[0]) in remark
    assert remark.isprintable()
    etc.resolvers.write("db")
    assert not etc.netns.exists()
    etc.sources[0].write_bytes(HOSTS)
    assert etc.resolvers.refresh() == []
    assert etc.servers() == etc.servers("db") == ["192.0.2.53", "2001:db8::53"]
    etc.sources[0].write_bytes(b"")
    assert etc.resolvers.refresh() == [remark]
    assert etc.servers() == ["192.0.2.53", "2001:db8::53"], "what was last known is better than nothing"


def test_a_pipe_in_the_hosts_files_keeps_nobody_waiting(etc: Etc) -> None:
    etc.sources[0].unlink()
    os.mkfifo(etc.sources[0])
    etc.sources[1].write_bytes(b"nameserver 198.51.100.1\n")
    etc.resolvers.write("web")
    assert etc.servers() == ["198.51.100.1"]


def test_links_are_not_followed(etc: Etc, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ours = resolvconf.render(resolvconf.ResolvConf(), own_directory=True)
    (other / "resolv.conf").write_bytes(ours)
    (etc.netns / "db").mkdir(parents=True)
    (etc.netns / "web").symlink_to(other)
    etc.file("db").symlink_to(other / "resolv.conf")
    for name in ("web", "db"):
        assert etc.resolvers.write(name) == ""
        assert etc.resolvers.remove(name) == ""
    assert etc.resolvers.remove_all() == []
    assert (other / "resolv.conf").read_bytes() == ours
    assert etc.file("db").is_symlink()


@pytest.mark.parametrize("kind", ["fifo", "directory", "file instead of the directory"])
def test_what_else_a_person_may_have_put_there(etc: Etc, kind: str) -> None:
    etc.netns.mkdir()
    match kind:
        case "fifo":
            etc.file().parent.mkdir()
            os.mkfifo(etc.file())
        case "directory":
            etc.file().mkdir(parents=True)
        case _:
            etc.file().parent.touch()
    before = sorted(etc.netns.rglob("*"))
    assert etc.resolvers.write("web") == ""
    assert etc.resolvers.remove("web") == ""
    assert sorted(etc.netns.rglob("*")) == before


def test_a_draft_that_was_left_is_no_hindrance(etc: Etc) -> None:
    etc.netns.mkdir()
    (etc.netns / ".resolv.conf.vethd").symlink_to(etc.sources[0])
    etc.resolvers.write("web")
    assert etc.servers() == ["192.0.2.53", "2001:db8::53"]
    assert os.listdir(etc.netns) == ["web"]
    assert etc.sources[0].read_bytes() == HOSTS


def test_what_cannot_be_written_is_a_remark_of_one_line(etc: Etc) -> None:
    etc.netns.touch()
    remark = etc.resolvers.write("a\nb")
    assert remark.startswith(f"{etc.netns}/a\\x0ab/resolv.conf: ")
    assert remark.isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=NAMES)
def test_any_name_has_its_file_and_leaves_nothing(etc: Etc, raw: bytes) -> None:
    name = os.fsdecode(raw)
    assert etc.resolvers.write(name) == ""
    assert os.listdir(os.fsencode(etc.netns)) == [raw]
    assert etc.resolvers.keep_only({name}) == []
    (removed,) = etc.resolvers.keep_only(())
    assert removed.isprintable()
    assert os.listdir(etc.netns) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a"])
def test_what_is_no_name_goes_nowhere(etc: Etc, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        etc.resolvers.write(name)


def test_those_of_namespaces_that_are_gone_are_removed(etc: Etc) -> None:
    for name in ("web", "gone"):
        etc.resolvers.write(name)
    etc.put(PERSONS, "mine")
    resolvers = etc.again()
    resolvers.write("web")
    assert resolvers.keep_only({"web"}) == [str(etc.file("gone"))]
    assert sorted(os.listdir(etc.netns)) == ["mine", "web"]


def test_removing_all_leaves_no_trace(etc: Etc) -> None:
    for name in ("web", "db"):
        etc.resolvers.write(name)
    assert sorted(etc.again().remove_all()) == [str(etc.file("db")), str(etc.file("web"))]
    assert not etc.netns.exists()
    assert etc.again().remove_all() == []


def test_after_removal_a_change_of_the_host_brings_nothing_back(etc: Etc) -> None:
    etc.resolvers.write("web")
    etc.resolvers.remove("web")
    etc.sources[0].write_bytes(b"nameserver 198.51.100.1\n")
    etc.resolvers.refresh()
    assert os.listdir(etc.netns) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../web"])
def test_what_is_no_name_of_a_file_has_none(etc: Etc, name: str) -> None:
    """Others may have written it where the names of namespaces that are gone are read from."""
    etc.put(PERSONS, "web")
    assert etc.resolvers.remove(name, Cookie(7)) == ""
    assert etc.file().read_bytes() == PERSONS
