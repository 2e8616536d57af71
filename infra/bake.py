"""Read docker-bake.hcl, and make the command with which a deployment builds an image."""

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
BAKE_FILE = ROOT / "docker-bake.hcl"
IMAGES = ROOT / "images"
DOCKERFILE = IMAGES / "Dockerfile"
VARIABLE = re.compile(r'^variable "(\w+)" \{\s*default = "([^"]*)"', re.MULTILINE)
PLATFORM = re.compile(r'^  platforms = \["([^"]+)"\]', re.MULTILINE)
NOT_IN_THE_IMAGE = {"CA_FILE", "TAG"}

# cdk-assets reads the image's name from stdout, so all other output goes to stderr.
# `cd -P`: the shell's path of the current folder may be a symbolic link, whose `..` is another folder.
# BUILDX_BAKE_ENTITLEMENTS_FS: newer versions ask before they read a file outside the project, such as CA_FILE, and in a
# deployment nobody answers.
BUILD = """set -eu
root=$1 python=$2 target=$3 platform=$4 image=$5
shift 5
cd -P "$root"
env BUILDX_BAKE_ENTITLEMENTS_FS=0 "$@" docker buildx bake --file docker-bake.hcl --load --provenance=false --sbom=false \
  --set "$target.tags=$image" "$target" 1>&2
command -v "$python" >/dev/null || python=python3 # the cloud assembly may come from another machine
"$python" -m infra.image_report --platform "$platform" "$image" 1>&2
echo "$image"
"""


@dataclass(frozen=True)
class BakeTarget:
    """One target of docker-bake.hcl.

    Attributes:
        platform: the only platform of the image, e.g. "linux/amd64".
        variables: the bake file's variables, with their values from the environment.
        source_hash: SHA-256 of everything that can change the image.
    """

    name: str
    platform: str
    variables: dict[str, str]
    source_hash: str

    @classmethod
    def read(cls, name: str, images: Path | None = None) -> Self:
        """Read the target as bake would build it now.

        Args:
            name: of the target.
            images: the folder that contains the target's source folder; by default that of the project.

        Raises:
            ValueError: the bake file does not have exactly one platform.
        """
        variables = read_image_variables()
        return cls(name, read_platform(), variables, hash_sources((images or IMAGES) / name, variables))

    def build_command(self, *, outdir: str) -> list[str]:
        """Return the command that builds the image, checks it and prints its name. The CDK CLI runs it in `outdir`.

        Paths in the project are relative, so that the project can be moved with its cloud assembly.
        """
        root = os.path.relpath(ROOT, os.path.realpath(outdir))
        image = f"{self.name}:cdk-{self.source_hash[:16]}"
        settings = [f"{name}={value}" for name, value in self.variables.items()]
        return ["sh", "-c", BUILD, "bake", root, find_interpreter(), self.name, self.platform, image, *settings]


def read_image_variables() -> dict[str, str]:
    """Return the bake file's variables that can change an image, with their values from the environment."""
    defaults: dict[str, str] = dict(VARIABLE.findall(BAKE_FILE.read_text()))
    return {name: os.environ.get(name, default) for name, default in defaults.items() if name not in NOT_IN_THE_IMAGE}


def find_interpreter() -> str:
    """Return the path of this Python, relative to the project if the project contains it."""
    path = Path(sys.executable)
    path = path.parent.resolve() / path.name  # the link is kept: by its path Python finds the virtual environment
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def read_platform() -> str:
    """Return the platform of the bake file, without Docker.

    Raises:
        ValueError: it has none or several. Lambda needs an image of exactly one platform.
    """
    found = PLATFORM.findall(BAKE_FILE.read_text())
    if len(found) != 1:
        raise ValueError(f'{BAKE_FILE.name}: there must be one line such as platforms = ["linux/amd64"]')
    return str(found[0])


def hash_sources(context: Path, variables: dict[str, str]) -> str:
    """Hash the bake file with its variables, the Dockerfile, its scripts, and every file of the target's context."""
    sources = [
        path
        for folder in (context, IMAGES / "build")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    digest = hashlib.sha256(json.dumps(variables, sort_keys=True).encode())
    for path in [BAKE_FILE, DOCKERFILE, *sorted(sources)]:
        digest.update(f"\n{path.relative_to(ROOT).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
