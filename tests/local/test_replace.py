"""New code and settings for a function while it serves."""

from __future__ import annotations

import asyncio
import time

import pytest

from local.lambda_.runner import InitError
from tests.fixtures.apis import function
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.processes import find_running
from tests.fixtures.runtime import WAITING_HANDLER, Gate, MakeRuntime, Runtime

VERSION = "import os\ndef handler(event, context): return [{version!r}, os.environ.get('SETTING'), os.getpid()]"


def make_code(version: str) -> str:
    return VERSION.format(version=version)


async def get_version(runtime: Runtime) -> str:
    """Return the version of the code that answers."""
    return str((await runtime.invoke({})).answer[0])


async def wait_until_ended(pids: list[int]) -> None:
    """Wait until these execution environments have ended; fail if they keep running."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while running := find_running(pids):
        assert time.monotonic() < deadline, f"these execution environments still run: {running}"
        await asyncio.sleep(0.01)


async def test_new_code_runs_in_all_environments_and_old_idle_ones_end(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(make_code("one"))
    await asyncio.gather(*(runtime.invoke({}) for _ in range(2)))
    before = runtime.running

    await runtime.replace(make_code("two"))
    versions = [invocation.answer[0] for invocation in await asyncio.gather(*(runtime.invoke({}) for _ in range(2)))]

    assert len(before) == 2
    assert versions == ["two", "two"]
    await wait_until_ended(before)


async def test_busy_environment_ends_after_its_answer(make_runtime: MakeRuntime, gate: Gate) -> None:
    runtime = make_runtime(WAITING_HANDLER)
    busy = asyncio.create_task(runtime.invoke(gate.port))
    pid, way = await gate.wait_for_handler()

    await runtime.replace(make_code("two"))
    assert await get_version(runtime) == "two"
    assert pid in runtime.running
    way.close()

    assert (await busy).answer == pid
    await wait_until_ended([pid])


async def test_waiting_invocations_go_to_new_environments(make_runtime: MakeRuntime, gate: Gate) -> None:
    runtime = make_runtime(WAITING_HANDLER, concurrency=1)
    busy = asyncio.create_task(runtime.invoke(gate.port))
    _, way = await gate.wait_for_handler()
    waiting = [asyncio.create_task(runtime.invoke({})) for _ in range(2)]

    await runtime.replace(make_code("two"))

    assert [(await each).answer[0] for each in waiting] == ["two", "two"]
    way.close()
    assert (await busy).error is None


@pytest.mark.parametrize("broken", ["def handler(event, context", "import no_such", "raise SystemExit(1)"])
async def test_code_that_does_not_start_changes_nothing(make_runtime: MakeRuntime, broken: str) -> None:
    runtime = make_runtime(make_code("one"))
    await runtime.start()

    with pytest.raises(InitError, match=r"^websocket: Runtime\."):
        await runtime.replace(broken)

    assert await get_version(runtime) == "one"
    await wait_until_ended([process.pid for process in runtime.processes[1:]])
    await runtime.replace(make_code("two"))
    assert await get_version(runtime) == "two"


async def test_waiting_invocation_goes_to_the_old_code_if_new_code_does_not_start(
    make_runtime: MakeRuntime, gate: Gate
) -> None:
    runtime = make_runtime(WAITING_HANDLER, concurrency=1)
    busy = asyncio.create_task(runtime.invoke(gate.port))
    pid, way = await gate.wait_for_handler()
    waiting = asyncio.create_task(runtime.invoke(gate.port))

    with pytest.raises(InitError):
        await runtime.replace("import no_such")
    await wait_until_ended([process.pid for process in runtime.processes[1:]])
    way.close()
    _, next_way = await gate.wait_for_handler()
    next_way.close()

    assert [(await each).answer for each in (busy, waiting)] == [pid, pid]


async def test_environment_after_a_timeout_has_the_code_of_those_that_serve(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(
        f"import time\n{make_code('one')} if event != 'hang' else time.sleep(600)", timeout_seconds=1
    )
    await runtime.start()
    runtime.write("def handler(event, con")  # half of an edit

    assert (await runtime.invoke("hang")).timed_out

    assert await get_version(runtime) == "one"


async def test_new_settings_are_seen_by_the_next_invocation(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(make_code("one"), environment={"AWS_ACCESS_KEY_ID": "own"})
    await runtime.start()

    await runtime.replace(make_code("one"), function(environment={"SETTING": "new", "AWS_ACCESS_KEY_ID": "no"}))

    assert (await runtime.invoke({})).answer[1] == "new"
    assert runtime.runner.function.environment["SETTING"] == "new"


async def test_of_two_replacements_at_once_the_later_one_stays(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(make_code("one"))
    await runtime.start()
    launches = []
    for version in ("two", "three"):
        runtime.write(make_code(version))
        launches.append(await runtime.prepare())

    await asyncio.gather(*(runtime.runner.replace(launch) for launch in launches))

    assert await get_version(runtime) == "three"
    await wait_until_ended([process.pid for process in runtime.processes[:-1]])


async def test_replacement_while_the_first_environment_starts(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(f"import time; time.sleep(1)\n{make_code('one')}")
    starting = asyncio.create_task(runtime.start())
    while not runtime.processes:
        await asyncio.sleep(0.01)

    await runtime.replace(make_code("two"))

    assert await get_version(runtime) == "two"
    await starting
    await wait_until_ended([runtime.processes[0].pid])


async def test_no_invocation_is_lost_or_fails(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(make_code("0"))
    seen: list[str] = []

    async def ask() -> None:
        while seen[-1:] != ["3"]:
            invocation = await runtime.invoke({})
            assert invocation.error is None, invocation.message
            seen.append(invocation.answer[0])

    asking = asyncio.gather(*(ask() for _ in range(5)))
    while not seen:
        await asyncio.sleep(0.01)
    for version in ("1", "2", "3"):
        await runtime.replace(make_code(version))
    await asking

    assert set(seen) == {"0", "1", "2", "3"}


async def test_stop_ends_a_replacement(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(make_code("one"))
    await runtime.start()
    replacing = asyncio.create_task(runtime.replace("import time; time.sleep(600)"))
    while len(runtime.processes) < 2:
        await asyncio.sleep(0.01)

    await runtime.stop()

    with pytest.raises(InitError):
        await replacing
    with pytest.raises(InitError, match="the local run ends"):
        await runtime.replace(make_code("two"))
    assert runtime.running == []
