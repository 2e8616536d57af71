"""Runs invocations of a function in its execution environments."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from local.lambda_.environment import ExecutionEnvironment, Launch, Pending
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation


class InitError(Exception):
    """A function's init phase failed; the message is the function's own."""


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
