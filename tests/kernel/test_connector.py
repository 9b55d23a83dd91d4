"""What the process connector tells, with either filter: real processes, in a private host."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from agent.demo.isolation import inside
from agent.demo.private_host import PrivateHost
from agent.errors import HostError
from agent.kernel import cn_proc, connector, netnsfilter, procfs
from agent.kernel.btf import Types, UnknownTypeError
from agent.kernel.connector import Connector, Event
from tests.harness.movers import moved
from tests.harness.netns import add_netns
from tests.harness.waiting import eventually

_TINY = 1
_CLONE_PARENT = 0x8000


@contextlib.contextmanager
def listening(*passed_over: int, buffer_bytes: int = connector.BUFFER_BYTES) -> Iterator[Connector]:
    listener = Connector(passed_over, buffer_bytes)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def plain(private_host: PrivateHost) -> Iterator[Connector]:
    """With the simple filter, as where the kernel lets no other be."""
    with listening() as listener:
        yield listener


@pytest.fixture
def sighted(private_host: PrivateHost) -> Iterator[Connector]:
    """With the filter that passes over processes of the host's own namespace."""
    with listening(host()) as listener:
        assert listener.passes_over
        yield listener


def host() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def heard(listener: Connector) -> list[Event]:
    """What has come; the kernel has queued it by the time whoever did it goes on."""
    events, lost = listener.take()
    assert not lost
    return events


def involved(events: list[Event]) -> set[int]:
    """The processes that events are about; others on the machine have namespaces of their own too."""
    return {pid for _, *pids in events for pid in pids}


def in_a_child(deed: Callable[[], object]) -> int:
    """Do something in a process of its own, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            deed()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def rename() -> None:
    with open("/proc/self/comm", "w") as name:
        name.write("renamed")


def test_new_processes_and_programs_are_told(plain: Connector) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    ours = [(what, pid, child) for what, pid, child in heard(plain) if process.pid in (pid, child)]
    assert (cn_proc.FORK, os.getpid(), process.pid) in ours
    assert cn_proc.EXEC in [what for what, pid, _ in ours if pid == process.pid]


DEEDS: dict[str, tuple[Callable[[], object], int]] = {
    "name": (rename, cn_proc.COMM),
    "session": (os.setsid, cn_proc.SID),
    "user": (lambda: os.setuid(65534), cn_proc.UID),
    "group": (lambda: os.setgid(65534), cn_proc.GID),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_process_does_with_itself_is_told(plain: Connector, deed: str) -> None:
    act, kind = DEEDS[deed]
    pid = in_a_child(act)
    assert kind in [what for what, process, _ in heard(plain) if process == pid]


def test_threads_and_ends_of_processes_are_kept_back(plain: Connector) -> None:
    def name_thread() -> None:
        with open("/proc/thread-self/comm", "w") as name:
            name.write("renamed")

    thread = threading.Thread(target=name_thread)
    thread.start()
    thread.join()
    pid = in_a_child(lambda: None)
    assert [event for event in heard(plain) if pid in event or event[1] == os.getpid()] == [
        (cn_proc.FORK, os.getpid(), pid)
    ]


def test_more_events_than_one_system_call_takes_are_taken(plain: Connector) -> None:
    count = connector.AT_ONCE + 1
    shell = subprocess.Popen(["sh", "-c", f"for each in $(seq {count}); do (:); done"])
    shell.wait()
    children = {child for what, pid, child in heard(plain) if what == cn_proc.FORK and pid == shell.pid}
    assert len(children) >= count


def test_a_loss_is_told_once_all_that_is_left_was_taken(private_host: PrivateHost) -> None:
    with listening(buffer_bytes=_TINY) as listener:
        for _ in range(100):
            in_a_child(lambda: None)
        events, lost = listener.take()
        assert lost
        assert 0 < len(events) < 100

        # And all is well again, unless the machine is busy just then.
        def is_heard() -> bool:
            listener.take()
            pid = in_a_child(lambda: None)
            return pid in involved(listener.take()[0])

        eventually(is_heard, 5, "an event comes through")


def test_the_host_s_own_processes_are_passed_over(sighted: Connector) -> None:
    process = subprocess.Popen(["sh", "-c", "true; /bin/true; setsid /bin/true"])
    process.wait()
    pid = in_a_child(rename)
    assert not {os.getpid(), process.pid, pid} & involved(heard(sighted))


@pytest.mark.parametrize("way", ["exec", "clone", "fork", "name"])
def test_whoever_is_elsewhere_is_heard(sighted: Connector, way: str) -> None:
    with moved(way) as mover:

        def is_heard() -> bool:
            return mover.pid in involved(heard(sighted))

        eventually(is_heard, 5, "an event tells of the process")


def test_whoever_enters_and_runs_a_program_is_heard(sighted: Connector) -> None:
    add_netns("web")
    process = subprocess.Popen(["ip", "netns", "exec", "web", "true"])
    process.wait()
    assert (cn_proc.EXEC, process.pid) in [event[:2] for event in heard(sighted)]


def test_a_move_alone_makes_no_event(sighted: Connector) -> None:
    # Hence the look at all processes now and then.
    with moved("nothing") as mover:
        assert mover.pid not in involved(heard(sighted))
        assert procfs.netns_of(mover.pid) != host()


def test_a_child_made_for_somebody_else_is_heard_of(sighted: Connector) -> None:
    # The filter finds it not among its maker's children, and cannot tell where it is.
    program = f"from tests.harness.moving import clone; clone({_CLONE_PARENT})"
    subprocess.run([sys.executable, "-c", program], check=True)
    children = [child for what, pid, child in heard(sighted) if what == cn_proc.FORK and pid == os.getpid()]
    assert len(children) == 1
    os.waitpid(children[0], 0)


def test_without_a_better_filter_the_simple_one_serves(
    private_host: PrivateHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UnknownTypeError("task_struct")

    monkeypatch.setattr(netnsfilter, "pass_elsewhere", refuse)
    with listening(host()) as listener:
        assert not listener.passes_over
        pid = in_a_child(lambda: None)
        assert pid in [child for _, _, child in heard(listener)]


def test_types_that_the_kernel_does_not_have_are_refused() -> None:
    types = Types()
    assert types.offset("nsproxy", "net_ns") % 8 == 0
    for names in [("no_such_structure", "member"), ("nsproxy", "no_such_member"), ("nsproxy", "children")]:
        with pytest.raises(UnknownTypeError):
            types.offset(*names)


def test_subscribing_leaves_the_thread_where_it_was(private_host: PrivateHost) -> None:
    add_netns("web")
    with inside("web"):
        before = host()
        with listening():
            assert host() == before


def test_another_pid_namespace_has_no_connector(private_host: PrivateHost) -> None:
    program = "from agent.kernel.connector import Connector; Connector()"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{HostError.__module__}.{HostError.__name__}: ")
    assert "initial pid namespace" in last
