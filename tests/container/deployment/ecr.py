"""ECR on this machine: the local AWS's ECR, with a real image registry behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import requests

from tests.fixtures.network import Answer, LoopbackServer, Request

AWS_REGISTRY = re.compile(rb"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com")
JSON = {"Content-Type": "application/x-amz-json-1.1"}
TIMEOUT_SECONDS = 30
# A registry converts a manifest to another type if `Accept` lacks the type that was pushed.
MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)


def get_manifest(registry: str, repository: str, tag: str) -> requests.Response:
    """Return the registry's answer: the manifest as it was pushed, or 404."""
    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    return requests.get(url, headers={"Accept": ", ".join(MANIFEST_TYPES)}, timeout=TIMEOUT_SECONDS)


def get_blob(registry: str, repository: str, digest: str) -> Any:
    answer = requests.get(f"http://{registry}/v2/{repository}/blobs/{digest}", timeout=TIMEOUT_SECONDS)
    assert answer.ok, answer.text
    return answer.json()


class Ecr(LoopbackServer):
    """A proxy for the ECR of the local AWS, which keeps repositories but no images.

    The local AWS names AWS's registry as the one to push to, and never reports that an image is missing, so the CDK CLI
    would push nothing. The proxy changes only these two answers.
    """

    def __init__(self, *, aws_url: str, registry: str) -> None:
        super().__init__(Answer())
        self.aws_url = aws_url
        self.registry = registry

    def respond(self, request: Request) -> Answer:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers["x-amz-target"].endswith(".DescribeImages"):
            return self._describe_images(json.loads(request.body))
        del headers["host"]
        answer = requests.post(self.aws_url, request.body, headers=headers, timeout=TIMEOUT_SECONDS)
        return Answer(answer.status_code, [AWS_REGISTRY.sub(self.registry.encode(), answer.content)], JSON)

    def _describe_images(self, request: Mapping[str, Any]) -> Answer:
        repository, details = request["repositoryName"], []
        for tag in (image["imageTag"] for image in request["imageIds"]):
            pushed = get_manifest(self.registry, repository, tag)
            if pushed.status_code == 404:
                missing = {"__type": "ImageNotFoundException", "message": f"{repository} has no image {tag}"}
                return Answer(400, [json.dumps(missing).encode()], JSON)
            digest = pushed.headers["Docker-Content-Digest"]
            details.append({"repositoryName": repository, "imageTags": [tag], "imageDigest": digest})
        return Answer(200, [json.dumps({"imageDetails": details}).encode()], JSON)
