"""Start a subject again and again, and read its CPU time and memory from Linux.

A launcher waits in the subject's container, or as a process, and starts the subject when it is told to through a named
pipe. So the measured time does not include the Docker engine or this process, no rights other than those for Docker are
needed, and every start finds the same warm page cache.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.subjects import Subject

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.0005
OUTPUT_CHARACTERS = 4000
FOLDER = "/bench"  # in containers
PERIOD_MICROSECONDS = 20_000  # period of the CPU quota of a limited subject
# The arguments are the pipe and the subject's command. Each time the pipe is opened and closed, the launcher starts the
# subject or kills it, in turn.
PYTHON_LAUNCHER = """
import subprocess, sys
pipe, *command = sys.argv[1:]
while True:
    open(pipe).read()
    child = subprocess.Popen(command)
    open(pipe).read()
    child.kill()
    child.wait()
"""
SHELL_LAUNCHER = """
pipe=$1; shift
listen() { while read -r _; do :; done <"$pipe"; }
while listen; do "$@" & listen; kill -9 $!; wait $!; done
"""


class LaunchError(Exception):
    """A subject could not be started. The message contains its output."""


class Launcher:
    """A launcher of one subject, which waits until it is told to start it."""

    def __init__(self, subject: Subject, folder: Path, name: str) -> None:
        """Create the launcher's pipe.

        Args:
            subject: to start.
            folder: for the files that subjects read.
            name: of the launcher's pipe in the folder.
        """
        self.subject = subject
        self.pid = 0
        self._pipe = folder / name
        os.mkfifo(self._pipe)
        self._pipe.chmod(0o666)  # because the image runs as another user

    def start(self, environment: dict[str, str]) -> None:
        """Start the launcher, but not the subject."""
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def output(self) -> str:
        """Return the end of the subject's output."""
        raise NotImplementedError

    def path(self, file: Path) -> str:
        """Return the path by which the subject finds a file of the folder."""
        raise NotImplementedError

    def limit(self, cpus: float | None) -> None:
        """Limit the CPU time to this number of CPUs; None: no limit."""
        raise NotImplementedError

    def start_subject(self) -> float:
        """Tell the launcher to start the subject; return the time at which it was told."""
        return self._tell()

    def kill_subject(self) -> None:
        """Kill the subject and wait until it is gone, because only then does the launcher read its next command."""
        self._tell()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.has_subject():
            if time.monotonic() > deadline:
                raise LaunchError(f"it still runs {PATIENCE_SECONDS:.0f} s after it was killed")
            time.sleep(POLL_SECONDS)

    def has_subject(self) -> bool:
        """Return whether the subject runs, or has ended but not been reaped."""
        return bool(self._children())

    def child(self) -> Child:
        return Child(int(self._children()[0]))

    def _children(self) -> list[str]:
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()

    def _tell(self) -> float:
        """Open and close the pipe as soon as the launcher listens; return the time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                pipe = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody listens yet
                    raise
                if time.monotonic() > deadline:
                    raise LaunchError("its launcher does not listen") from None
                time.sleep(POLL_SECONDS)
            else:
                break
        now = time.perf_counter()
        os.close(pipe)
        return now


class Child:
    """The process of the running subject."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads, from the process's own clock (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def has_ended(self) -> bool:
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"  # a zombie until its launcher is told to kill it

    def peak_memory(self) -> int:
        """Return the peak of its resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class ProcessLauncher(Launcher):
    """A launcher of a subject that is a process."""

    def __init__(self, subject: Subject, folder: Path, name: str) -> None:
        super().__init__(subject, folder, name)
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: dict[str, str]) -> None:
        directory = self.subject.working_directory
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-ISc", PYTHON_LAUNCHER, str(self._pipe), *self.subject.command],
                cwd=directory,
                env={"PATH": os.environ["PATH"], "LAMBDA_TASK_ROOT": directory, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def stop(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)  # also kills the subject
            self._process.wait()

    def output(self) -> str:
        return self._log.read_text(errors="replace")[-OUTPUT_CHARACTERS:]

    def path(self, file: Path) -> str:
        return str(file)

    def limit(self, cpus: float | None) -> None:
        raise LaunchError("the CPU time of a process cannot be limited, only that of an image")


class ImageLauncher(Launcher):
    """A launcher of a subject that is an image; it waits in the subject's container."""

    def __init__(self, subject: Subject, folder: Path, name: str) -> None:
        super().__init__(subject, folder, name)
        self._folder = folder
        self._name = f"bench-{os.getpid()}-{name}"

    def start(self, environment: dict[str, str]) -> None:
        subject = self.subject
        try:
            config = json.loads(docker("image", "inspect", "--format={{json .Config}}", subject.image))
        except LaunchError as error:
            raise LaunchError(f"{subject.name}: {error}; build it first, ours with `make images`") from None
        entrypoint = config.get("Entrypoint") or []
        command = [*entrypoint, *(subject.command or config.get("Cmd") or [])]
        if Path(command[0]).name.startswith("python"):
            launcher = [command[0], "-ISc", PYTHON_LAUNCHER]
        else:
            launcher = ["/bin/sh", "-c", SHELL_LAUNCHER, "launcher"]
        docker(
            "run",
            "--detach",
            "--read-only",
            "--tmpfs=/tmp",
            "--cap-drop=ALL",
            "--network=host",  # the servers listen on loopback only
            f"--name={self._name}",
            f"--volume={self._folder}:{FOLDER}:ro",
            *(f"--volume={volume}" for volume in subject.volumes),
            *(f"--env={name}={value}" for name, value in environment.items()),
            f"--entrypoint={launcher[0]}",
            subject.image,
            *launcher[1:],
            self.path(self._pipe),
            *command,
        )
        self.pid = int(docker("inspect", "--format={{.State.Pid}}", self._name))

    def stop(self) -> None:
        docker("rm", "--force", self._name)

    def output(self) -> str:
        logs = subprocess.run(["docker", "logs", "--tail=40", self._name], capture_output=True, text=True, check=False)
        return (logs.stdout + logs.stderr)[-OUTPUT_CHARACTERS:]

    def path(self, file: Path) -> str:
        return f"{FOLDER}/{file.name}"

    def limit(self, cpus: float | None) -> None:
        quota = round(cpus * PERIOD_MICROSECONDS) if cpus else -1
        docker("update", f"--cpu-period={PERIOD_MICROSECONDS}", f"--cpu-quota={quota}", self._name)


def docker(*arguments: str) -> str:
    """Run a Docker command; return its output, or raise LaunchError with its error."""
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise LaunchError(f"docker {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout.strip()
