"""Finds the lines of the user's code that caused an init error."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from local.lambda_.runtime_process import RuntimeProcess, format_path

# The messages of ImportError. awslambdaric reports no stack trace for it.
NO_MODULE = re.compile(r"No module named '([\w.]+)'")
NO_NAME = re.compile(r"cannot import name '(\w+)' from (?:partially initialized module )?'([\w.]+)'")


def find_error_lines(message: str, trace: Iterable[str], launched: RuntimeProcess) -> list[str]:
    """Return the entries of a stack trace that are in the user's own files; without any, the imports that failed."""
    # awslambdaric formats the entry of a syntax error differently.
    uniform = [re.sub(r'(File ".*") Line (\d+)', r"\1, line \2", entry) for entry in trace]
    own = [local for entry in uniform if (local := launched.localize(entry)) != entry]
    if not own and (folder := launched.source):
        own = list(find_imports(folder, message)) or [f'  File "{format_path(folder / folder.name)}.py"']
    return [line.rstrip("\n") for line in own]


def find_imports(folder: Path, message: str) -> Iterator[str]:
    """Yield the import statements in the folder that import the module or name in the message of an ImportError."""
    if found := NO_NAME.search(message):
        wanted = f"{found[2]}.{found[1]}"
    elif found := NO_MODULE.search(message):
        wanted = found[1]
    else:
        return
    for file in sorted(folder.rglob("*.py")):
        try:
            source = file.read_text()
            nodes = list(ast.walk(ast.parse(source)))
        except (OSError, ValueError, SyntaxError):
            continue
        for node in nodes:
            if any(f"{name}.".startswith(f"{wanted}.") for name in list_imported_names(node)):
                statement = source.splitlines()[node.lineno - 1].strip()  # type: ignore[attr-defined]
                yield f'  File "{format_path(file)}", line {node.lineno}\n    {statement}'  # type: ignore[attr-defined]


def list_imported_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=module, names=aliases, level=0):
            return [f"{module}.{alias.name}" for alias in aliases]
    return []
