"""docker-bake.hcl as buildx resolves it, its use by a deployment, and the built images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.bake import BakeTarget, find_interpreter
from tests.fixtures import ROOT
from tests.fixtures.engine import docker

FUNCTIONS = ["authorizer", "websocket"]
EVERYTHING = ("default", "rie", "probe")
VARIABLES = {"BASE_IMAGE", "TAG", "CA_FILE"}
BASE_VARIABLES = {"PATH", "LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256"}  # of python:3.13-slim

Json = dict[str, Any]
Bake = Callable[..., Json]
Deploy = Callable[[str, str], subprocess.CompletedProcess[str]]


@pytest.fixture
def bake(buildx: None) -> Bake:
    """Return a function that resolves the bake file by buildx, with only the given variables."""

    def resolve(*targets: str, **variables: str) -> Json:
        environ = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
        command = ["docker", "buildx", "bake", "--print", *targets]
        printed = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True)
        described: Json = json.loads(printed.stdout)
        return described

    return resolve


def parse_settings(listed: list[Any]) -> list[dict[str, str]]:
    """Parse attestations or secrets, which older versions of buildx print as CSV and newer ones as objects."""
    return [
        dict(field.split("=", 1) for field in each.split(",")) if isinstance(each, str) else each for each in listed
    ]


def test_all_images_have_only_the_committed_platform(bake: Bake) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/images-create.html: Lambda takes no multi-architecture images."""
    targets = bake(*EVERYTHING, PLATFORM="linux/arm64")["target"]

    assert {name: target["platforms"] for name, target in targets.items()} == {
        name: ["linux/amd64"]
        for name in ("authorizer", "websocket", "authorizer-rie", "websocket-rie", "probe", "probe-function")
    }


def test_no_image_has_attestations(bake: Bake) -> None:
    """With attestations buildx writes an image index, which Lambda refuses."""
    targets = bake(*EVERYTHING)["target"]

    for target in targets.values():
        attestations = parse_settings(target["attest"])
        assert {attestation["type"]: str(attestation["disabled"]) for attestation in attestations} == {
            "provenance": "true",
            "sbom": "true",
        }


def test_base_image_is_the_official_one_unless_replaced(bake: Bake) -> None:
    official, replaced = bake(*EVERYTHING), bake(*EVERYTHING, BASE_IMAGE="registry.example/python:3")

    for target in official["target"].values():
        assert target["contexts"]["base"].startswith("docker-image://public.ecr.aws/docker/library/python:3.13-slim")
    for target in replaced["target"].values():
        assert target["contexts"]["base"] == "docker-image://registry.example/python:3"


@pytest.fixture
def base_without_pip(engine: None, tmp_path: Path) -> Iterator[str]:
    """Build the base image without pip."""
    base = os.environ.get("BASE_IMAGE", "public.ecr.aws/docker/library/python:3.13-slim-trixie")
    (tmp_path / "Dockerfile").write_text(f"""
FROM {base}
RUN rm -r $(python -c 'import pip; print(pip.__path__[0])')
""")
    built = docker("build", "--tag=base:without-pip", str(tmp_path))
    assert built.returncode == 0, built.stderr
    yield "base:without-pip"
    docker("image", "rm", "base:without-pip")


def test_unusable_base_image_is_an_error_that_names_the_rule(base_without_pip: str) -> None:
    """The other rules are in test_trim_packages.py: there is no such base image here."""
    baked = docker("buildx", "bake", "authorizer", TAG="unusable", BASE_IMAGE=base_without_pip)

    assert baked.returncode != 0
    assert "BASE_IMAGE cannot be used: it has no pip, which installs the packages." in baked.stderr


def test_default_group_has_the_shipped_images(bake: Bake) -> None:
    resolved = bake()

    assert resolved["target"].keys() == set(FUNCTIONS)
    assert [resolved["target"][function]["tags"] for function in FUNCTIONS] == [["authorizer:dev"], ["websocket:dev"]]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_emulator_is_added_to_the_functions_own_image(bake: Bake, function: str) -> None:
    target = bake("rie")["target"][f"{function}-rie"]

    assert target["contexts"]["function"] == f"target:{function}"
    assert target["tags"] == [f"{function}:rie"]


def test_certificates_are_a_secret_of_the_build_and_not_an_argument(bake: Bake, tmp_path: Path) -> None:
    bundle = tmp_path / "corporate.pem"
    bundle.touch()
    without, with_certificates = bake()["target"], bake(CA_FILE=str(bundle))["target"]

    for function in FUNCTIONS:
        assert parse_settings(without[function].get("secret", [])) == []
        assert parse_settings(with_certificates[function]["secret"]) == [{"id": "ca", "src": str(bundle)}]
        assert with_certificates[function]["args"] == {"SOURCE_DATE_EPOCH": "0"}


# The built images


def inspect(image: str) -> Json:
    inspected = docker("image", "inspect", image)
    assert inspected.returncode == 0, inspected.stderr
    (described,) = json.loads(inspected.stdout)
    assert isinstance(described, dict)
    return described


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_image_starts_lambdas_runtime_by_an_absolute_path(function: str) -> None:
    config = inspect(f"{function}:dev")["Config"]

    assert config["Entrypoint"] == ["/usr/local/bin/python", "-m", "awslambdaric"]
    assert config["Cmd"] == [f"{function}.handler"]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_image_has_the_user_nobody(function: str) -> None:
    """Docker runs the image as this user, but Lambda as another one."""
    assert inspect(f"{function}:dev")["Config"]["User"] == "65534:65534"


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_image_sets_only_the_variables_of_the_runtime(function: str) -> None:
    variables = dict(variable.split("=", 1) for variable in inspect(f"{function}:dev")["Config"]["Env"])

    ours = {name: value for name, value in variables.items() if name not in BASE_VARIABLES}
    assert ours == {"LAMBDA_TASK_ROOT": "/var/task", "PYTHONDONTWRITEBYTECODE": "1", "RES_OPTIONS": "timeout:1"}


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_emulator_adds_one_layer_to_the_shipped_image(function: str) -> None:
    shipped, emulated = inspect(f"{function}:dev"), inspect(f"{function}:rie")

    *below, _ = emulated["RootFS"]["Layers"]
    assert below == shipped["RootFS"]["Layers"]
    assert emulated["Config"]["User"] == shipped["Config"]["User"]
    assert emulated["Config"]["Entrypoint"] == ["aws-lambda-rie", *shipped["Config"]["Entrypoint"]]
    assert emulated["Config"]["Cmd"] == shipped["Config"]["Cmd"]


@pytest.mark.usefixtures("images")
def test_build_without_cache_gives_the_same_image() -> None:
    again = docker("buildx", "bake", "--no-cache", "--load", "--set=authorizer.tags=authorizer:again", "authorizer")
    assert again.returncode == 0, again.stderr

    try:
        assert inspect("authorizer:again")["Id"] == inspect("authorizer:dev")["Id"]
    finally:
        docker("image", "rm", "authorizer:again")


@pytest.fixture
def deploy(images: None, tmp_path: Path) -> Iterator[Deploy]:
    """Return a function that runs the CDK CLI's build command for a template with a platform, with another tag."""

    def run(function: str, platform: str) -> subprocess.CompletedProcess[str]:
        baked = BakeTarget.read(function)
        changes = {baked.platform: platform, f"{function}:cdk-{baked.source_hash[:16]}": f"{function}:deployed"}
        command = [changes.get(part, part) for part in baked.build_command(outdir=str(tmp_path))]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    yield run
    docker("image", "rm", *[f"{function}:deployed" for function in FUNCTIONS])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_deployment_builds_the_image_that_was_tested(deploy: Deploy, function: str) -> None:
    deployed = deploy(function, BakeTarget.read(function).platform)

    assert deployed.stdout == f"{function}:deployed\n", deployed.stderr
    assert f"{function}:deployed: linux/" in deployed.stderr  # the report begins so
    assert inspect(f"{function}:deployed")["Id"] == inspect(f"{function}:dev")["Id"]


def test_deployment_refuses_an_image_with_another_platform_than_the_template(deploy: Deploy) -> None:
    deployed = deploy("authorizer", "linux/s390x")

    assert (deployed.returncode, deployed.stdout) == (1, "")
    assert "but the function is linux/s390x" in deployed.stderr


# The command that the CDK CLI runs, with stubs instead of Docker and the image report


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """Create a folder with stubs: `docker` prints its folder and arguments, and `python` refuses each image."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name, script in {"docker": 'pwd -P; echo "$@"', "python": "echo refused; exit 1"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def run_with_stubs(stubs: Path, command: list[str], cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [str(stubs / "python") if part == find_interpreter() else part for part in command]
    variables = os.environ | {"PATH": f"{stubs}:{os.environ['PATH']}"} | environ
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("link", "folder"), [("link", "a/b/folder"), ("a/b/link", "folder")])
@pytest.mark.parametrize("shell_reports", ["link", "folder"])
def test_deployment_builds_in_the_project_if_the_output_folder_is_a_link(
    stubs: Path, tmp_path: Path, link: str, folder: str, shell_reports: str
) -> None:
    """For example, /tmp is a link on macOS. A shell resolves `..` by PWD, if PWD is a path of its folder."""
    names = {"link": tmp_path / link, "folder": tmp_path / folder}
    for parent in (tmp_path / link).parent, tmp_path / folder:
        parent.mkdir(parents=True, exist_ok=True)
    names["link"].symlink_to(names["folder"])
    command = BakeTarget.read("authorizer").build_command(outdir=str(names["link"]))

    deployed = run_with_stubs(stubs, command, cwd=names["link"], PWD=str(names[shell_reports]))

    assert deployed.stderr.startswith(f"{ROOT}\nbuildx bake ")


def test_deployment_does_not_publish_an_image_that_the_report_refuses(stubs: Path, tmp_path: Path) -> None:
    deployed = run_with_stubs(stubs, BakeTarget.read("authorizer").build_command(outdir=str(tmp_path)), cwd=tmp_path)

    assert (deployed.returncode, deployed.stdout) == (1, "")
    assert deployed.stderr.endswith("refused\n")


def test_report_runs_in_the_python_that_synthesizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The path is relative if the project contains it, so that the cloud assembly does not depend on the machine."""
    (tmp_path / "project").symlink_to(ROOT)
    for executable, expected in {
        ROOT / ".venv" / "bin" / "python": ".venv/bin/python",
        tmp_path / "project" / ".venv" / "bin" / "python": ".venv/bin/python",
        Path("/usr/bin/python3"): "/usr/bin/python3",
    }.items():
        monkeypatch.setattr(sys, "executable", str(executable))
        assert find_interpreter() == expected
