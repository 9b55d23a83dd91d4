"""``vethd down``: removes every trace of vethd from the host, with the agent stopped."""

from contextlib import ExitStack, suppress
from pathlib import Path

from agent.config import Config
from agent.config.wishes import runtime_wishes
from agent.errors import HostError
from agent.kernel.preflight import claim_host, require_privileges
from agent.kernel.traces import remove_traces
from agent.state.resolvers import Resolvers


def take_down(config: Config) -> list[str]:
    """Remove everything and return what was removed, a line each; nothing on a clean host.

    Raises HostError while an agent runs, KernelError when the kernel refuses.
    """
    require_privileges()
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(claim_host())
        except HostError:
            raise HostError("the agent runs and would make everything anew; stop it first") from None
        removed = remove_traces()
        removed += [f"file {path}" for path in _files(config) if _unlink(path)]
        removed += [f"file {path}" for path in Resolvers().remove_all()]
        _unlink(lock)
    for directory in (config.state_dir, runtime_wishes(config.socket), config.socket.parent, lock.parent):
        with suppress(OSError):
            directory.rmdir()
    return removed


def _files(config: Config) -> list[Path]:
    state = config.state_dir
    wishes = runtime_wishes(config.socket)
    return [config.socket, *state.glob("leases.*"), *state.glob("traffic.*"), *wishes.glob("*.toml")]


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
