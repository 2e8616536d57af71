"""Hot reload: reloads functions whose sources change, and applies a changed stack to the running system."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from local import example, paths
from local.assembly import find_cached_template, synthesize_template
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.errors import TemplateError, explain
from local.lambda_.runner import InitError
from local.progress import Progress
from local.system import Options, System

DEBOUNCE_MILLISECONDS = 200  # an editor may write several files
QUIET_MILLISECONDS = 50  # an editor may first rename the old file
SHARED_BUILD_FILES = ("Dockerfile", "build")  # every image is built from these, in the folder of the sources


class RestartNeeded(Exception):
    """A change of the stack cannot be applied to the running system. The message says why."""


async def watch(system: System, options: Options, progress: Progress) -> None:
    """Apply changes until cancelled. Code and stack have separate queues, so a long synthesis does not delay code."""
    reloader = Reloader(system, options, progress)
    code: asyncio.Queue[Path] = asyncio.Queue()
    stack: asyncio.Queue[Path] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(queue_changes(code, options.images))
        # Watch a single file by its folder, because editors replace the file.
        if options.template:
            file = options.template.resolve()
            tasks.create_task(queue_changes(stack, file.parent, only={str(file)}))
        else:
            tasks.create_task(queue_changes(stack, paths.ROOT / "infra"))
            files = {str(paths.ROOT / name) for name in ("cdk.json", "docker-bake.hcl")}
            tasks.create_task(queue_changes(stack, paths.ROOT, only=files))
            for file in find_edited_since(system.started_at, paths.ROOT / "infra"):
                stack.put_nowait(file)
        for file in find_edited_since(system.started_at, options.images):
            code.put_nowait(file)
        tasks.create_task(apply_batches(code, reloader.apply_code))
        tasks.create_task(apply_batches(stack, reloader.apply_stack))


async def queue_changes(changed: asyncio.Queue[Path], folder: Path, only: set[str] | None = None) -> None:
    """Queue the files that change in a folder and its subfolders; with `only`, just these files of the folder itself."""
    ignore = DefaultFilter()
    async for changes in awatch(
        folder,
        watch_filter=lambda change, path: ignore(change, path) and (only is None or path in only),
        debounce=DEBOUNCE_MILLISECONDS,
        step=QUIET_MILLISECONDS,
        recursive=only is None,
    ):
        for _, path in changes:
            changed.put_nowait(Path(path))


async def apply_batches(changed: asyncio.Queue[Path], apply: Callable[[set[Path]], Awaitable[None]]) -> None:
    """Apply changed files in batches, forever: each batch has the files that changed while the last one was applied."""
    while True:
        files = {await changed.get()}
        while not changed.empty():
            files.add(changed.get_nowait())
        await apply(files)


def find_edited_since(seconds: float, folder: Path) -> Iterator[Path]:
    """Yield the files that were edited after this Unix time, because nothing watches while the system starts."""
    ignore = DefaultFilter()
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # an editor may delete its temporary file at any time
            if file.is_file() and file.stat().st_mtime > seconds and ignore(Change.modified, str(file)):
                yield file


@dataclass
class Reloader:
    """Applies edits to the running system. If an edit fails, the error is printed and the old version keeps running.

    New code may need a new setting, and a new setting may need new code. So after code has been applied, a stack that
    failed is tried again, and after a stack has been applied, code that failed is tried again.

    Attributes:
        unapplied: a template that failed because a function did not start with its settings; None without one.
    """

    system: System
    options: Options
    progress: Progress
    unapplied: Template | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def apply_code(self, files: set[Path]) -> None:
        """Reload the functions whose sources contain one of these files."""
        functions = self.system.functions
        sources = {file.relative_to(self.options.images) for file in files if self.options.images in file.parents}
        targets = find_changed_targets(sources, functions.targets, in_images=functions.in_images)
        waiting = {target for target in targets if Path(target, "requirements.txt") in sources}
        if waiting and not functions.in_images:
            names = ", ".join(sorted(waiting))
            self.progress.say(
                f"The requirements of {names} have changed: press Ctrl-C and run `make up` again, which installs them."
            )
            targets -= waiting
        async with self._lock:
            if targets and await self._reload(targets) and self.unapplied:
                await self._apply(self.unapplied)

    async def apply_stack(self, files: set[Path]) -> None:
        """Read or synthesize the stack again, and apply it."""
        with self._report_errors():
            template = Template.read(self.options.template or await self._synthesize())
            async with self._lock:
                stale = self.system.functions.stale
                if await self._apply(template) and stale:
                    await self._reload(set())

    async def _synthesize(self) -> Path:
        with self.progress.step("stack synthesized"):
            if cached := await asyncio.to_thread(find_cached_template, self.options.context):
                return cached
            return await asyncio.to_thread(synthesize_template, self.options.context)

    async def _reload(self, targets: set[str]) -> bool:
        """Reload these functions and the stale ones; return whether none is stale any more."""
        functions = self.system.functions
        with self._report_errors(), self.progress.step(f"{', '.join(sorted(targets | functions.stale))} reloaded"):
            await functions.reload(targets)
        return not functions.stale

    async def _apply(self, template: Template) -> bool:
        """Apply a template; return whether it was applied."""
        self.unapplied = None
        with self._report_errors(), self.progress.step("stack applied") as step:
            try:
                step.result = "; ".join(await apply_template(template, self.system)) or "nothing has changed"
            except InitError:
                self.unapplied = template
                raise
            return True
        return False

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - watching must go on after any error
            self.progress.say(f"{explain(error)}\nWhat ran before keeps running.")


def find_changed_targets(files: set[Path], targets: set[str], *, in_images: bool) -> set[str]:
    """Return the bake targets whose sources contain one of these files. The files are relative to the sources' folder."""
    folders = {file.parts[0] for file in files}
    return targets if in_images and folders & {*SHARED_BUILD_FILES} else targets & folders


async def apply_template(template: Template, system: System) -> list[str]:
    """Apply a template to the running system; return what has changed.

    Raises:
        RestartNeeded: the template changes more than functions' settings, roles and the API; nothing is applied.
        TemplateError: the template cannot be run locally; nothing is applied.
        InitError: a function does not start with its new settings; it keeps its old settings.
    """
    template = template.with_physical_ids(system.created.physical_ids)
    stack = template.resolve(system.stack.outputs)
    if reasons := list(find_restart_reasons(system, template, stack)):
        raise RestartNeeded(f"{'; '.join(reasons)}: press Ctrl-C and start again")
    changes = []
    api_has_changed = stack.api != system.stack.api
    if api_has_changed:
        system.server.update(stack.api)
        system.stack = dataclasses.replace(system.stack, api=stack.api)
    for arn, function in stack.functions.items():
        before = system.stack.functions[arn]
        if function.role != before.role:
            system.iam.update_role(function.name, function.role)
            changes.append(f"role of {function.target}")
        if dataclasses.replace(function, role=before.role) != before:
            await system.functions.update(arn, function)
            changes.append(f"settings of {function.target}")
        system.stack = dataclasses.replace(system.stack, functions={**system.stack.functions, arn: function})
    with suppress(TemplateError):  # functions run without the operator's policy
        policy = example.find_operator_policy(template)
        if policy and policy != example.find_operator_policy(system.template):
            system.iam.update_role(example.OPERATOR, policy)
            changes.append("operator's policy")
    system.stack, system.template = stack, template
    return [*changes, *(["API"] if api_has_changed else [])]


def find_restart_reasons(system: System, template: Template, stack: Stack) -> Iterator[str]:
    """Yield the differences between a changed stack and the running one that need a restart."""
    before, after = system.template.read_created_definitions(), template.read_created_definitions()
    for logical_id in sorted(before.keys() | after.keys()):
        if before.get(logical_id) != after.get(logical_id):
            yield f"{logical_id} is created at the start only"
    running = {arn: function.target for arn, function in system.stack.functions.items()}
    if {arn: function.target for arn, function in stack.functions.items()} != running:
        yield "a function was added, removed or renamed"
    if stack.account != system.stack.account:
        yield "the account or region has changed"
    if (stack.api.id, stack.api.stage) != (system.stack.api.id, system.stack.api.stage):
        yield "the stage has another name"
    for name in stack.outputs.keys() | system.stack.outputs.keys():
        if stack.outputs.get(name) != system.stack.outputs.get(name):
            yield f"output {name}, which the page has read, has changed"
