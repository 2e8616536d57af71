"""Runs an execution environment: the real awslambdaric polls a Lambda Runtime API of ours.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from httptools import HttpParserError

from local.ids import new_span_id, new_trace_id
from local.lambda_.function import Function
from local.lambda_.http import HttpConnection
from local.lambda_.invocation import Invocation, Pending
from local.lambda_.launched import Launch, Launched

API = "/2018-06-01/runtime"
INIT_SECONDS = 10.0  # Lambda's own limit for the init phase
STOP_SECONDS = 2.0
MAX_ANSWER_BYTES = 6 * 1024 * 1024 + 100  # Lambda's own limit

logger = logging.getLogger(__name__)

Answer = Callable[[HTTPStatus, dict[str, str], bytes], None]
Begin = Callable[[Pending], None]


class RuntimeApi(HttpConnection):
    """The connection of a runtime."""

    def __init__(self, environment: ExecutionEnvironment) -> None:
        super().__init__()
        self.environment = environment

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except HttpParserError as error:  # or of what a request has set off
            logger.warning("%s: its runtime cannot be served", self.environment.function.target, exc_info=error)
            self.transport.abort()

    def on_body(self, part: bytes) -> None:
        if len(self.body) <= MAX_ANSWER_BYTES:  # the rest is not needed to refuse it
            super().on_body(part)

    def serve(self, method: str, target: str, body: bytes) -> None:
        self.environment.serve(method, target, body, self.answer)

    def answer(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        super().answer(status, {**headers, "Content-Type": "application/json"}, body)


class ExecutionEnvironment:
    """One process or container of a function, and the Runtime API that it polls, on a port of its own.

    Attributes:
        initialized: done after the init phase, whether it succeeded or not.
        init_error: why the init phase failed.
    """

    def __init__(
        self,
        function: Function,
        launch: Launch,
        variables: dict[str, str],
        *,
        on_ready: Callable[[ExecutionEnvironment, Begin], None],
        on_end: Callable[[ExecutionEnvironment], None],
    ) -> None:
        """Start it.

        Args:
            function: as the template declares it.
            launch: starts the process.
            variables: that it gets besides those of Lambda and the template.
            on_ready: called when it can begin an invocation, with what begins it.
            on_end: called when it has ended.
        """
        self.function = function
        self.launch = launch
        self.initialized = asyncio.get_running_loop().create_future()
        self.init_error: Invocation | None = None
        self._stack: list[str] = []  # of the init error
        self._given = variables
        self._on_ready = on_ready
        self._on_end = on_end
        self._ending = False
        self._current: Pending | None = None
        self._launched: Launched | None = None
        self._killing: asyncio.Task[None] | None = None
        self._life = asyncio.create_task(self._live())

    @property
    def pid(self) -> int | None:
        """The process; None before there is one."""
        return self._launched.process.pid if self._launched else None

    def explain_init_error(self) -> str:
        """Return type and message of the init error, with the lines of the user's code that it comes from."""
        assert self.init_error
        return "\n".join((f"{self.init_error.error}: {self.init_error.message}", *self._stack))

    def end(self) -> None:
        """Let the process end, the hard way if it does not go by itself."""
        self._ending = True
        if self._launched and self._launched.process.returncode is None:
            self._launched.terminate()
            kill = asyncio.get_running_loop().call_later(STOP_SECONDS, self._kill)
            self._life.add_done_callback(lambda _: kill.cancel())

    async def stop(self) -> None:
        self.end()
        await self._life

    async def _live(self) -> None:
        server = None
        try:
            server = await asyncio.get_running_loop().create_server(lambda: RuntimeApi(self), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            self._launched = await self.launch(self.function, self._variables(port))
            await self._attend(self._launched)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for this environment
            self._fail(Invocation(error="Runtime.StartFailed", message=str(error) or type(error).__name__))
        finally:
            self._on_end(self)
            if server:
                server.close()

    async def _attend(self, launched: Launched) -> None:
        """Return when the process has ended and everything that it has left is gone."""
        if self._ending:
            self.end()
        init_limit = asyncio.get_running_loop().call_later(INIT_SECONDS, self._give_up_init)
        logging_ = asyncio.create_task(self._log(launched))
        status = await launched.process.wait()
        init_limit.cancel()
        if self._killing:
            await self._killing
        await launched.clean_up()
        await logging_
        self._fail(Invocation(error="Runtime.ExitError", message=f"the runtime exited with status {status}"))

    def _variables(self, port: int) -> dict[str, str]:
        """What Lambda sets, https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html."""
        function = self.function
        return {
            **function.environment,
            **self._given,
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
        """Serve one request of the runtime."""
        match method, path.removeprefix(API).strip("/").split("/"):
            case "GET", ["invocation", "next"]:
                self._next(answer)
                return
            case "POST", ["invocation", request_id, "response"]:
                self._settle(request_id, parse_answer(body))
            case "POST", ["invocation", request_id, "error"]:
                self._settle(request_id, parse_error(body))
            case "POST", ["init", "error"]:
                self._fail_init(parse_error(body))
            case _:
                answer(HTTPStatus.NOT_FOUND, {}, b"")
                return
        answer(HTTPStatus.ACCEPTED, {}, b'{"status":"OK"}')

    def _next(self, answer: Answer) -> None:
        if not self.initialized.done():
            self.initialized.set_result(None)
        self._on_ready(self, partial(self._begin, answer))

    def _begin(self, answer: Answer, pending: Pending) -> None:
        self._current = pending
        if self._launched and self._launched.process.returncode is not None:
            return  # it died as its turn came: `_fail` settles the invocation
        seconds = self.function.timeout_seconds
        pending.timer = asyncio.get_running_loop().call_later(seconds, self._time_out, pending)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": pending.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.function.arn,
            "Lambda-Runtime-Trace-Id": f"Root={new_trace_id()};Parent={new_span_id()};Sampled=0",
        }
        answer(HTTPStatus.OK, headers, pending.payload)

    def _settle(self, request_id: str, invocation: Invocation) -> None:
        if self._current and self._current.request_id == request_id:
            self._current.settle(invocation)
            self._current = None

    def _time_out(self, pending: Pending) -> None:
        """As on Lambda: the invocation fails, and its environment with whatever state it had is gone."""
        message = f"{pending.request_id} Task timed out after {self.function.timeout_seconds:.2f} seconds"
        logger.warning("%s: %s", self.function.target, message)
        pending.settle(Invocation(error="Sandbox.Timedout", message=message))
        self._kill()

    def _give_up_init(self) -> None:
        if not self.initialized.done():
            self._fail_init(Invocation(error="Sandbox.Timedout", message=f"init took over {INIT_SECONDS:.0f} s"))
            self._kill()

    def _fail_init(self, invocation: Invocation) -> None:
        if not self.initialized.done():
            self.init_error = invocation
            self.initialized.set_result(None)

    def _fail(self, invocation: Invocation) -> None:
        """Fail what the environment was doing when it ended."""
        self._fail_init(invocation)
        if self._current:
            self._current.settle(invocation)
            self._current = None

    def _kill(self) -> None:
        self._ending = True
        if self._launched and self._launched.process.returncode is None and not self._killing:
            self._killing = asyncio.create_task(self._launched.kill())

    async def _log(self, launched: Launched) -> None:
        output = launched.process.stdout
        assert output
        log = logging.getLogger(f"function.{self.function.target}")
        while True:
            try:
                line = await output.readuntil()
            except asyncio.LimitOverrunError as long:
                line = await output.readexactly(long.consumed)
            except asyncio.IncompleteReadError as end:
                line = end.partial
            if not line:
                return
            log.info(launched.localize(line.decode(errors="replace").rstrip("\n")))


def parse_answer(body: bytes) -> Invocation:
    try:
        return Invocation(answer=json.loads(body))
    except ValueError:
        return Invocation(error="Runtime.MarshalError", message="the response is not JSON")


def parse_error(body: bytes) -> Invocation:
    try:
        error = json.loads(body)
        return Invocation(error=error["errorType"], message=error["errorMessage"])
    except (ValueError, LookupError, TypeError):
        return Invocation(error="Runtime.Unknown", message="the runtime reported an error without saying which")
