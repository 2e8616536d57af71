"""The Runtime API: what it passes to a function, and how it handles a runtime's answers."""

from __future__ import annotations

import logging
import re

import pytest

from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import WEBSOCKET_ARN, function
from tests.fixtures.runtime import MakeRuntime

TRACE_HEADER = re.compile(r"Root=(1-[0-9a-f]{8}-[0-9a-f]{24});Parent=[0-9a-f]{16};Sampled=[01]")

NONSENSE = """
import os, urllib.error, urllib.request

def handler(event, context):
    path, body = event
    url = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/{path.format(id=context.aws_request_id)}"
    try:
        return urllib.request.urlopen(url, data=body.encode()).status
    except urllib.error.HTTPError as error:
        return error.code
"""


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("invocation/{id}/response", "not json", "Runtime.MarshalError"),
        ("invocation/{id}/error", "not json", "Runtime.Unknown"),
        ("invocation/{id}/error", "[]", "Runtime.Unknown"),
    ],
)
async def test_invalid_answer_of_a_runtime_is_an_error(
    make_runtime: MakeRuntime, path: str, body: str, error: str
) -> None:
    runtime = make_runtime(NONSENSE, concurrency=1)

    assert (await runtime.invoke([path, body])).error == error
    assert (await runtime.invoke(["nothing/of/the/kind", ""])).answer == 404


async def test_answer_to_another_invocation_is_ignored(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(NONSENSE, concurrency=1)

    invocation = await runtime.invoke(["invocation/00000000-0000-0000-0000-000000000000/response", '"not mine"'])

    assert invocation == InvocationResult(202)


# Sends a response to the Runtime API byte by byte, and returns what the API answers.
PIECEMEAL = """
import os, socket

def handler(event, context):
    host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as api:
        api.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in event.replace("{id}", context.aws_request_id):
            api.sendall(byte.encode())
        return api.recv(1000).partition(b"\\r\\n")[0].decode()
"""
RESPONSE = "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: lambda\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        'Content-Length: 7\r\n\r\n"hello"',
        'Transfer-Encoding: chunked\r\n\r\n4\r\n"hel\r\n3\r\nlo"\r\n0\r\n\r\n',
    ],
    ids=["body", "chunks"],
)
async def test_runtime_may_send_its_answer_in_pieces(make_runtime: MakeRuntime, rest: str) -> None:
    runtime = make_runtime(PIECEMEAL, concurrency=1)

    assert await runtime.invoke(RESPONSE + rest) == InvocationResult("hello")


async def test_runtime_that_does_not_speak_http_is_aborted_and_named(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make_runtime(PIECEMEAL, concurrency=1)

    invocation = await runtime.invoke("hello\r\n\r\n")

    assert not invocation.answer
    assert [record.message for record in caplog.records] == ["websocket: its runtime cannot be served"]


# What a function sees


async def test_every_invocation_has_a_trace_of_its_own(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("import os\ndef handler(event, context): return os.environ['_X_AMZN_TRACE_ID']")

    traces = [TRACE_HEADER.fullmatch((await runtime.invoke({})).answer) for _ in range(2)]

    roots = {trace[1] for trace in traces if trace}
    assert len(roots) == 2


CONTEXT = """
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    return context.aws_request_id, context.invoked_function_arn, context.function_name, context.memory_limit_in_mb, left
"""


async def test_context_describes_the_function_and_the_invocation(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(CONTEXT, timeout_seconds=7)

    (first_id, *facts, left), (second_id, *_) = [(await runtime.invoke({})).answer for _ in range(2)]

    assert facts == [WEBSOCKET_ARN, "Chat-Rooms", "256"]
    assert 0 < left <= 7000
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first_id)
    assert first_id != second_id


ENVIRONMENT = "import os\ndef handler(event, context): return dict(os.environ)"


async def test_function_gets_its_variables_and_those_of_lambda_and_no_others(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    monkeypatch.setenv("SECRET_OF_THE_DESK", "secret")
    settings = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "LogGroup": "group"}
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    runtime = make_runtime(ENVIRONMENT, environment={"ENDPOINT": "local"}, logging=settings)

    variables = (await runtime.invoke({})).answer

    assert variables.items() >= {
        ("ENDPOINT", "local"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "Chat-Rooms"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
        ("AWS_LAMBDA_LOG_LEVEL", "WARN"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "group"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_EXECUTION_ENV", "AWS_Lambda_Image"),
        ("_HANDLER", "websocket.handler"),
        ("LANG", "en_US.UTF-8"),
        ("TZ", ":UTC"),
    }
    assert variables.keys().isdisjoint({"AWS_PROFILE", "SECRET_OF_THE_DESK"})


async def test_template_sets_what_lambda_does_not_reserve(make_runtime: MakeRuntime) -> None:
    own = {"TZ": "Asia/Tokyo", "PATH": "/opt/bin", "AWS_REGION": "eu-west-1", "LAMBDA_TASK_ROOT": "/", "_HANDLER": "x"}
    code = "import os, time\ndef handler(event, context): return time.localtime(0).tm_hour, dict(os.environ)"
    runtime = make_runtime(code)
    runtime.runner.function = function(environment=own)

    hour, variables = (await runtime.invoke({})).answer

    assert (hour, variables["PATH"], variables["AWS_REGION"]) == (9, "/opt/bin", "us-east-1")
    assert (variables["LAMBDA_TASK_ROOT"] == "/", variables["_HANDLER"]) == (False, "websocket.handler")


async def test_root_logger_is_at_warning_unless_the_log_format_is_json(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="function.websocket")
    runtime = make_runtime(
        "import logging\ndef handler(event, context): logging.info('quiet'); logging.warning('loud')"
    )

    await runtime.invoke({})
    await runtime.stop()

    (logged,) = [record.message for record in caplog.records if record.name == "function.websocket"]
    assert logged.endswith("\tloud")


async def test_what_a_function_prints_is_logged_under_its_name(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="function.websocket")
    runtime = make_runtime("def handler(event, context): print('こんにちは'); print(b'\\xff', event)")

    await runtime.invoke("hello")
    await runtime.stop()

    logged = [record.message for record in caplog.records if record.name == "function.websocket"]
    assert logged == ["こんにちは", "b'\\xff' hello"]


async def test_log_names_the_users_files_and_not_the_snapshot(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="function.websocket")
    runtime = make_runtime("def handler(event, context): 1 / 0")

    await runtime.invoke({})
    await runtime.stop()

    (logged,) = [record.message for record in caplog.records if record.name == "function.websocket"]
    assert f'File "{runtime.source}/websocket.py", line 1, in handler' in logged
    assert "snapshots" not in logged
