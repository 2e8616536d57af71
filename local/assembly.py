"""Caches the cloud assembly of this project's CDK app. It is synthesized again only if one of its inputs has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from infra.bake import read_image_variables
from local import paths
from local.cloudformation.synthesis import find_template, read_cdk_json, synthesize
from local.errors import TemplateError

# All files that the app reads. The lock files stand for the versions of its libraries.
INPUTS = ("cdk.json", "docker-bake.hcl", "images", "infra", "package-lock.json", "requirements/dev.txt")
KEPT = 8  # cached assemblies; each set of contexts has its own


def find_cached_template(context: Mapping[str, str]) -> Path | None:
    """Return the template of an earlier synthesis from the same inputs; None if there was none."""
    folder = find_assembly_folder(context)
    try:
        template = find_template(folder)
    except TemplateError:
        return None
    folder.touch()  # the least recently used are deleted first
    return template


def synthesize_template(context: Mapping[str, str]) -> Path:
    """Synthesize this project's stack, and cache the assembly.

    Raises:
        TemplateError: the app failed. The message has the end of what it printed.
    """
    folder = find_assembly_folder(context)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-") as new:
        synthesize(paths.ROOT, Path(new) / "cdk.out", open_sign_up(context))
        if find_assembly_folder(context) != folder:  # a file was edited during the synthesis
            return synthesize_template(context)
        with suppress(TemplateError):
            return find_template(folder)  # another run has cached it first
        shutil.rmtree(folder, ignore_errors=True)  # it has no template, so it is incomplete
        with suppress(OSError):
            (Path(new) / "cdk.out").rename(folder)
    for old in sorted(folder.parent.glob("[0-9a-f]*"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return find_template(folder)


def open_sign_up(context: Mapping[str, str]) -> dict[str, str]:
    """Return the context with `selfSignUp` true, so that users can sign up on the page.

    A value in the context or in cdk.json takes precedence.
    """
    default = {} if "selfSignUp" in read_cdk_json(paths.ROOT)["context"] else {"selfSignUp": "true"}
    return default | dict(context)


def find_assembly_folder(context: Mapping[str, str]) -> Path:
    return paths.STATE / "assemblies" / compute_fingerprint(context)


def compute_fingerprint(context: Mapping[str, str]) -> str:
    """Return a hash of the template's inputs: sources, locks, contexts, and the images' variables."""
    settings = [sys.version, dict(context), read_image_variables()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted(list_input_files()):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(paths.ROOT).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def list_input_files() -> Iterator[Path]:
    for name in INPUTS:
        path = paths.ROOT / name
        found = path.rglob("*") if path.is_dir() else [path]
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)
