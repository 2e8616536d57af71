"""Execution environments: their init phase, invocations and end, with the real awslambdaric in them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from local.lambda_ import environment as lambda_runtime
from local.lambda_ import processes
from local.lambda_.function import Function
from local.lambda_.invocation import InvocationResult
from local.lambda_.runner import InitError
from local.lambda_.runtime_process import LOG_LINE_BYTES, RuntimeProcess
from local.processes import is_running
from tests.fixtures.runtime import WAITING_HANDLER, Gate, MakeRuntime

ECHO = """
import os

def handler(event, context):
    return [os.getpid(), event]
"""

# Fails in the way that the event names.
FRAIL = """
import os, subprocess, sys, time

def handler(event, context):
    match event:
        case "raise": raise KeyError("authorizer")
        case "exit": sys.exit(3)
        case "crash": os._exit(4)
        case "hang": time.sleep(600)
        case "kill": os.kill(os.getpid(), 9)
        case "leave children":
            subprocess.Popen(["sleep", "600"])
            subprocess.Popen(["sleep", "3"], start_new_session=True)
            os._exit(0)
        case "unserializable": return {1, 2}
        case "big": return "x" * 6291555
        case "bytes": return b"not JSON"
    return os.getpid()
"""

# The init phase


async def test_started_function_has_one_environment_that_waits(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(ECHO)

    await runtime.start()

    assert len(runtime.running) == 1
    answer = (await runtime.invoke("hello")).answer
    assert answer == [runtime.processes[0].pid, "hello"]


@pytest.mark.parametrize(
    ("source", "explanation"),
    [
        (
            "import os\nraise RuntimeError('CALLBACK_URL is required')",
            'RuntimeError: CALLBACK_URL is required\n  File "{file}", line 2, in <module>\n    raise RuntimeError(',
        ),
        (
            "\nfrom no_such_module import thing",
            "No module named 'no_such_module'\n  File \"{file}\", line 2\n    from no_such_module import thing",
        ),
        (
            "def f(): from os import (\n  no_such_name)\nf()",
            'File "{file}", line 1\n    def f(): from os import (',
        ),
        (
            "import a_module_with_a_fault",
            '(a_module_with_a_fault.py, line 3)\n  File "{folder}/a_module_with_a_fault.py", line 3\n    print(',
        ),
        (
            "handle = print",
            "Runtime.HandlerNotFound: Handler 'handler' missing on module 'websocket'\n  File \"{file}\"",
        ),
        (
            "print('no database', flush=True); raise SystemExit(5)",
            "Runtime.ExitError: Runtime exited with error: exit status 5\nno database",
        ),
        ("import os; os._exit(0)", "Runtime.ExitError: Runtime exited without providing a reason"),
        ("import os; os.kill(os.getpid(), 9)", "Runtime.ExitError: Runtime exited with error: signal: killed"),
    ],
    ids=["exception", "import", "name", "syntax", "no handler", "exit", "exit without a status", "signal"],
)
async def test_function_that_cannot_start_says_why_and_where_in_the_users_files(
    make_runtime: MakeRuntime, source: str, explanation: str
) -> None:
    runtime = make_runtime(source)
    (runtime.source / "a_module_with_a_fault.py").write_text("\n\nprint(\n")

    with pytest.raises(InitError) as error:
        await runtime.start()

    assert str(error.value).startswith("websocket: ")
    assert explanation.format(file=runtime.source / "websocket.py", folder=runtime.source) in str(error.value)


async def test_file_below_the_current_folder_is_named_from_there(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime("1 / 0")
    monkeypatch.chdir(runtime.source.parent)

    with pytest.raises(InitError, match=r'File "websocket/websocket\.py", line 1'):
        await runtime.start()


async def test_end_in_the_init_phase_is_logged(make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture) -> None:
    await make_runtime("raise SystemExit(5)").invoke({})

    assert [record.message for record in caplog.records] == [
        "websocket: Runtime exited with error: exit status 5 Runtime.ExitError"
    ]


async def test_init_phase_has_its_limit(make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_runtime, "INIT_SECONDS", 1.0)
    runtime = make_runtime("import time; time.sleep(600)", timeout_seconds=1)

    with pytest.raises(InitError, match=r"websocket: Sandbox\.Timedout: init took over 1 s"):
        await runtime.start()

    await runtime.stop()
    assert runtime.running == []


async def test_function_that_cannot_be_launched_says_why(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = make_runtime(ECHO)
    runtime.runner.launch = await runtime.prepare()
    monkeypatch.setattr(processes, "VENVS", tmp_path)

    with pytest.raises(InitError, match=r"No such file or directory: .*/websocket/bin/python"):
        await runtime.start()


@pytest.mark.parametrize("environment", [{"A": "b\0c"}, {"A": 5}, {"A=": "b"}], ids=["null", "number", "name"])
async def test_variable_that_no_process_can_have_is_named(
    make_runtime: MakeRuntime, environment: dict[str, str]
) -> None:
    with pytest.raises(InitError, match=r"environment variable 'A=?' cannot be set"):
        await make_runtime(ECHO, environment=environment).start()


async def test_invocation_of_a_function_that_cannot_start_fails_with_the_reason(make_runtime: MakeRuntime) -> None:
    invocation = await make_runtime("raise RuntimeError('broken')").invoke({})

    assert (invocation.error, invocation.message) == ("RuntimeError", "broken")


# Answers and errors


@pytest.mark.parametrize("event", [{"a": [1, None, "こんにちは"]}, None, "\ud800", 0, {"big": "x" * 200_000}], ids=type)
async def test_event_and_answer_are_any_json(make_runtime: MakeRuntime, event: object) -> None:
    invocation = await make_runtime(ECHO).invoke(event)

    assert invocation.error is None
    assert invocation.answer[1] == event


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ("raise", "KeyError", "'authorizer'"),
        ("unserializable", "Runtime.MarshalError", "Unable to marshal response"),
        ("exit", "Runtime.ExitError", "Error: Runtime exited with error: exit status 3"),
        ("crash", "Runtime.ExitError", "Error: Runtime exited with error: exit status 4"),
        ("kill", "Runtime.ExitError", "Error: Runtime exited with error: signal: killed"),
        ("leave children", "Runtime.ExitError", "Error: Runtime exited without providing a reason"),
        ("big", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size (6291556 bytes)."),
        ("bytes", "Runtime.MarshalError", "not JSON"),
    ],
)
async def test_failure_is_in_the_result_and_the_next_invocation_works(
    make_runtime: MakeRuntime, event: str, error: str, message: str
) -> None:
    runtime = make_runtime(FRAIL)

    failed = await runtime.invoke(event)
    worked = await runtime.invoke("work")

    assert failed.error == error
    assert message in failed.message
    assert not failed.timed_out
    assert worked.answer in runtime.running


async def test_environment_outlives_an_exception_but_not_a_crash(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(FRAIL, concurrency=1)

    first, *others = [(await runtime.invoke(event)).answer for event in ("work", "raise", "work", "crash", "work")]

    assert others[:3] == [None, first, None]
    assert others[3] not in {None, first}


async def test_invocation_over_its_time_fails_and_the_next_one_works(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(FRAIL, timeout_seconds=1, concurrency=1)

    timed_out = await runtime.invoke("hang")
    worked = await runtime.invoke("work")

    assert timed_out.timed_out
    assert re.fullmatch(r"[0-9a-f-]{36} Task timed out after 1\.00 seconds", timed_out.message)
    assert worked.answer == runtime.processes[1].pid
    assert runtime.running == [worked.answer]


async def test_line_of_any_length_may_be_logged(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("def handler(event, context):\n    print('x' * event)\n    return 'done'", concurrency=1)

    answers = [await runtime.invoke(LOG_LINE_BYTES * 2), await runtime.invoke(1)]

    assert answers == [InvocationResult("done")] * 2


# Environments


async def test_two_invocations_run_at_once_and_a_third_waits(make_runtime: MakeRuntime, gate: Gate) -> None:
    runtime = make_runtime(WAITING_HANDLER, concurrency=2)

    invocations = [asyncio.create_task(runtime.invoke(gate.port)) for _ in range(3)]
    (one, way_of_one), (two, way_of_two) = await gate.wait_for_handler(), await gate.wait_for_handler()
    way_of_two.close()
    third, way_of_third = await gate.wait_for_handler()
    way_of_one.close()
    way_of_third.close()

    assert one != two
    assert third == two
    assert sorted([(await invocation).answer for invocation in invocations]) == sorted([one, two, two])
    assert len(runtime.processes) == 2


async def test_abandoned_invocation_ends_like_any_other(make_runtime: MakeRuntime, gate: Gate) -> None:
    runtime = make_runtime(WAITING_HANDLER, concurrency=1)
    given_up = [asyncio.create_task(runtime.invoke(gate.port)) for _ in range(2)]  # one runs, the other waits in line
    pid, way = await gate.wait_for_handler()

    for invocation in given_up:
        invocation.cancel()
    way.close()
    _, way = await gate.wait_for_handler()
    way.close()
    worked = asyncio.create_task(runtime.invoke(gate.port))
    _, way = await gate.wait_for_handler()
    way.close()

    assert (await worked).answer == pid
    assert len(runtime.processes) == 1


async def test_environment_that_dies_when_it_gets_an_invocation_is_replaced(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(ECHO, concurrency=1)
    await runtime.start()

    runtime.processes[0].kill()
    died, worked = await runtime.invoke("hello"), await runtime.invoke("hello")

    assert died.error == "Runtime.ExitError"
    assert worked.answer == [runtime.processes[1].pid, "hello"]


async def test_environment_that_is_being_cleaned_up_gets_no_invocation(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, removed = asyncio.Event(), asyncio.Event()
    clean_up = RuntimeProcess.clean_up

    async def clean_up_slowly(launched: RuntimeProcess) -> InvocationResult:
        removing.set()
        await removed.wait()
        return await clean_up(launched)

    monkeypatch.setattr(RuntimeProcess, "clean_up", clean_up_slowly)
    runtime = make_runtime(ECHO)
    await runtime.start()

    runtime.processes[0].kill()
    await removing.wait()
    worked = await runtime.invoke("hello")
    removed.set()

    assert worked.answer == [runtime.processes[1].pid, "hello"]


async def test_end_is_logged_as_on_lambda(make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture) -> None:
    invocation = await make_runtime(FRAIL).invoke("exit")

    assert [record.message for record in caplog.records] == [f"websocket: {invocation.message} Runtime.ExitError"]
    assert re.fullmatch(r"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: exit status 3", invocation.message)


async def test_environment_that_died_does_not_also_time_out(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make_runtime(FRAIL, timeout_seconds=1, concurrency=1)
    await runtime.start()

    runtime.processes[0].kill()
    await runtime.processes[0].wait()
    await runtime.invoke("work")
    hung = await runtime.invoke("hang")  # takes longer than a time-out of the one before would

    assert hung.timed_out
    assert caplog.records[-1].message == f"websocket: {hung.message}"
    assert len(caplog.records) == 2  # with the end of the first


async def test_invocation_whose_environment_cannot_start_fails_while_others_work(
    make_runtime: MakeRuntime, gate: Gate, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    runtime = make_runtime(
        f"import pathlib\nassert not pathlib.Path({str(broken)!r}).exists(), 'broken'\n{WAITING_HANDLER}"
    )
    working = asyncio.create_task(runtime.invoke(gate.port))
    pid, way = await gate.wait_for_handler()

    broken.touch()
    failed = await runtime.invoke(gate.port)
    way.close()

    assert failed == InvocationResult(error="AssertionError", message="broken")
    assert (await working).answer == pid


async def test_stop_ends_every_process(make_runtime: MakeRuntime, gate: Gate) -> None:
    runtime = make_runtime(WAITING_HANDLER)
    invocations = [asyncio.create_task(runtime.invoke(gate.port)) for _ in range(3)]
    await gate.wait_for_handler()
    await gate.wait_for_handler()

    await runtime.stop()

    assert len(runtime.processes) == 2
    assert runtime.running == []
    errors = [(await invocation).error for invocation in invocations]
    assert errors == ["Runtime.ExitError", "Runtime.ExitError", "Runtime.Stopped"]


async def test_stop_ends_a_process_that_ignores_the_request(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_runtime, "STOP_SECONDS", 0.1)
    runtime = make_runtime(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{ECHO}")
    await runtime.start()

    await runtime.stop()

    assert runtime.running == []


async def test_stop_ends_a_process_that_is_just_being_launched(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(ECHO)
    launching, may_launch = asyncio.Event(), asyncio.Event()
    launched = runtime.runner.launch

    async def slow(function: Function, variables: dict[str, str]) -> RuntimeProcess:
        launching.set()
        await may_launch.wait()
        return await launched(function, variables)

    runtime.runner.launch = slow
    starting = asyncio.create_task(runtime.start())
    await launching.wait()
    stopping = asyncio.create_task(runtime.stop())
    asyncio.get_running_loop().call_soon(may_launch.set)  # after stop() has begun

    await stopping
    assert runtime.running == []
    await asyncio.gather(starting, return_exceptions=True)


async def test_child_that_leads_its_own_session_ends_with_its_environment(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(
        "import subprocess\n"
        "def handler(event, context):\n"
        "    return subprocess.Popen(['sleep', '600'], start_new_session=True).pid\n"
    )
    await runtime.start()
    pid = (await runtime.invoke({})).answer

    await runtime.stop()

    assert not is_running(pid, "sleep 600")
