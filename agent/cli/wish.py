"""How ``vethd new --network`` tells the agent: by a file beside the control socket, read as those in netns.d are."""

import os
from pathlib import Path

from agent.cli.exits import BAD_USAGE, Failure
from agent.cli.render import printable

DIRECTORY = "netns.d"
SUFFIX = b".toml"
LONGEST = 255 - len(SUFFIX)
PATTERNS = b"*?["


class Wish:
    """What is wished for one namespace: its network, or, with None, nothing."""

    def __init__(self, socket: Path, name: bytes, network: str | None) -> None:
        # The agent takes the one for a pattern of names, and leaves hidden files to editors.
        fits = len(name) <= LONGEST and not name.startswith(b".") and not any(each in name for each in PATTERNS)
        if network is not None and not fits:
            shown = printable(os.fsdecode(name))
            allowed = f"at most {LONGEST} bytes, without * ? [ and no dot in front"
            raise Failure(f"{shown}: is no name for --network: must be {allowed}", BAD_USAGE)
        self._directory = socket.parent / DIRECTORY
        self._path = os.path.join(os.fsencode(self._directory), name + SUFFIX) if fits else None
        self._network = network

    def express(self) -> None:
        """Write the file, or remove one that a namespace of this name has left behind. Raises OSError."""
        if self._network is None or self._path is None:
            self.withdraw()
            return
        self._directory.mkdir(mode=0o700, exist_ok=True)
        draft = self._directory / f".{os.getpid()}.new"
        # Whatever the umask: the agent believes no file that others could have written.
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f'# Made by `vethd new`.\nnetwork = "{self._network}"\n')
        os.replace(draft, self._path)

    def withdraw(self) -> None:
        """Remove the file if it is there. Raises OSError."""
        if self._path is not None:
            Path(os.fsdecode(self._path)).unlink(missing_ok=True)
