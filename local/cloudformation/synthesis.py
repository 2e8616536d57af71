"""Runs a CDK app as the CDK CLI does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

from local.errors import TemplateError


def synthesize(root: Path, outdir: Path, context: dict[str, str] | None = None) -> Path:
    """Runs the CDK app of `root`/cdk.json as the CDK CLI would; returns the template's path.

    Args:
        root: the folder of cdk.json.
        outdir: where the cloud assembly goes.
        context: replaces values of cdk.json's.

    Raises:
        TemplateError: the app failed, its last lines of output are the message.
    """
    run_app(json.loads((root / "cdk.json").read_text())["app"], root, outdir, context)
    (template,) = outdir.glob("*.template.json")
    return template


def run_app(app: str, root: Path, outdir: Path, context: dict[str, str] | None = None) -> None:
    """Runs a CDK app with the context of `root`/cdk.json and this; its templates are in `outdir` then.

    Raises:
        TemplateError: as for `synthesize`.
    """
    environment = {
        **os.environ,
        "CDK_OUTDIR": str(outdir),
        "CDK_CONTEXT_JSON": json.dumps(json.loads((root / "cdk.json").read_text())["context"] | (context or {})),
        "CDK_VALIDATION": "false",  # half of the time; `npx cdk synth` and the tests do it
    }
    synthesis = subprocess.run(shlex.split(app), cwd=root, env=environment, capture_output=True, text=True, check=False)
    if synthesis.returncode != 0:
        raise TemplateError(f"{app} failed:\n{synthesis.stderr.strip()[-2000:]}")
