"""Reloads functions whose sources change, and applies a changed stack to the running system."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from local import paths
from local.assembly import find_cached_template, synthesize_template
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.errors import explain
from local.progress import Progress
from local.system import Options, System

DEBOUNCE_MILLISECONDS = 200  # an editor may write several files
QUIET_MILLISECONDS = 20
OF_EVERY_IMAGE = ("Dockerfile", "build")  # in the folder of the sources


class RestartNeeded(Exception):
    """A change of the stack cannot be applied to the running system; the message says why."""


async def watch(system: System, options: Options, progress: Progress) -> None:
    """Apply what changes, one change after the other, until cancelled."""
    changed: asyncio.Queue[Path] = asyncio.Queue()
    if options.template:
        sources, files = [options.images], [options.template.resolve()]
    else:
        sources, files = (
            [options.images, paths.ROOT / "infra"],
            [paths.ROOT / "cdk.json", paths.ROOT / "docker-bake.hcl"],
        )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(changed, sources))
        # A single file is watched by its folder, because editors replace the file.
        tasks.create_task(collect(changed, {file.parent for file in files}, only={str(file) for file in files}))
        for file in find_edited_since(system.functions.read_at, options.images):
            changed.put_nowait(file)
        while True:
            batch = {await changed.get()}
            while not changed.empty():
                batch.add(changed.get_nowait())
            await apply_files(batch, system, options, progress)


async def collect(changed: asyncio.Queue[Path], folders: Iterable[Path], only: set[str] | None = None) -> None:
    """Queue the files that change in these folders and below; or `only` these, in the folders themselves."""
    ignore = DefaultFilter()
    async for changes in awatch(
        *folders,
        watch_filter=lambda change, path: ignore(change, path) and (only is None or path in only),
        debounce=DEBOUNCE_MILLISECONDS,
        step=QUIET_MILLISECONDS,
        recursive=only is None,
    ):
        for _, path in changes:
            changed.put_nowait(Path(path))


def find_edited_since(seconds: float, folder: Path) -> Iterator[Path]:
    """Yield the files that were edited while the system started."""
    ignore = DefaultFilter()
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # an editor's file may go at any time
            if file.is_file() and file.stat().st_mtime > seconds and ignore(Change.modified, str(file)):
                yield file


async def apply_files(files: set[Path], system: System, options: Options, progress: Progress) -> None:
    """Apply changed files. A failure is printed, and what ran before keeps running."""
    functions = system.functions
    sources = {file.relative_to(options.images) for file in files if options.images in file.parents}
    try:
        targets = changed_targets(sources, functions.targets, in_images=functions.in_images)
        waiting = {target for target in targets if Path(target, "requirements.txt") in sources}
        if waiting and not functions.in_images:
            names = ", ".join(sorted(waiting))
            progress.say(
                f"The requirements of {names} have changed: press Ctrl-C and run `make up` again, which installs them."
            )
            targets -= waiting
        if targets:
            with progress.step(f"{', '.join(sorted(targets))} reloaded"):
                await functions.reload(targets)
        if any(not file.is_relative_to(options.images) for file in files):
            await apply_changed_stack(system, options, progress)
    except Exception as error:  # noqa: BLE001 - the next change must be seen
        progress.say(f"{explain(error)}\nWhat ran before keeps running.")


def changed_targets(files: set[Path], targets: set[str], *, in_images: bool) -> set[str]:
    """Return the bake targets that have one of these files, which are relative to the sources' folder."""
    folders = {file.parts[0] for file in files}
    return targets if in_images and folders & {*OF_EVERY_IMAGE} else targets & folders


async def apply_changed_stack(system: System, options: Options, progress: Progress) -> None:
    path = options.template or await synthesize(options, progress)
    with progress.step("stack applied") as step:
        step.result = "; ".join(await apply_template(Template.read(path), system)) or "nothing has changed"


async def synthesize(options: Options, progress: Progress) -> Path:
    with progress.step("stack synthesized"):
        if cached := await asyncio.to_thread(find_cached_template, options.context):
            return cached
        return await asyncio.to_thread(synthesize_template, options.context)


async def apply_template(template: Template, system: System) -> list[str]:
    """Apply a template to the running system; return what has changed.

    Raises:
        RestartNeeded: it changes more than functions' settings, roles and routes; nothing is applied then.
        TemplateError: it cannot be run here; nothing is applied then.
        InitError: a function does not start with its new settings; it keeps those from before.
    """
    template = template.with_physical_ids(system.created.physical_ids)
    stack = template.resolve(system.stack.outputs)
    if reasons := list(restart_reasons(system, template, stack)):
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
    system.stack, system.template = stack, template
    return [*changes, *(["API"] if api_has_changed else [])]


def restart_reasons(system: System, template: Template, stack: Stack) -> Iterator[str]:
    """Say what of a changed stack cannot be applied to the running one."""
    before, after = system.template.created_definitions(), template.created_definitions()
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
