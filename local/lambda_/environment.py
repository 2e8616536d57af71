"""Runs functions as Lambda does: the real awslambdaric polls a Lambda Runtime API of ours.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local.lambda_.http import HttpConnection

if TYPE_CHECKING:
    from local.lambda_.runner import FunctionRunner


import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from httptools import HttpParserError

from local.ids import new_span_id, new_trace_id
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation
from local.lambda_.launch import Launched

API = "/2018-06-01/runtime"
INIT_SECONDS = 10.0  # Lambda's own limit for the init phase
STOP_SECONDS = 2.0

logger = logging.getLogger(__name__)

Answer = Callable[[HTTPStatus, dict[str, str], bytes], None]
# Starts `python -m awslambdaric` for a function, given its environment variables.
Launch = Callable[[Function, dict[str, str]], Awaitable[Launched]]


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
            "AWS_REGION": function.region,
            "AWS_DEFAULT_REGION": function.region,
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
