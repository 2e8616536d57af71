"""The images that `make image-report` and a deployment refuse, in archives as `docker save` writes them."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import infra.image_report
from infra.image_report import Report, read_archive
from tests.fixtures.archives import ATTESTATION, Archive, Json, Layer, entry, folder, pack

Read = Callable[..., Report]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return how to read an image with these layers."""

    def write_and_read(*layers: Layer, wanted: str | None = None, **image: Any) -> Report:
        archive = Archive(**image)
        path = archive.write(tmp_path / "image.tar", archive.add_manifest(*map(pack, layers)))
        return read_archive(path, "echo:dev", platform=wanted)

    return write_and_read


BASE = [folder("var"), folder("var/task"), entry("var/task/six.py", size=200)]


def test_report_lists_layers_and_packages(read: Read) -> None:
    report = read(
        [*BASE, folder("usr"), entry("usr/python", size=3_000_000)],
        [folder("./var/task/botocore/"), entry("./var/task/botocore/session.py", size=1_400_000)],
    )

    lines = [" ".join(line.split()) for line in str(report).splitlines()]
    first, second = (layer.digest[:19] for layer in report.layers)
    assert lines == [
        "echo:dev: linux/amd64, user 65534:65534, application/vnd.oci.image.manifest.v1+json",
        f"layer 1 3.0 MB 2 files {first}",
        f"layer 2 1.4 MB 1 files {second}",
        "all layers 4.4 MB 3 files",
        "/var/task 1.4 MB",
        "1.4 MB botocore",
        "0.0 MB six.py",
    ]
    assert report.refusals == []


def test_later_layers_replace_and_remove_files_of_earlier_ones(read: Read) -> None:
    report = read(
        [*BASE, entry("var/task/a.py"), folder("var/task/b"), entry("var/task/b/c.py"), folder("opt"), entry("opt/d")],
        [entry("var/task/.wh.a.py"), entry("var/task/.wh.b"), entry("var/task/six.py", size=1)],
        [folder("opt"), entry("opt/.wh..wh..opq"), entry("opt/e", size=2)],
    )

    assert report.tree == {"var": None, "var/task": None, "var/task/six.py": 1, "opt": None, "opt/e": 2}
    assert report.refusals == []


@pytest.mark.parametrize(
    ("layer", "refusal"),
    [
        (
            [entry("var/task/again.py", tarfile.LNKTYPE, link="var/task/six.py")],
            "/var/task/again.py is a hard link to /var/task/six.py, which Lambda may refuse to unpack; copy the file instead",
        ),
        *(
            (
                [entry("var/tty", kind)],
                "/var/tty is a device node or pipe, which Lambda may refuse to unpack; remove it from the image",
            )
            for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
        ),
        (
            [entry("opt/lib/a.so"), entry("opt/lib/b.so")],
            (
                "/opt/lib/a.so comes before or without its folder /opt/lib, which Lambda does not create; "
                "add the folder to the layer"
            ),
        ),
        (
            [entry("opt/a"), folder("opt")],
            "/opt/a comes before or without its folder /opt, which Lambda does not create; add the folder to the layer",
        ),
        (
            [entry("var/task/six.py/a")],
            (
                "/var/task/six.py/a comes before or without its folder /var/task/six.py, which Lambda does not create; "
                "add the folder to the layer"
            ),
        ),
    ],
    ids=["hard link", "character device", "block device", "pipe", "no folder", "folder comes later", "file as folder"],
)
def test_entry_that_lambda_may_not_unpack_is_refused(read: Read, layer: Layer, refusal: str) -> None:
    report = read(BASE, layer)

    assert report.refusals == [f"echo:dev, layer 2 ({report.layers[1].digest[:19]}): {refusal}"]


@pytest.mark.parametrize("removal", [[entry(".wh.opt")], [entry("opt/.wh.lib")], [entry("opt/.wh..wh..opq")]])
def test_folder_of_a_removed_folder_is_missing(read: Read, removal: Layer) -> None:
    report = read([folder("opt"), folder("opt/lib")], removal, [entry("opt/lib/a.so")])

    (refusal,) = report.refusals
    assert "layer 3" in refusal
    assert "/opt/lib/a.so comes before or without its folder /opt/lib" in refusal


def test_image_of_another_platform_than_the_functions_is_refused(read: Read) -> None:
    refused, accepted = read(BASE, wanted="linux/arm64"), read(BASE, platform="linux/arm64", wanted="linux/arm64")

    assert refused.refusals == [
        "echo:dev: it is linux/amd64, but the function is linux/arm64; change `platforms` in docker-bake.hcl"
    ]
    assert accepted.refusals == []


def test_image_of_a_platform_that_lambda_does_not_have_is_refused(read: Read) -> None:
    assert read(BASE, platform="linux/s390x").refusals == [
        "echo:dev: it is linux/s390x, but Lambda runs linux/amd64 or linux/arm64 only"
    ]


def test_image_that_is_too_large_is_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 1024**2
    monkeypatch.setattr(infra.image_report, "LARGEST_IMAGE_BYTES", largest)
    one, other = [entry("a", size=largest // 2)], [entry("a", size=largest // 2 + 1)]

    assert read(one, one).refusals == []
    assert read(one, other).refusals == ["echo:dev: its layers have 0.0 GB, but 10 GB is the most; leave files out"]


def test_image_without_a_user_runs_as_root(read: Read) -> None:
    assert read(BASE, user="").user == "root"


# Stores


@pytest.mark.parametrize("at_the_top", [False, True], ids=["an index", "several manifests"])
@pytest.mark.parametrize(
    ("others", "described"),
    [
        ([{"platform": {"os": "unknown", "architecture": "unknown"}, "annotations": ATTESTATION}], "an attestation"),
        ([{"platform": {"os": "linux", "architecture": "arm64"}}], "linux/arm64"),
    ],
    ids=["attestation", "two platforms"],
)
def test_index_is_refused(tmp_path: Path, others: list[Json], described: str, *, at_the_top: bool) -> None:
    archive = Archive()
    manifests = [
        archive.add_manifest(pack(BASE), **more)
        for more in [{"platform": {"os": "linux", "architecture": "amd64"}}, *others]
    ]
    path = archive.write(tmp_path / "image.tar", *(manifests if at_the_top else [archive.add_index(*manifests)]))

    assert read_archive(path, "echo:dev").refusals == [
        (
            f"echo:dev: it is an image index of linux/amd64, {described}, but Lambda takes a single image; "
            "build it for one platform and without attestations (--provenance=false --sbom=false)"
        )
    ]


def test_index_of_one_image_is_refused(tmp_path: Path) -> None:
    archive = Archive()
    path = archive.write(tmp_path / "image.tar", archive.add_index(archive.add_manifest(pack(BASE))))

    report = read_archive(path, "echo:dev")

    assert report.kind == "application/vnd.oci.image.index.v1+json"
    assert "it is an image index of unknown/unknown, " in report.refusals[0]


def test_compressed_layers_are_read(tmp_path: Path) -> None:
    """Docker's containerd store keeps layers compressed, as they were pulled."""
    archive = Archive()
    path = archive.write(tmp_path / "image.tar", archive.add_manifest(gzip.compress(pack([entry("opt/a", size=5)]))))

    report = read_archive(path, "echo:dev")

    assert report.layers[0].bytes == 5
    assert "/opt/a comes before or without its folder /opt" in report.refusals[0]


def test_layer_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    archive = Archive()
    zstd = bytes.fromhex("28b52ffd") + bytes(512)  # RFC 8878 section 3.1.1
    path = archive.write(tmp_path / "image.tar", archive.add_manifest(zstd))

    with pytest.raises(
        SystemExit, match=r"^layer sha256:\w+ is not an archive that Python can read; build it without "
    ):
        read_archive(path, "echo:dev")


def test_archive_of_older_docker_is_read(tmp_path: Path) -> None:
    archive = Archive()
    archive.files |= {
        "config.json": archive.files[f"blobs/{archive.config['digest'].replace(':', '/')}"],
        "1f2e/layer.tar": pack([*BASE, entry("var/null", tarfile.CHRTYPE)]),
        "manifest.json": json.dumps([{"Config": "config.json", "Layers": ["1f2e/layer.tar"]}]).encode(),
    }

    report = read_archive(archive.write_files(tmp_path / "image.tar"), "echo:dev")

    assert (report.kind, report.platform, report.user) == ("Docker archive", "linux/amd64", "65534:65534")
    assert "layer 1 (1f2e:layer.tar): /var/null is a device node" in report.refusals[0]
