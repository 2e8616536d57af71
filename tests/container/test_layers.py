"""Secrets in the layers of the images. A container shows only the topmost version of a file."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import certifi
import pytest

from tests.fixtures.engine import docker

pytestmark = pytest.mark.usefixtures("images")

MARKER = b"this-is-only-in-the-certificates-of-the-build"
# Each pattern begins with literal characters, which makes the search fast.
SECRETS = [
    re.compile(pattern)
    for pattern in (
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}",
        rb"A(?:KIA|SIA)[0-9A-Z]{9}(?!EXAMPLE)[0-9A-Z]{7}",  # the documentation in botocore has EXAMPLE
        rb"eyJraWQiOi[\w-]+\.eyJ[\w-]+\.",  # a token whose header begins as Cognito's do
        rb"gh[oprsu]_[A-Za-z0-9]{36}",
        rb"github_pat_\w{22}",
        rb"npm_[A-Za-z0-9]{36}",
        rb"pypi-AgE[\w-]{20}",
        MARKER,
    )
]


def find_secrets(archive: Path, *images: str) -> list[tuple[str, bytes]]:
    """Return the secrets in the layers, history and environment of images, each with its file."""
    saved = docker("save", f"--output={archive}", *images)
    assert saved.returncode == 0, saved.stderr
    return [
        (name, secret)
        for name, content in read_contents(archive)
        for pattern in SECRETS
        for secret in pattern.findall(content)
    ]


def read_contents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of an archive of images: their descriptions, and the files in their layers."""
    with tarfile.open(archive) as members:
        for member, file in read_files(members):
            try:
                with tarfile.open(fileobj=file) as layer:
                    yield from ((name, content.read()) for name, content in read_files(layer))
            except tarfile.ReadError:
                file.seek(0)
                yield member, file.read()


def read_files(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive:
        if member.isreg() and (file := archive.extractfile(member)):
            yield member.name, file


@pytest.fixture(scope="module")
def marked_image(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the authorizer without cache, with a marker in the certificates of the build."""
    bundle = tmp_path_factory.mktemp("certificates") / "bundle.pem"
    bundle.write_bytes(Path(os.environ.get("CA_FILE") or certifi.where()).read_bytes() + b"\n" + MARKER + b"\n")
    command = ["buildx", "bake", "--no-cache", "--load", "authorizer"]
    baked = docker(*command, TAG="marked", CA_FILE=str(bundle), BUILDX_BAKE_ENTITLEMENTS_FS="0")
    assert baked.returncode == 0, baked.stderr
    yield "authorizer:marked"
    docker("image", "rm", "authorizer:marked")


def test_no_layer_has_a_secret(marked_image: str, tmp_path: Path) -> None:
    assert find_secrets(tmp_path / "images.tar", marked_image, "authorizer:dev", "websocket:dev") == []


def test_certificates_of_the_build_do_not_change_the_image(marked_image: str) -> None:
    inspected = docker("image", "inspect", "--format={{.Id}}", marked_image, "authorizer:dev")
    again, shipped = inspected.stdout.split()

    assert again == shipped


PLANTED = [
    MARKER,
    b"AKIA" + b"Q" * 16,
    b"-----BEGIN RSA PRIVATE KEY-----\n" + b"A" * 64,
    b"eyJraWQiOiJhIn0.eyJzdWIiOiJhIn0.",
    b"npm_" + b"a" * 36,
    b"ghp_" + b"a" * 36,
]


@pytest.fixture
def image_with_secrets(tmp_path: Path) -> Iterator[str]:
    """Build the authorizer with secrets in a file that a later layer replaces, and with one in a variable."""
    (tmp_path / "secrets").write_bytes(b"\n".join(PLANTED[:-1]))
    (tmp_path / "nothing").touch()
    variable = PLANTED[-1].decode()
    (tmp_path / "Dockerfile").write_text(f"""
FROM authorizer:dev
COPY secrets /var/task/settings
COPY nothing /var/task/settings
ENV TOKEN={variable}
""")
    built = docker("buildx", "build", "--load", "--tag=authorizer:careless", str(tmp_path))
    assert built.returncode == 0, built.stderr
    yield "authorizer:careless"
    docker("image", "rm", "authorizer:careless")


def test_planted_secrets_are_found(image_with_secrets: str, tmp_path: Path) -> None:
    found = find_secrets(tmp_path / "image.tar", image_with_secrets)

    assert {secret for _, secret in found} == {*PLANTED}
    assert {secret for name, secret in found if name == "var/task/settings"} == {*PLANTED[:-1]}
