"""The authorizer's image trusts the root certificates in one folder, and loads them only when it needs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.certificate import make_tls
from tests.fixtures.engine import docker
from tests.fixtures.functions import AUTHORIZER
from tests.fixtures.network import Answer, LoopbackServer

pytestmark = pytest.mark.usefixtures("images")

FOLDER = "/etc/ssl/certs"
DOWNLOAD = "import authorizer, sys; print(authorizer.download(sys.argv[1], authorizer.JWKS_SECONDS).decode())"


def download(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    environ = [f"--env={name}={value}" for name, value in AUTHORIZER.items()]
    command = ["--entrypoint=python", "authorizer:dev", "-c", DOWNLOAD, url]
    return docker("run", "--rm", "--network=host", *options, *environ, *command)


def test_tls_connection_needs_a_root_certificate_in_the_folder(tmp_path: Path) -> None:
    tls = make_tls(tmp_path)
    server = LoopbackServer(Answer(body=[b"keys"]))
    server.socket = tls.context.wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.server_port}/"
    with server:
        trusted = download(url, f"--volume={tls.directory}:{FOLDER}:ro")
        unknown = download(url)

    assert (trusted.returncode, trusted.stdout.strip()) == (0, "keys"), trusted.stderr
    assert unknown.stderr.strip().endswith(f"KeySetUnavailable: {url}: SSLCertVerificationError")


def test_no_root_certificate_is_loaded_before_it_is_needed() -> None:
    code = f"""
import glob, ssl
print(len(ssl.create_default_context().get_ca_certs()), len(glob.glob("{FOLDER}/*.0")) > 100)
"""
    ran = docker("run", "--rm", "--network=none", "--entrypoint=python", "authorizer:dev", "-c", code)

    assert (ran.returncode, ran.stdout.strip()) == (0, "0 True"), ran.stderr
