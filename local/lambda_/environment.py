"""Runs an execution environment: serves a Lambda Runtime API, which the real awslambdaric polls.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus

from httptools import HttpParserError

from local.journal import Journal
from local.lambda_.function import Function
from local.lambda_.http import HttpConnection
from local.lambda_.init_errors import find_error_lines
from local.lambda_.invocation import Invocation, InvocationResult
from local.lambda_.log_line import LogLine
from local.lambda_.runtime_process import Launch, RuntimeProcess
from local.lambda_.variables import collect_variables

API = "/2018-06-01/runtime"
INIT_SECONDS = 10.0  # Lambda's own limit before the first invocation
STOP_SECONDS = 2.0
MAX_ANSWER_BYTES = 6 * 1024 * 1024 + 100  # Lambda's own limit

logger = logging.getLogger(__name__)

Answer = Callable[[HTTPStatus, dict[str, str], bytes], None]
Begin = Callable[[Invocation], None]


class RuntimeApi(HttpConnection):
    """A runtime's HTTP connection to the Runtime API."""

    def __init__(self, environment: ExecutionEnvironment) -> None:
        super().__init__()
        self.environment = environment

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except HttpParserError as error:  # a malformed request, or an exception in a callback of the parser
            logger.warning("%s: its runtime cannot be served", self.environment.function.target, exc_info=error)
            self.transport.abort()

    def on_body(self, part: bytes) -> None:
        if len(self.body) <= MAX_ANSWER_BYTES:  # a larger body is refused, so the rest is not kept
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
        on_exit: Callable[[ExecutionEnvironment], None],
        on_end: Callable[[ExecutionEnvironment], None],
        journal: Journal | None = None,
    ) -> None:
        """Start the environment.

        Args:
            function: the function that it runs.
            launch: starts the process.
            variables: environment variables in addition to those of Lambda and of the template.
            on_ready: called when it can begin an invocation, with a function that begins the invocation.
            on_exit: called when its process has exited, so it cannot begin an invocation any more.
            on_end: called when its process has exited and is cleaned up.
            journal: where its log is recorded.
        """
        self.function = function
        self.launch = launch
        self.journal = journal
        self.initialized = asyncio.get_running_loop().create_future()
        self.init_error: InvocationResult | None = None
        self._init_error_lines: list[str] = []
        self._last_lines: deque[str] = deque(maxlen=3)  # of the init phase's log
        self.extra_variables = variables
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._on_end = on_end
        self._ending = False
        self._started_at = time.time()
        self._init: tuple[float, float] | None = None  # when the init phase began and ended, until the first invocation
        self._current: Invocation | None = None
        self._launched: RuntimeProcess | None = None
        self._killing: asyncio.Task[None] | None = None
        self._running = asyncio.create_task(self._run())

    def explain_init_error(self) -> str:
        """Return type and message of the init error, and the lines of the user's code that caused it."""
        assert self.init_error
        explanation = "\n".join((f"{self.init_error.error}: {self.init_error.message}", *self._init_error_lines))
        return self._launched.localize(explanation) if self._launched else explanation

    def end(self) -> None:
        """Send SIGTERM to the process, and SIGKILL if it has not ended after STOP_SECONDS."""
        self._ending = True
        if self._launched and self._launched.process.returncode is None:
            self._launched.terminate()
            kill = asyncio.get_running_loop().call_later(STOP_SECONDS, self._kill)
            self._running.add_done_callback(lambda _: kill.cancel())

    async def stop(self) -> None:
        self.end()
        await self._running

    async def _run(self) -> None:
        server = None
        try:
            server = await asyncio.get_running_loop().create_server(lambda: RuntimeApi(self), "127.0.0.1", 0)
            host, port = server.sockets[0].getsockname()
            variables = collect_variables(self.function, self.extra_variables, f"{host}:{port}")
            self._launched = await self.launch(self.function, variables)
            await self._wait_for_exit(self._launched)
        except Exception as error:  # noqa: BLE001 - after any error, no invocation may wait for this environment
            self._fail(InvocationResult(error="Runtime.StartFailed", message=str(error) or type(error).__name__))
        finally:
            self._on_end(self)
            if server:
                server.close()

    async def _wait_for_exit(self, launched: RuntimeProcess) -> None:
        """Wait until the process has exited, then clean up."""
        if self._ending:
            self.end()
        seconds = max(INIT_SECONDS, self.function.timeout_seconds)  # Lambda repeats the init phase in the invocation
        init_limit = asyncio.get_running_loop().call_later(seconds, self._give_up_init, seconds)
        logging_ = asyncio.create_task(self._read_log(launched))
        await launched.process.wait()
        self._on_exit(self)
        init_limit.cancel()
        if self._killing:
            await self._killing
        end = await launched.clean_up()
        await asyncio.wait([logging_], timeout=STOP_SECONDS)  # a process of the function may hold the pipe
        launched.output.close()
        self._fail(end)

    def serve(self, method: str, path: str, body: bytes, answer: Answer) -> None:
        """Serve one request of the runtime."""
        match method, path.removeprefix(API).strip("/").split("/"):
            case "GET", ["invocation", "next"]:
                self._serve_next(answer)
                return
            case "POST", ["invocation", request_id, "response"]:
                self._settle(request_id, parse_answer(body))
                if len(body) > MAX_ANSWER_BYTES:
                    answer(HTTPStatus(413), {}, b"{}")
                    return
            case "POST", ["invocation", request_id, "error"]:
                self._settle(request_id, parse_error(body)[0])
            case "POST", ["init", "error"]:
                error, trace = parse_error(body)
                self._fail_init(error, find_error_lines(error.message, trace, self._launched) if self._launched else [])
            case _:
                answer(HTTPStatus.NOT_FOUND, {}, b"")
                return
        answer(HTTPStatus.ACCEPTED, {}, b'{"status":"OK"}')

    def _serve_next(self, answer: Answer) -> None:
        self._current = None
        if not self.initialized.done():
            self._init = self._started_at, time.time()
            self.initialized.set_result(None)
        if self._ending:
            return  # an invocation would be lost, because the environment is ending
        self._on_ready(self, partial(self._begin, answer))

    def _begin(self, answer: Answer, invocation: Invocation) -> None:
        self._current = invocation
        if self._launched and self._launched.process.returncode is not None:
            return  # the process died just now: `_fail` settles the invocation
        init, self._init = self._init, None
        if invocation.recorder:
            invocation.recorder.begin(init)
        seconds = self.function.timeout_seconds
        invocation.timer = asyncio.get_running_loop().call_later(seconds, self._time_out, invocation)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.function.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_header,
        }
        answer(HTTPStatus.OK, headers, invocation.payload)

    def _settle(self, request_id: str, result: InvocationResult) -> None:
        if self._current and self._current.request_id == request_id:
            self._current.settle(result)

    def _time_out(self, invocation: Invocation) -> None:
        """Fail the invocation and kill the environment, so that its state is lost, as on Lambda."""
        message = f"{invocation.request_id} Task timed out after {self.function.timeout_seconds:.2f} seconds"
        logger.warning("%s: %s", self.function.target, message, extra={"request_id": invocation.request_id})
        invocation.settle(InvocationResult(error="Sandbox.Timedout", message=message))
        self._kill()

    def _give_up_init(self, seconds: float) -> None:
        if not self.initialized.done():
            message = f"init took over {seconds:.0f} s"
            logger.warning("%s: %s", self.function.target, message)
            self._fail_init(InvocationResult(error="Sandbox.Timedout", message=message))
            self._kill()

    def _fail_init(self, result: InvocationResult, lines: Iterable[str] = ()) -> None:
        if not self.initialized.done():
            self.init_error = result
            self._init_error_lines = list(lines)
            self.initialized.set_result(None)

    def _fail(self, result: InvocationResult) -> None:
        """Fail the init phase or the invocation that was running when the environment ended."""
        if self._current:
            message = f"RequestId: {self._current.request_id} Error: {result.message}"
            result = dataclasses.replace(result, message=message)
        if not self._ending and not self.init_error:
            logger.warning("%s: %s %s", self.function.target, result.message, result.error)
        self._fail_init(result, self._last_lines)
        if self._current:
            self._settle(self._current.request_id, result)

    def _kill(self) -> None:
        self._ending = True
        if self._launched and self._launched.process.returncode is None and not self._killing:
            self._killing = asyncio.create_task(self._launched.kill())

    async def _read_log(self, launched: RuntimeProcess) -> None:
        log = logging.getLogger(f"function.{self.function.target}")
        async for line in launched.output.read_lines():
            text = launched.localize(line)
            if not self.initialized.done():
                self._last_lines.append(text)
            running = self._current.request_id if self._current else None
            log.info(text, extra={"request_id": running})
            if self.journal:
                parsed = LogLine.parse(text)
                fact = text.encode() if parsed.record else text
                keys = parsed.request_id or running, parsed.connection_id
                self.journal.record("log", *keys, function=self.function.target, record=fact)


def parse_answer(body: bytes) -> InvocationResult:
    if len(body) > MAX_ANSWER_BYTES:
        limit = f"exceeded maximum allowed payload size ({MAX_ANSWER_BYTES} bytes)."
        return InvocationResult(error="Function.ResponseSizeTooLarge", message=f"Response payload size {limit}")
    try:
        return InvocationResult(answer=json.loads(body), document=body)
    except (ValueError, RecursionError):
        return InvocationResult(error="Runtime.MarshalError", message="the response is not JSON")


def parse_error(body: bytes) -> tuple[InvocationResult, list[str]]:
    """Return the error that the runtime has reported, and the entries of its stack trace."""
    try:
        error = json.loads(body)
        trace = [str(entry) for entry in error.get("stackTrace") or ()]
        return InvocationResult(error=str(error["errorType"]), message=str(error["errorMessage"])), trace
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        unknown = InvocationResult(
            error="Runtime.Unknown", message="the runtime reported an error without saying which"
        )
        return unknown, []
