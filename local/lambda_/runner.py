"""Runs invocations of a function in its execution environments."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from local.journal import Journal
from local.lambda_.environment import Begin, ExecutionEnvironment
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation, InvocationResult
from local.lambda_.recording import InvocationRecorder
from local.lambda_.runtime_process import Launch


class InitError(Exception):
    """A function's init phase failed. The message has the function's own error."""


class FunctionRunner:
    """Runs a function in up to `concurrency` execution environments. Further invocations wait in a queue."""

    def __init__(
        self,
        function: Function,
        launch: Launch,
        environment: dict[str, str],
        *,
        concurrency: int = 2,
        journal: Journal | None = None,
    ) -> None:
        self.function = function
        self.launch = launch
        self.environment = environment
        self.concurrency = concurrency
        self.journal = journal
        self._generation = self._newest = 0  # each `replace` starts a generation of environments
        self._generations: dict[ExecutionEnvironment, int] = {}  # the generation of each environment that runs
        self._idle: dict[ExecutionEnvironment, Begin] = {}
        self._waiting: deque[Invocation] = deque()
        self._replacing = asyncio.Lock()
        self._stopped = False

    async def start(self) -> None:
        """Run the init phase of one environment, so that a broken function fails before the first client connects.

        Raises:
            InitError: the init phase failed.
        """
        await self._initialize(self._start_environment(self.function, self.launch, self.environment, self._generation))

    async def replace(
        self, launch: Launch, function: Function | None = None, environment: dict[str, str] | None = None
    ) -> None:
        """Replace the launch and, if given, the function's description and its environment variables.

        The old execution environments end when they have answered their invocations.

        Raises:
            InitError: the init phase of the first new environment failed; the old environments keep serving.
        """
        async with self._replacing:
            if self._stopped:
                raise InitError(f"{self.function.target}: the local run ends")
            self._newest += 1
            await self._initialize(
                self._start_environment(
                    function or self.function, launch, environment or self.environment, self._newest
                )
            )

    def invoke(self, event: dict[str, Any]) -> asyncio.Future[InvocationResult]:
        """Invoke the function; return a future. Errors, crashes and timeouts are in its result, never raised."""
        invocation = Invocation(json.dumps(event).encode(), asyncio.get_running_loop().create_future())
        if self.journal:
            invocation.recorder = InvocationRecorder(self.journal, self.function, event, invocation)
        if self._idle:
            _, begin = self._idle.popitem()
            begin(invocation)
        else:
            self._waiting.append(invocation)
            self._start_for_waiting()
        return invocation.result

    async def stop(self) -> None:
        self._stopped = True
        while self._waiting:
            self._waiting.popleft().settle(InvocationResult(error="Runtime.Stopped", message="the local run ends"))
        await asyncio.gather(*(environment.stop() for environment in list(self._generations)))

    async def _initialize(self, environment: ExecutionEnvironment) -> None:
        await environment.initialized
        if environment.init_error:
            raise InitError(f"{self.function.target}: {environment.explain_init_error()}")

    def _start_environment(
        self, function: Function, launch: Launch, variables: dict[str, str], generation: int
    ) -> ExecutionEnvironment:
        environment = ExecutionEnvironment(
            function,
            launch,
            variables,
            on_ready=self._on_ready,
            on_exit=self._on_exit,
            on_end=self._on_end,
            journal=self.journal,
        )
        self._generations[environment] = generation
        return environment

    def _on_ready(self, environment: ExecutionEnvironment, begin: Begin) -> None:
        """Give the environment the next invocation, or end it if it belongs to an old generation."""
        generation = self._generations.get(environment, -1)  # -1 if it has just ended
        if generation > self._generation:
            self._switch_to(environment)
        if generation < self._generation:
            environment.end()
        elif self._waiting:
            begin(self._waiting.popleft())
            self._start_for_waiting()
        else:
            self._idle[environment] = begin

    def _switch_to(self, first: ExecutionEnvironment) -> None:
        self._generation = self._generations[first]
        self.function, self.launch, self.environment = first.function, first.launch, first.extra_variables
        for environment in self._idle:
            environment.end()
        self._idle.clear()

    def _on_exit(self, environment: ExecutionEnvironment) -> None:
        self._idle.pop(environment, None)

    def _on_end(self, environment: ExecutionEnvironment) -> None:
        """Remove an environment that has ended. Fail one waiting invocation if its init phase failed."""
        generation = self._generations.pop(environment)
        self._idle.pop(environment, None)
        if environment.init_error and generation == self._generation and self._waiting:
            self._waiting.popleft().settle(environment.init_error)
        self._start_for_waiting()

    def _start_for_waiting(self) -> None:
        current = [each for each, generation in self._generations.items() if generation == self._generation]
        starting = sum(not each.initialized.done() for each in current)
        if not self._stopped:
            for _ in range(min(len(self._waiting) - starting, self.concurrency - len(current))):
                self._start_environment(self.function, self.launch, self.environment, self._generation)
