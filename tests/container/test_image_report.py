"""`make image-report` and a deployment refuse images that Lambda cannot run."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from infra.image_report import main
from tests.fixtures.archives import Archive, entry, folder, pack
from tests.fixtures.engine import docker


@pytest.mark.usefixtures("images")
def test_both_images_pass(capsys: pytest.CaptureFixture[str]) -> None:
    main(["authorizer:dev", "websocket:dev"])

    printed = capsys.readouterr().out
    assert "authorizer:dev: linux/" in printed
    assert "websocket:dev: linux/" in printed
    assert printed.count(", user 65534:65534, ") == 2
    assert printed.count("/var/task") == 2


@pytest.fixture
def refused_image(engine: None, tmp_path: Path) -> Iterator[str]:
    """Load an image into the engine that has each kind of entry that Lambda may refuse to unpack."""
    archive = Archive()
    layer = [
        folder("opt"),
        entry("opt/a", size=3),
        entry("opt/b", tarfile.LNKTYPE, link="opt/a"),
        entry("opt/null", tarfile.CHRTYPE),
        entry("srv/c"),
    ]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(pack(layer)).hexdigest()}"]},
    }
    archive.files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": pack(layer),
        "manifest.json": json.dumps(
            [{"Config": "config.json", "Layers": ["layer.tar"], "RepoTags": ["refused:test"]}]
        ).encode(),
    }
    put = docker("load", f"--input={archive.write_files(tmp_path / 'refused.tar')}")
    assert put.returncode == 0, put.stderr
    yield "refused:test"
    docker("image", "rm", "refused:test")


def test_image_in_the_engine_is_refused_with_all_reasons(
    refused_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as failure:
        main([refused_image, "--platform=linux/arm64"])

    assert "refused:test: linux/amd64, user root, " in capsys.readouterr().out
    heading, *refusals = str(failure.value.code).splitlines()
    assert heading == "Lambda would refuse:"
    for refusal, reason in zip(
        refusals,
        ["it is linux/amd64", "/opt/b is a hard link", "/opt/null is a device node", "/srv/c comes before or without"],
        strict=True,
    ):
        assert refusal.startswith(refused_image)
        assert reason in refusal


@pytest.mark.usefixtures("engine")
def test_missing_image_is_an_error() -> None:
    with pytest.raises(
        SystemExit, match=r"^docker save nonexistent:dev: Error .+; build it first, with `docker buildx bake`$"
    ):
        main(["nonexistent:dev"])
