"""Print what Docker images contain, and refuse an image that Lambda would refuse after it is pushed."""

from __future__ import annotations

import argparse
import json
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
PLATFORMS = ("linux/amd64", "linux/arm64")
LARGEST_IMAGE_BYTES = 10 * 1024**3
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
ATTESTATION = "attestation-manifest"

TASK_ROOT = "var/task/"
LARGEST_PACKAGES = 6

Json = dict[str, Any]
Tree = dict[str, int | None]  # the size of each file by its path; None for a folder


@dataclass
class Layer:
    """A layer of an image, with the size of its files."""

    digest: str
    bytes: int = 0
    files: int = 0


@dataclass
class Report:
    """What an image contains, and what is wrong with it.

    Attributes:
        kind: the media type of the image's manifest.
        tree: the files that a container sees, with all layers applied.
        refusals: reasons why Lambda would refuse the image; empty if there are none.
    """

    image: str
    kind: str
    platform: str = "unknown"
    user: str = "root"
    layers: list[Layer] = field(default_factory=list)
    tree: Tree = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def refuse(self, reason: str, *, layer: int | None = None) -> None:
        """Add a reason why Lambda would refuse the image, and the layer's number if it is about a layer."""
        place = self.image if layer is None else f"{self.image}, layer {layer} ({self.layers[layer - 1].digest[:19]})"
        self.refusals.append(f"{place}: {reason}")

    def __str__(self) -> str:
        total = sum(layer.bytes for layer in self.layers)
        packages = Counter[str]()
        for path, size in self.tree.items():
            if path.startswith(TASK_ROOT):
                packages[path.removeprefix(TASK_ROOT).partition("/")[0]] += size or 0
        lines = [
            f"{self.image}: {self.platform}, user {self.user}, {self.kind}",
            *(
                f"  layer {number}    {layer.bytes / 1e6:7.1f} MB {layer.files:6} files   {layer.digest[:19]}"
                for number, layer in enumerate(self.layers, start=1)
            ),
            f"  all layers {total / 1e6:7.1f} MB {sum(layer.files for layer in self.layers):6} files",
            f"  /{TASK_ROOT.rstrip('/')}  {packages.total() / 1e6:7.1f} MB",
            *(f"             {size / 1e6:7.1f} MB   {name}" for name, size in packages.most_common(LARGEST_PACKAGES)),
        ]
        return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.image_report", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--platform", help="refuse an image of another platform, for example linux/amd64")
    options = parser.parse_args(arguments)
    refusals = []
    for image in options.images:
        with TemporaryDirectory() as directory:
            report = read_archive(save_image(image, Path(directory) / "image.tar"), image, platform=options.platform)
        print(report)
        refusals += report.refusals
    if refusals:
        raise SystemExit("\n".join(["Lambda would refuse:", *refusals]))


def save_image(image: str, archive: Path) -> Path:
    """Write the image to an archive by `docker save`; return the archive."""
    saved = subprocess.run(
        ["docker", "save", f"--output={archive}", image], capture_output=True, text=True, check=False
    )
    if saved.returncode != 0:
        raise SystemExit(f"docker save {image}: {saved.stderr.strip()}; build it first, with `docker buildx bake`")
    return archive


def read_archive(archive: Path, image: str, *, platform: str | None = None) -> Report:
    """Report on an archive that `docker save` wrote. If a platform is given, refuse an image of another one."""
    with tarfile.open(archive) as saved:
        report, config, layers = read_manifest(saved, image)
        if report.refusals:
            return report
        report.platform = f"{config['os']}/{config['architecture']}"
        report.user = config.get("config", {}).get("User") or "root"
        check_platform(report, platform)
        for name in layers:
            read_layer(saved, name, report)
    if (size := sum(layer.bytes for layer in report.layers)) > LARGEST_IMAGE_BYTES:
        report.refuse(f"its layers have {size / 1024**3:.1f} GB, but 10 GB is the most; leave files out")
    return report


def read_manifest(saved: tarfile.TarFile, image: str) -> tuple[Report, Json, list[str]]:
    """Return a report without layers, the image's configuration, and the names of its layers in the archive.

    Since version 25 Docker writes an OCI layout. Older versions write manifest.json only.
    """
    if "index.json" not in saved.getnames():
        (manifest,) = read_json(saved, "manifest.json")
        return Report(image, "Docker archive"), read_json(saved, manifest["Config"]), manifest["Layers"]

    manifests = read_json(saved, "index.json")["manifests"]
    report = Report(image, manifests[0]["mediaType"])
    if report.kind in INDEXES:
        manifests = read_json(saved, get_blob_name(manifests[0]))["manifests"]
    if report.kind in INDEXES or len(manifests) > 1:
        report.refuse(
            f"it is an image index of {', '.join(map(describe, manifests))}, but Lambda takes a single image; "
            "build it for one platform and without attestations (--provenance=false --sbom=false)"
        )
        return report, {}, []
    manifest = read_json(saved, get_blob_name(manifests[0]))
    return (
        report,
        read_json(saved, get_blob_name(manifest["config"])),
        [get_blob_name(layer) for layer in manifest["layers"]],
    )


def read_json(saved: tarfile.TarFile, name: str) -> Any:
    file = saved.extractfile(name)
    assert file is not None
    return json.load(file)


def get_blob_name(descriptor: Json) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def describe(descriptor: Json) -> str:
    if descriptor.get("annotations", {}).get("vnd.docker.reference.type") == ATTESTATION:
        return "an attestation"
    platform = descriptor.get("platform", {})
    return f"{platform.get('os', 'unknown')}/{platform.get('architecture', 'unknown')}"


def check_platform(report: Report, wanted: str | None) -> None:
    if wanted and report.platform != wanted:
        report.refuse(f"it is {report.platform}, but the function is {wanted}; change `platforms` in docker-bake.hcl")
    elif report.platform not in PLATFORMS:
        report.refuse(f"it is {report.platform}, but Lambda runs {' or '.join(PLATFORMS)} only")


def read_layer(saved: tarfile.TarFile, name: str, report: Report) -> None:
    """Add a layer to the report, and refuse entries that Lambda may not unpack."""
    layer, own, lower = Layer(parse_digest(name)), Tree(), report.tree
    report.layers.append(layer)
    number = len(report.layers)
    for member, path in read_members(saved, name):
        parent, _, base = path.rpartition("/")
        if parent and own.get(parent, lower.get(parent, 0)) is not None:
            report.refuse(
                f"/{path} comes before or without its folder /{parent}, which Lambda does not create; "
                "add the folder to the layer",
                layer=number,
            )
            own[parent] = None  # one refusal for each folder is enough
        if base == ".wh..wh..opq":
            lower = remove_below(lower, parent, itself=False)
        elif base.startswith(".wh."):
            lower = remove_below(lower, f"{parent}/{base.removeprefix('.wh.')}".lstrip("/"))
        elif member.isdir():
            own[path] = None
        else:
            if reason := find_refusal(member):
                report.refuse(f"/{path} is {reason}", layer=number)
            own[path] = member.size
            layer.bytes += member.size
            layer.files += 1
    report.tree = {**lower, **own}


def parse_digest(name: str) -> str:
    """Return the digest in a layer's name in the archive; the name itself if it has none."""
    return name.removeprefix("blobs/").replace("/", ":")


def read_members(saved: tarfile.TarFile, name: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield each entry of a layer except the root, with its path relative to the root."""
    try:
        with tarfile.open(fileobj=saved.extractfile(name)) as layer:
            for member in layer:
                path = member.name.strip("/").removeprefix("./")
                if path not in ("", "."):
                    yield member, path
    except tarfile.ReadError as error:
        message = (
            f"layer {parse_digest(name)} is not an archive that Python can read; build it without zstd compression"
        )
        raise SystemExit(message) from error


def remove_below(tree: Tree, path: str, *, itself: bool = True) -> Tree:
    """Return the tree without the entries below the path, and by default without the path itself."""
    return {
        name: size for name, size in tree.items() if not name.startswith(f"{path}/") and not (itself and name == path)
    }


def find_refusal(member: tarfile.TarInfo) -> str:
    """Return why Lambda may refuse to unpack an entry of this type; an empty string if it does not."""
    if member.islnk():
        target = member.linkname.removeprefix("./").lstrip("/")
        return f"a hard link to /{target}, which Lambda may refuse to unpack; copy the file instead"
    if member.isdev():
        return "a device node or pipe, which Lambda may refuse to unpack; remove it from the image"
    return ""


if __name__ == "__main__":
    main()
