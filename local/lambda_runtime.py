"""Runs functions as Lambda does: the real awslambdaric polls a Lambda Runtime API of ours.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from httptools import HttpParserError, HttpRequestParser

from local.events import new_span_id, new_trace_id
from local.gateway import Invocation
from local.launch import Launched
from local.resources import REGION, Function

API = "/2018-06-01/runtime"
INIT_SECONDS = 10.0  # Lambda's own limit for the init phase
STOP_SECONDS = 2.0

logger = logging.getLogger(__name__)

Answer = Callable[[HTTPStatus, dict[str, str], bytes], None]
# Starts `python -m awslambdaric` for a function, given its environment variables.
Launch = Callable[[Function, dict[str, str]], Awaitable[Launched]]


class InitError(Exception):
    """A function's init phase failed; the message is the function's own."""


@dataclass
class Pending:
    """An invocation that waits for its answer."""

    payload: bytes
    answer: asyncio.Future[Invocation]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timer: asyncio.TimerHandle | None = None

    def settle(self, invocation: Invocation) -> None:
        if self.timer:
            self.timer.cancel()
        if not self.answer.done():
            self.answer.set_result(invocation)


class FunctionRunner:
    """A function with up to `concurrency` execution environments; more invocations than that wait in line."""

    def __init__(
        self, function: Function, launch: Launch, environment: dict[str, str], *, concurrency: int = 2
    ) -> None:
        self.function = function
        self.launch = launch
        self.environment = environment
        self.concurrency = concurrency
        self._environments: set[ExecutionEnvironment] = set()
        self._idle: dict[ExecutionEnvironment, Callable[[Pending], None]] = {}
        self._waiting: deque[Pending] = deque()
        self._stopped = False

    async def start(self) -> None:
        """Runs the init phase of one environment, so that a broken function is known before the first client.

        Raises:
            InitError: it failed.
        """
        environment = self._add()
        await environment.initialized
        if environment.init_error:
            raise InitError(f"{self.function.name}: {environment.init_error.message}")

    def invoke(self, event: dict[str, Any]) -> asyncio.Future[Invocation]:
        """Begins at once. Never raises for what the function does: errors, crashes and timeouts are in the result."""
        pending = Pending(json.dumps(event).encode(), asyncio.get_running_loop().create_future())
        if self._idle:
            _, begin = self._idle.popitem()
            begin(pending)
        else:
            self._waiting.append(pending)
            if len(self._environments) < self.concurrency:
                self._add()
        return pending.answer

    async def stop(self) -> None:
        self._stopped = True
        while self._waiting:
            self._waiting.popleft().settle(Invocation(error="Runtime.Stopped", message="the local run ends"))
        await asyncio.gather(*(environment.stop() for environment in list(self._environments)))

    def next(self, environment: ExecutionEnvironment, begin: Callable[[Pending], None]) -> None:
        """Calls `begin` with what the environment is to work on, as soon as there is something."""
        if self._waiting:
            begin(self._waiting.popleft())
        else:
            self._idle[environment] = begin

    def remove(self, environment: ExecutionEnvironment) -> None:
        """The environment has ended. If that was its init phase, so has the invocation that it was started for."""
        self._environments.discard(environment)
        self._idle.pop(environment, None)
        if environment.init_error and self._waiting:
            self._waiting.popleft().settle(environment.init_error)
        if self._waiting and not self._stopped:
            self._add()

    def _add(self) -> ExecutionEnvironment:
        environment = ExecutionEnvironment(self)
        self._environments.add(environment)
        return environment


class HttpConnection(asyncio.Protocol):
    """HTTP/1.1 for a client that waits for each answer before it asks again.

    A server library does the same with more comfort and takes a fifth of the time that a message takes in all.
    """

    def __init__(self) -> None:
        self.parser = HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.serve(self.parser.get_method().decode(), self.target.decode(), self.body)

    def serve(self, method: str, target: str, body: bytes) -> None:
        """Handle a request; call `answer` now or later."""
        raise NotImplementedError

    def answer(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


class RuntimeApi(HttpConnection):
    """The connection of a runtime."""

    def __init__(self, environment: ExecutionEnvironment) -> None:
        super().__init__()
        self.environment = environment

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except HttpParserError as error:  # or of what a request has set off
            logger.warning("%s: its runtime cannot be served", self.environment.runner.function.target, exc_info=error)
            self.transport.abort()

    def serve(self, method: str, target: str, body: bytes) -> None:
        self.environment.serve(method, target, body, self.answer)

    def answer(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        super().answer(status, {**headers, "Content-Type": "application/json"}, body)


class ExecutionEnvironment:
    """One process or container of a function, and the Runtime API that it polls, on a port of its own."""

    def __init__(self, runner: FunctionRunner) -> None:
        self.runner = runner
        self.initialized = asyncio.get_running_loop().create_future()
        self.init_error: Invocation | None = None
        self._stopping = False
        self._current: Pending | None = None
        self._launched: Launched | None = None
        self._killing: asyncio.Task[None] | None = None
        self._life = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Ends the process, the hard way if it does not go by itself."""
        self._stopping = True
        self._terminate()
        await self._life

    async def _live(self) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: RuntimeApi(self), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            self._launched = await self.runner.launch(self.runner.function, self._variables(port))
            if self._stopping:
                self._terminate()
            init_limit = asyncio.get_running_loop().call_later(INIT_SECONDS, self._give_up_init)
            process = self._launched.process
            await asyncio.gather(process.wait(), self._log(process))
            init_limit.cancel()
            self._ended(process.returncode or 0)
        except OSError as error:
            self._fail_init(Invocation(error="Runtime.LaunchError", message=str(error)))
        finally:
            self.runner.remove(self)
            if self._killing:
                await self._killing
            server.close()

    def _variables(self, port: int) -> dict[str, str]:
        """What Lambda sets, https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html."""
        function = self.runner.function
        return {
            **function.environment,
            **self.runner.environment,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_FORMAT": function.logging.get("LogFormat", "Text"),
            "AWS_LAMBDA_LOG_LEVEL": function.logging.get("ApplicationLogLevel", "INFO"),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.logging.get("LogGroup", f"/aws/lambda/{function.name}"),
            "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{port}",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
        }

    def serve(self, method: str, path: str, body: bytes, answer: Answer) -> None:
        """One request of the runtime."""
        match method, path.removeprefix(API).strip("/").split("/"):
            case "GET", ["invocation", "next"]:
                self._next(answer)
                return
            case "POST", ["invocation", request_id, "response"]:
                self._settle(request_id, answered(body))
            case "POST", ["invocation", request_id, "error"]:
                self._settle(request_id, failed(body))
            case "POST", ["init", "error"]:
                self._fail_init(failed(body))
            case _:
                answer(HTTPStatus.NOT_FOUND, {}, b"")
                return
        answer(HTTPStatus.ACCEPTED, {}, b'{"status":"OK"}')

    def _next(self, answer: Answer) -> None:
        if not self.initialized.done():
            self.initialized.set_result(None)
        self.runner.next(self, partial(self._begin, answer))

    def _begin(self, answer: Answer, pending: Pending) -> None:
        self._current = pending
        if self._launched and self._launched.process.returncode is not None:  # it died while its turn came
            self._ended(self._launched.process.returncode)
            return
        seconds = self.runner.function.timeout_seconds
        pending.timer = asyncio.get_running_loop().call_later(seconds, self._time_out, pending)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": pending.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.runner.function.arn,
            "Lambda-Runtime-Trace-Id": f"Root={new_trace_id()};Parent={new_span_id()};Sampled=0",
        }
        answer(HTTPStatus.OK, headers, pending.payload)

    def _settle(self, request_id: str, invocation: Invocation) -> None:
        if self._current and self._current.request_id == request_id:
            self._current.settle(invocation)
            self._current = None

    def _time_out(self, pending: Pending) -> None:
        """As on Lambda: the invocation fails, and its environment with whatever state it had is gone."""
        message = f"{pending.request_id} Task timed out after {self.runner.function.timeout_seconds:.2f} seconds"
        logger.warning("%s: %s", self.runner.function.target, message)
        pending.settle(Invocation(error="Sandbox.Timedout", message=message))
        self._kill()

    def _give_up_init(self) -> None:
        if not self.initialized.done():
            self._fail_init(Invocation(error="Sandbox.Timedout", message=f"init took over {INIT_SECONDS:.0f} s"))
            self._kill()

    def _fail_init(self, invocation: Invocation) -> None:
        self.init_error = self.init_error or invocation
        if not self.initialized.done():
            self.initialized.set_result(None)

    def _ended(self, status: int) -> None:
        exited = Invocation(error="Runtime.ExitError", message=f"the runtime exited with status {status}")
        if not self.initialized.done():
            self._fail_init(exited)
        if self._current:
            self._current.settle(exited)
            self._current = None

    def _terminate(self) -> None:
        if self._launched and self._launched.process.returncode is None:
            self._launched.terminate()
            kill = asyncio.get_running_loop().call_later(STOP_SECONDS, self._kill)
            self._life.add_done_callback(lambda _: kill.cancel())

    def _kill(self) -> None:
        if self._launched and self._launched.process.returncode is None and not self._killing:
            self._killing = asyncio.create_task(self._launched.kill())

    async def _log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        output = logging.getLogger(f"function.{self.runner.function.target}")
        while True:
            try:
                line = await process.stdout.readuntil()
            except asyncio.LimitOverrunError as long:
                line = await process.stdout.readexactly(long.consumed)
            except asyncio.IncompleteReadError as end:
                line = end.partial
            if not line:
                return
            output.info(line.decode(errors="replace").rstrip("\n"))


def answered(body: bytes) -> Invocation:
    try:
        return Invocation(answer=json.loads(body))
    except ValueError:
        return Invocation(error="Runtime.MarshalError", message="the response is not JSON")


def failed(body: bytes) -> Invocation:
    try:
        error = json.loads(body)
        return Invocation(error=error["errorType"], message=error["errorMessage"])
    except (ValueError, LookupError, TypeError):
        return Invocation(error="Runtime.Unknown", message="the runtime reported an error without saying which")
