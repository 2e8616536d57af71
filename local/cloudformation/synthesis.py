"""Runs a CDK app as the CDK CLI does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.errors import TemplateError


def synthesize(root: Path, outdir: Path, context: Mapping[str, str] | None = None) -> Path:
    """Run the CDK app of `root`/cdk.json as the CDK CLI does; return the path of its template.

    Args:
        root: the folder of cdk.json.
        outdir: the folder for the cloud assembly.
        context: context values that override cdk.json's.

    Raises:
        TemplateError: the app failed, or it does not have exactly one stack.
    """
    run_app(read_cdk_json(root)["app"], root, outdir, context)
    return find_template(outdir)


def read_cdk_json(root: Path) -> dict[str, Any]:
    """Return the content of `root`/cdk.json.

    Raises:
        TemplateError: the file is missing, is not JSON, or lacks `app` or `context`.
    """
    file = root / "cdk.json"
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise TemplateError(f"{file}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{file} cannot be read: {error}") from error
    for name, type_, kind in (("app", str, "a command"), ("context", dict, "an object")):
        if not isinstance(content, dict) or not isinstance(content.get(name), type_):
            raise TemplateError(f"{file}: {name} must be {kind}")
    return dict(content)


def find_template(outdir: Path) -> Path:
    """Return the template of a cloud assembly. Raise TemplateError if it does not have exactly one."""
    found = sorted(outdir.glob("*.template.json"))
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "no template"
        raise TemplateError(f"{outdir} has {names}: choose the stack to run with --template FILE")
    return found[0]


def run_app(app: str, root: Path, outdir: Path, context: Mapping[str, str] | None = None) -> None:
    """Run a CDK app as the CDK CLI does, with the context of `root`/cdk.json and `context`. It writes to `outdir`.

    Raises:
        TemplateError: the app failed. The message has the end of what it printed.
    """
    environment = {
        **os.environ,
        "CDK_OUTDIR": str(outdir),
        "CDK_CONTEXT_JSON": json.dumps(read_cdk_json(root)["context"] | dict(context or {})),
        "CDK_VALIDATION": "false",  # it takes half of the time; `npx cdk synth` and the tests validate
    }
    synthesis = subprocess.run(shlex.split(app), cwd=root, env=environment, capture_output=True, text=True, check=False)
    if synthesis.returncode != 0:
        raise TemplateError(f"{app} failed:\n{synthesis.stderr.strip()[-2000:]}")
