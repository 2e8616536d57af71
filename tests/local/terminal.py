"""A terminal for programs that want one, such as wscat."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from pathlib import Path
from typing import Self

PATIENCE_SECONDS = 30.0


def take_terminal() -> None:
    """Make standard input the terminal of this session. Whoever runs the tests may ignore SIGHUP, as nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY)


class Terminal:
    """Runs a shell line in a pseudoterminal; its end is the end of the line's programs."""

    def __init__(self, line: str, folder: Path, environment: dict[str, str]) -> None:
        self._screen, inside = pty.openpty()
        self._shown = ""
        self._process = subprocess.Popen(
            ["sh", "-c", line],
            cwd=folder,
            env=environment,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - these tests start no threads
        )
        os.close(inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen >= 0:
            self.type("\x03")
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
            self.close()

    def close(self) -> None:
        """Close the terminal, as the user closes its window."""
        if self._screen >= 0:
            os.close(self._screen)
        self._screen = -1

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def expect(self, text: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until the text appears after what was expected before."""
        deadline = time.monotonic() + seconds
        while text not in self._shown:
            readable, *_ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{text!r} has not appeared, this has: {self._shown!r}"
            self._shown += os.read(self._screen, 65536).decode()
        self._shown = self._shown.partition(text)[2]
