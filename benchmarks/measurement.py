"""Measure subjects in rounds: each round starts each subject once."""

from __future__ import annotations

import asyncio
import gc
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificate import make_tls
from benchmarks.figures import FULL_MB, LIMITED_MB, Figures, Start, Traffic
from benchmarks.instructions import Counter
from benchmarks.launchers import ImageLauncher, Launcher, LaunchError, ProcessLauncher
from benchmarks.loopback import JSON, FixedAnswer, FunctionError, HttpServer, RuntimeApi, TraceDaemon
from benchmarks.subjects import Subject
from benchmarks.user_pool import UserPool

PATIENCE_SECONDS = 30.0
# Longer than the period of the CPU quota, so that each limited request has a full quota, as on Lambda.
PAUSE_SECONDS = 0.025
# As Lambda sets them, https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html.
LAMBDA_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example",
    "AWS_SESSION_TOKEN": "example",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_LAMBDA_LOG_FORMAT": "JSON",
    "AWS_LAMBDA_LOG_LEVEL": "INFO",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/benchmark",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef",
    "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    "TZ": ":UTC",
}


@dataclass(frozen=True)
class Bench:
    """A subject that is ready to be started, and the servers that it calls."""

    subject: Subject
    launcher: Launcher
    runtime_api: RuntimeApi
    services: dict[str, HttpServer]
    trace_daemon: TraceDaemon
    counter: Counter | None

    async def start(self, memory_mb: int, requests: int) -> Start:
        """Measure one cold start, and this number of warm requests after it.

        Raises:
            LaunchError: the subject failed; the message contains its output.
        """
        try:
            return await self._start(memory_mb, requests)
        except TimeoutError:
            problem = f"it did not answer for {PATIENCE_SECONDS:.0f} s"
        except (FunctionError, LaunchError) as error:
            problem = str(error)
        raise LaunchError(f"{self.subject.name} ({self.subject.place}): {problem}\n{self.launcher.output()}".rstrip())

    async def _start(self, memory_mb: int, requests: int) -> Start:
        self.runtime_api.expect_start()
        traffic, instructions = self._count_traffic(), self._count_instructions()
        started_at = self.launcher.start_subject()
        init = await self._wait_until_idle() - started_at
        child = self.launcher.child()
        cpu_init = child.cpu_seconds()
        if self.subject.image:
            self.launcher.limit(memory_mb / FULL_MB)
        first = await self._send_request()
        cpu_first = child.cpu_seconds()
        executed = self._count_instructions() - instructions
        warm = []
        for _ in range(requests):
            if memory_mb < FULL_MB:
                await asyncio.sleep(PAUSE_SECONDS)
            warm.append(await self._send_request())
        cpu_warm, peak_memory = child.cpu_seconds(), child.peak_memory()
        self.launcher.kill_subject()
        if self.subject.image:
            self.launcher.limit(None)
        return Start(
            memory_mb=memory_mb,
            init=init,
            first=first,
            warm=warm,
            cpu_init=cpu_init,
            cpu_first=cpu_first - cpu_init,
            cpu_warm=cpu_warm - cpu_first,
            peak_memory=peak_memory,
            instructions=executed if self.counter else None,
            traffic={
                name: Traffic(now.connections - traffic[name].connections, now.requests - traffic[name].requests)
                for name, now in self._count_traffic().items()
            },
        )

    async def _send_request(self) -> float:
        """Return the seconds until the answer, without the time until the runtime asks for its next invocation."""
        event = self.subject.event.encode()
        async with asyncio.timeout(PATIENCE_SECONDS):
            seconds, answer = await self.runtime_api.invoke(event, sampled=self.subject.sampled)
        await self._wait_until_idle()
        if self.subject.expect not in answer.decode():
            raise LaunchError(f"its answer does not contain {self.subject.expect}: {answer.decode()}")
        return seconds

    async def _wait_until_idle(self) -> float:
        """Wait until the subject asks for an invocation; return the time at which it asked."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                async with asyncio.timeout(1):
                    return await self.runtime_api.wait_until_idle()
            except TimeoutError:
                if self.launcher.child().has_ended():
                    raise LaunchError("it ended without asking for an invocation") from None
                if time.monotonic() > deadline:
                    raise

    def _count_traffic(self) -> dict[str, Traffic]:
        return {
            **{name: Traffic(server.connections, server.requests) for name, server in self.services.items()},
            "X-Ray": Traffic(0, self.trace_daemon.datagrams),
        }

    def _count_instructions(self) -> int:
        return self.counter.read() if self.counter else 0


class Run:
    """A run of the benchmark. The exit stack stops everything that the run starts."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        folder.chmod(0o755)  # because an image runs as another user
        self._folder = folder
        self._stack = stack
        self._user_pool = UserPool()
        self._tls = make_tls(folder)
        self.not_counted: OSError | None = None  # why there are no instruction counts

    async def prepare(self, subject: Subject, name: str) -> Bench:
        """Start the servers and the launcher of a subject."""
        services: dict[str, HttpServer] = {
            "Cognito": FixedAnswer(self._user_pool.build_jwks(), JSON),
            "DynamoDB": FixedAnswer(b"{}", {"Content-Type": "application/x-amz-json-1.0"}),
            "@connections": FixedAnswer(b"", {}),
        }
        addresses = {service: await self._listen(server, self._tls.context) for service, server in services.items()}
        runtime_api = RuntimeApi()
        runtime_address = await self._listen(runtime_api, None)
        daemon_address, trace_daemon = await self._listen_for_traces()

        launcher = (ImageLauncher if subject.image else ProcessLauncher)(subject, self._folder, name)
        certificate, bundle = launcher.path(self._tls.certificate), launcher.path(self._tls.bundle)
        values = {
            "<id-token>": self._user_pool.sign_id_token(),
            "<modulus>": str(self._user_pool.modulus),
            "<cognito-address>": addresses["Cognito"],
            "<dynamodb-address>": addresses["DynamoDB"],
            "<connections-address>": addresses["@connections"],
            "<certificate>": certificate,
        }
        filled = subject.with_values(values)
        directory = launcher.path(self._tls.directory)
        trust = {"SSL_CERT_DIR": directory, "AWS_CA_BUNDLE": bundle, "NODE_EXTRA_CA_CERTS": certificate}
        own = {"AWS_LAMBDA_RUNTIME_API": runtime_address, "AWS_XRAY_DAEMON_ADDRESS": daemon_address}
        self._stack.callback(launcher.stop)
        launcher.start({**LAMBDA_VARIABLES, **trust, **own, **filled.environment})
        return Bench(filled, launcher, runtime_api, services, trace_daemon, self._start_counter(launcher.pid))

    async def _listen(self, server: HttpServer, tls: ssl.SSLContext | None) -> str:
        address = await server.start(tls)
        self._stack.callback(server.stop)
        return address

    async def _listen_for_traces(self) -> tuple[str, TraceDaemon]:
        loop = asyncio.get_running_loop()
        transport, trace_daemon = await loop.create_datagram_endpoint(TraceDaemon, ("127.0.0.1", 0))
        self._stack.callback(transport.close)
        host, port = transport.get_extra_info("sockname")
        return f"{host}:{port}", trace_daemon

    def _start_counter(self, pid: int) -> Counter | None:
        try:
            counter = Counter(pid)
        except OSError as error:
            self.not_counted = error
            return None
        self._stack.callback(counter.close)
        return counter


async def measure(
    subjects: Sequence[Subject], rounds: int, requests: int, say_round: Callable[[int], None]
) -> tuple[list[Figures], OSError | None]:
    """Measure every subject in every round; return the figures, and the error if instructions could not be counted.

    Round 0 fills caches and is not measured.

    Raises:
        LaunchError: a subject failed; the message names it and contains its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            run = Run(Path(folder), stack)
            benches = [await run.prepare(subject, f"subject-{number}") for number, subject in enumerate(subjects)]
            figures = [Figures(bench.subject) for bench in benches]
            gc.freeze()  # a garbage collection would falsify a measurement
            for number in range(rounds + 1):
                say_round(number)
                for bench, figure in zip(benches, figures, strict=True):
                    for memory_mb in choose_memory(bench.subject, number):
                        start = await bench.start(memory_mb, requests if number else 1)
                        if number:
                            figure.starts.append(start)
    return figures, run.not_counted


def choose_memory(subject: Subject, number: int) -> Iterator[int]:
    """Yield the memory sizes, which limit the CPU time, for a subject in a round. To save time, the small sizes alternate."""
    yield FULL_MB
    if subject.image and not subject.sampled and number:
        yield LIMITED_MB[number % len(LIMITED_MB)]
