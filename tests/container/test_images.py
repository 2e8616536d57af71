"""Files, permissions, programs and bytecode of the built images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.fixtures import ROOT
from tests.fixtures.emulator import WEBSOCKET, Emulator
from tests.fixtures.engine import docker
from tests.fixtures.functions import AUTHORIZER

pytestmark = [
    pytest.mark.usefixtures("images"),
    pytest.mark.parametrize("function", ["authorizer", "websocket"]),
]


# Finds all files and folders of an image, except those of the kernel and the engine.
WALK = """
import os, stat
everything = [
    os.path.join(folder, name)
    for folder, folders, files in os.walk("/")
    if not folder.startswith(("/proc", "/sys", "/dev"))
    for name in [*folders, *files]
]
there = [path for path in everything if not os.path.islink(path)]
"""


def run_python(image: str, code: str, *options: str) -> str:
    """Run code by the image's Python; return its output."""
    ran = docker("run", "--rm", "--network=none", "--entrypoint=python", *options, image, "-c", code)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_docker_runs_the_function_as_the_user_nobody(function: str) -> None:
    """Lambda uses another user."""
    assert run_python(f"{function}:dev", "import os; print(os.getuid(), os.getgid())") == "65534 65534"


def test_any_user_can_read_the_function_and_its_python(function: str) -> None:
    code = (
        WALK
        + """
import sysconfig
roots = (os.getcwd(), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
ours = [path for path in there if path.startswith(roots)]
assert len(ours) > 1000
print([path for path in ours if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0))])
"""
    )
    assert run_python(f"{function}:dev", code, "--user=993:990") == "[]"


def test_function_cannot_change_its_own_code(function: str) -> None:
    code = """
import os, sys
print([path for path in [os.getcwd(), *sys.path] if os.path.exists(path) and os.access(path, os.W_OK)])
"""
    assert run_python(f"{function}:dev", code) == "[]"


def test_function_can_write_to_tmp_only(function: str) -> None:
    """Test without a read-only file system, which Lambda has."""
    code = WALK + "print([path for path in there if path != '/tmp' and os.access(path, os.W_OK)])"

    assert run_python(f"{function}:dev", code) == "[]"


def test_no_program_runs_as_another_user(function: str) -> None:
    code = WALK + "print([path for path in there if os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID)])"

    assert run_python(f"{function}:dev", code) == "[]"


def test_python_has_the_same_path_with_each_base_image(function: str) -> None:
    assert run_python(f"{function}:dev", "import sys; print(sys.executable)") == "/usr/local/bin/python"


def test_python_is_the_only_program(function: str) -> None:
    code = """
import os
folders = [f"{prefix}/{name}" for prefix in ("", "/usr", "/usr/local") for name in ("bin", "sbin")]
print({name[:6] for folder in folders for name in os.listdir(folder)})
"""
    assert run_python(f"{function}:dev", code) == "{'python'}"


def test_no_shell_can_be_started(function: str) -> None:
    started = docker("run", "--rm", "--network=none", "--entrypoint=/bin/sh", f"{function}:dev", "-c", "echo here")

    assert (started.returncode, started.stdout) == (127, "")  # 127: there is no such file


def test_image_has_no_pip(function: str) -> None:
    code = "from importlib.util import find_spec; print([name for name in ('pip', 'ensurepip') if find_spec(name)])"

    assert run_python(f"{function}:dev", code) == "[]"


def test_task_root_has_only_the_handler_and_the_locked_packages(function: str) -> None:
    """Find also packages' tests, sources of extension modules, and bytecode without its source."""
    code = f"""
import json
from importlib.metadata import distributions
from importlib.util import source_from_cache
from pathlib import Path
root = Path("/var/task")
packages = [*distributions(path=[str(root)])]
known = {{root / "{function}.py", *(root / file for package in packages for file in package.files)}}
sources = {{
    path: Path(source_from_cache(path)) if path.suffix == ".pyc" else path for path in root.rglob("*") if path.is_file()
}}
print(json.dumps([
    [[package.metadata["Name"], package.version] for package in packages],
    [str(path) for path, source in sources.items() if source not in known or not source.exists()],
    [str(path) for path in root.rglob("*") if path.name in ("tests", ".git") or path.suffix in (".pyi", ".c", ".h")],
]))
"""
    requirements = (ROOT / "images" / function / "requirements.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==(\S+)", requirements, re.MULTILINE))
    packages, unknown, superfluous = json.loads(run_python(f"{function}:dev", code))

    # Vulnerability scanners find every package by its metadata, even one whose files were left out.
    assert {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in packages} == locked
    assert unknown == superfluous == []


def test_task_root_is_not_larger_than_its_limit(function: str) -> None:
    code = """
import os
paths = [os.path.join(folder, name) for folder, folders, files in os.walk("/var/task") for name in ["", *files]]
print(sum(os.lstat(path).st_blocks for path in paths) * 512)
"""
    limits_mb = {"authorizer": 24, "websocket": 20}

    assert int(run_python(f"{function}:dev", code)) <= limits_mb[function] * 1e6


def test_all_code_of_the_function_is_compiled(function: str) -> None:
    """In a read-only image Python would compile it again at each cold start."""
    code = f"""
import pathlib
from importlib.util import cache_from_source
sources = set(pathlib.Path("/var/task").rglob("*.py"))
assert pathlib.Path("/var/task/{function}.py") in sources
print([str(path) for path in sources if not pathlib.Path(cache_from_source(path)).exists()])
"""
    assert run_python(f"{function}:dev", code) == "[]"


def test_python_never_checks_the_bytecode_of_its_imports(function: str) -> None:
    """Check also the standard library, of which python:slim has no bytecode. PEP 552 defines the flags."""
    code = f"""
import os, sys
os.environ.update({json.dumps({"AWS_REGION": "us-east-1", **AUTHORIZER, **WEBSOCKET})})
import awslambdaric.bootstrap, {function}
specs = [module.__spec__ for module in sys.modules.values() if module.__spec__ and module.__spec__.cached]
flags = {{spec.name: open(spec.cached, "rb").read(8)[4] for spec in specs}}
assert {{"{function}", "awslambdaric.bootstrap", "logging", "ssl"}} <= flags.keys()
print([name for name, value in flags.items() if value != 0b01])
"""
    assert run_python(f"{function}:dev", code) == "[]"


def test_emulator_is_not_shipped(function: str) -> None:
    code = "import shutil; print(shutil.which('aws-lambda-rie'))"

    assert run_python(f"{function}:dev", code) == "None"
    assert run_python(f"{function}:rie", code) == "/usr/local/bin/aws-lambda-rie"


@pytest.fixture
def published(function: str) -> Iterator[Emulator]:
    """Run the image with the emulator as docs/functions.md does, but without a writable path, not even /tmp."""
    variables = {"AWS_DEFAULT_REGION": "us-east-1", **AUTHORIZER, **WEBSOCKET}
    settings = ["--read-only", "--publish=127.0.0.1::8080", *[f"--env={n}={value}" for n, value in variables.items()]]
    started = docker("run", "--detach", *settings, f"{function}:rie")
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        address = docker("port", container, "8080").stdout.strip()
        emulator = Emulator(f"http://{address}", lambda: docker("logs", container).stderr)
        emulator.wait_until_ready()
        yield emulator
    finally:
        docker("rm", "--force", container)


def test_image_serves_without_a_writable_path(function: str, published: Emulator) -> None:
    connect_without_token_or_authorizer = {
        "methodArn": "arn:aws:execute-api:us-east-1:123456789012:abcdef123/prod/$connect",
        "requestContext": {"routeKey": "$connect", "connectionId": "L0SM9cOFvHcCIhw="},
    }
    expected = {"authorizer": {"principalId": "anonymous"}, "websocket": {"errorType": "KeyError"}}

    _, answer = published.invoke(connect_without_token_or_authorizer)

    assert expected[function].items() <= answer.items()
