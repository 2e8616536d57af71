"""Launches, reloads and updates the functions of the running stack."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from local import paths
from local.errors import LaunchError
from local.journal import Journal
from local.lambda_.containers import Containers, has_engine
from local.lambda_.function import Function
from local.lambda_.invocation import InvocationResult
from local.lambda_.processes import Processes
from local.lambda_.runner import FunctionRunner, InitError

LaunchMode = Literal["auto", "process", "image"]

logger = logging.getLogger(__name__)


class Functions:
    """Runs a stack's functions, in the built images or as plain processes.

    Args:
        mode: run images, processes, or images if an engine can build them.
        source: the folder of the functions' sources, one folder for each bake target.
        environments: the maximum of execution environments for each function.
        timeout: the timeout of every function in seconds, instead of the template's.
        mounts: files that are mounted into the functions' containers.
        journal: where invocations and logs are recorded.
    """

    def __init__(
        self,
        *,
        mode: LaunchMode,
        source: Path,
        environments: int,
        timeout: float | None = None,
        mounts: list[Path],
        journal: Journal | None = None,
    ) -> None:
        self.mode = mode
        self.environments = environments
        self.timeout = timeout
        self.journal = journal
        self._processes = Processes(source, paths.STATE / "functions")
        self._containers = Containers(mounts, source=source)
        self._launcher: Processes | Containers = self._processes
        self._runners: dict[str, FunctionRunner] = {}
        self.stale: set[str] = set()  # targets that run older code than their sources, because a reload failed

    @property
    def targets(self) -> set[str]:
        return {runner.function.target for runner in self._runners.values()}

    @property
    def in_images(self) -> bool:
        return self._launcher is self._containers

    async def start(self, functions: dict[str, Function], environment: Callable[[Function], dict[str, str]]) -> str:
        """Start all functions; return a text that says how they run.

        Args:
            functions: the functions by ARN.
            environment: returns a function's environment variables in addition to the template's.

        Raises:
            LaunchError: the images cannot be built, or the processes cannot be prepared.
            InitError: the init phase of a function failed.
        """
        self._environment = environment
        functions = {arn: self._set_timeout(function) for arn, function in functions.items()}
        launches, fallback = await self._build_or_fall_back({each.target for each in functions.values()})
        for arn, function in functions.items():
            self._runners[arn] = FunctionRunner(
                function,
                launches[function.target],
                environment(function),
                concurrency=self.environments,
                journal=self.journal,
            )
        await asyncio.gather(*(runner.start() for runner in self._runners.values()))
        return f"{', '.join(function.target for function in functions.values())} as {self._launcher.name}{fallback}"

    def invoke(self, arn: str, event: dict[str, Any]) -> asyncio.Future[InvocationResult]:
        return self._runners[arn].invoke(event)

    async def reload(self, targets: set[str]) -> None:
        """Reload the current sources of these bake targets and of the stale ones.

        Raises:
            LaunchError: code cannot be built, or its init phase failed; the old code keeps serving.
        """
        self.stale |= targets
        errors = []
        for target in sorted(self.stale):
            try:
                launches = await self._launcher.prepare({target})
                for runner in self._runners.values():
                    if runner.function.target == target:
                        await runner.replace(launches[target])
            except (LaunchError, InitError) as error:
                errors.append(str(error))
            else:
                self.stale.discard(target)
        if errors:
            raise LaunchError("\n".join(errors))

    async def update(self, arn: str, function: Function) -> None:
        """Change a function's settings. Raise InitError if it does not start with them; it keeps its old settings."""
        runner = self._runners[arn]
        await runner.replace(runner.launch, self._set_timeout(function), self._environment(function))

    async def stop(self) -> None:
        await asyncio.gather(*(runner.stop() for runner in self._runners.values()))
        await self._launcher.stop()

    def _set_timeout(self, function: Function) -> Function:
        return dataclasses.replace(function, timeout_seconds=self.timeout) if self.timeout else function

    async def _build_or_fall_back(self, targets: set[str]) -> tuple[dict[str, Any], str]:
        """Build the images, or prepare processes; return the launches, and a note why images are not used."""
        fallback = ""
        if self.mode == "auto" and not await asyncio.to_thread(has_engine):
            fallback = ", because no Docker engine answers"
        elif self.mode != "process":
            try:
                launches = await self._containers.prepare(targets)
            except LaunchError as error:
                if self.mode == "image":
                    raise
                logger.warning("the images could not be built, so the functions run as plain processes: %s", error)
                fallback = ", the images could not be built: the log says why"
            else:
                self._launcher = self._containers
                return launches, ""
        return await self._processes.prepare(targets), fallback
