"""What AWS is to a deployment: an AWS and an image registry on loopback, and an environment that leads there."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ecr import LOOPBACK, Ecr
from processes import ROOT, docker, run, say, service, tail

STATE = Path(os.environ.get("CI_STATE", "/var/tmp/websocket-ci"))  # noqa: S108 - .ci/prepare's, kept between runs
REGION = "eu-central-1"  # no tool's default, so that a region written down somewhere shows
ACCOUNT = "111122223333"  # of AWS's documentation; as an access key it also names the account to the local AWS
NO_ENGINE = "unix:///nowhere/docker.sock"


def lead_to_loopback(directory: Path, *, aws: str, ecr: str) -> None:
    """Makes every tool that is started from here use the local AWS, and remember nothing of it."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CDK_"))]:
        del os.environ[name]  # no real account is ever to be reached from here
    os.environ |= {
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": f"http://{aws}",
        "AWS_ENDPOINT_URL_ECR": f"http://{ecr}",
        "CDK_HOME": str(directory / "cdk"),  # it remembers whose account an access key is
        "DOCKER_CONFIG": str(directory / "docker"),  # it remembers the login
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
        "TAG": "dev",
    }


def ministack(directory: Path) -> tuple[str, ...]:
    """The command that starts the local AWS, in what `make setup` made, or else in an environment made here."""
    made = ROOT / ".local" / "venvs" / "aws" / "bin" / "python"
    if not made.exists():
        environment = STATE / "aws"
        run(directory, sys.executable, "-m", "venv", str(environment))
        pip = (str(environment / "bin" / "pip"), "--disable-pip-version-check", "install")
        run(directory, *pip, "--require-hashes", "--requirement=requirements/aws.txt")
        made = environment / "bin" / "python"
    return str(made), str(Path(__file__).with_name("ministack_with_our_types.py"))


@contextmanager
def local_aws(command: tuple[str, ...], directory: Path) -> Iterator[str]:
    address, log = free_address(), directory / "aws.log"
    environment = {
        "BIND_HOST": LOOPBACK,
        "GATEWAY_PORT": address.rpartition(":")[2],
        "DOCKER_HOST": NO_ENGINE,  # it is to run nothing there, and to stop nobody's containers
        "LAMBDA_EXECUTOR": "local",
        "IOT_MTLS_ENABLED": "0",  # these two would listen on every interface
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(directory),
    }
    with service(command, address, "/_ministack/health", log, environment) as aws:
        try:
            yield aws
        except Exception:
            if warnings := tail(log):
                say(f"--- the local AWS:\n{warnings}\n---")
            raise


def docker_registry(directory: Path) -> AbstractContextManager[str]:
    address = free_address()
    configuration = directory / "registry.json"  # which is YAML too
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
        "http": {"addr": address},
    }
    configuration.write_text(json.dumps(settings))
    return service(("docker-registry", "serve", str(configuration)), address, "/v2/", directory / "registry.log")


def free_address() -> str:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return f"{LOOPBACK}:{listener.getsockname()[1]}"


@contextmanager
def ecr_between(aws: str, registry: str) -> Iterator[str]:
    with Ecr(aws=aws, registry=registry) as ecr:
        threading.Thread(target=ecr.serve_forever, daemon=True).start()
        try:
            yield f"{LOOPBACK}:{ecr.server_port}"
        finally:
            ecr.shutdown()


@contextmanager
def no_tags_left(*prefixes: str) -> Iterator[None]:
    """Removes the image tags that were made in the block and begin like this."""
    before = image_tags()
    try:
        yield
    finally:
        for tag in image_tags() - before:
            if tag.startswith(prefixes):
                docker("rmi", tag)


def image_tags() -> set[str]:
    return set(docker("images", "--format={{.Repository}}:{{.Tag}}").split())
