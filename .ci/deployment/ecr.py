"""ECR on one machine: a local AWS's ECR in front of a real image registry.

The local AWS keeps repositories but no images: it names AWS's registry as the place to push to and never says that an
image is missing, so nothing would be pushed. These two are put right here; all else is handed on as it came.
"""

import json
import re
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"
TIMEOUT_SECONDS = 30
AWS_REGISTRY = re.compile(rb"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com")
MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)


class Answer(NamedTuple):
    """What a server on loopback said."""

    status: int
    headers: Message
    body: bytes


def ask(
    address: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    connection = HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def manifest(registry: str, repository: str, tag: str) -> Answer:
    """The manifest just as it was pushed: a registry converts it to what `Accept` leaves out."""
    path = f"/v2/{repository}/manifests/{tag}"
    return ask(registry, "GET", path, headers={"Accept": ", ".join(MANIFEST_TYPES)})


def blob(registry: str, repository: str, digest: str) -> bytes:
    return ask(registry, "GET", f"/v2/{repository}/blobs/{digest}").body


class Ecr(ThreadingHTTPServer):
    """Listens on a free port of loopback; `aws` and `registry` are the hosts and ports of the two behind it."""

    daemon_threads = True

    def __init__(self, *, aws: str, registry: str) -> None:
        super().__init__((LOOPBACK, 0), EcrCall)
        self.aws = aws
        self.registry = registry

    def describe_images(self, request: Mapping[str, Any]) -> tuple[int, bytes]:
        """AWS's answer, by tag: the details of every image, or an error if one is missing."""
        repository, details = request["repositoryName"], []
        for tag in (image["imageTag"] for image in request["imageIds"]):
            pushed = manifest(self.registry, repository, tag)
            if pushed.status == HTTPStatus.NOT_FOUND:
                missing = {"__type": "ImageNotFoundException", "message": f"{repository} has no image {tag}"}
                return HTTPStatus.BAD_REQUEST, json.dumps(missing).encode()
            digest = pushed.headers["Docker-Content-Digest"]
            details.append({"repositoryName": repository, "imageTags": [tag], "imageDigest": digest})
        return HTTPStatus.OK, json.dumps({"imageDetails": details}).encode()

    def hand_on(self, headers: Message, request: bytes) -> tuple[int, bytes]:
        """The local AWS's answer, with the real registry in place of AWS's."""
        kept = {name: value for name, value in headers.items() if name.lower() != "host"}
        answer = ask(self.aws, "POST", "/", headers=kept, body=request)
        return answer.status, AWS_REGISTRY.sub(self.registry.encode(), answer.body)


class EcrCall(BaseHTTPRequestHandler):
    """One call: the action is in a header, request and answer are JSON."""

    server: Ecr
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["X-Amz-Target"].endswith(".DescribeImages"):
            status, answer = self.server.describe_images(json.loads(request))
        else:
            status, answer = self.server.hand_on(self.headers, request)
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing: the CDK CLI tells what it asked and was told."""
