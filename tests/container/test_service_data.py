"""botocore with trimmed service data, in the websocket image, behaves as the complete botocore."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from typing import Any, NamedTuple

import botocore.session
import pytest
from botocore import xform_name

from tests.fixtures import ROOT
from tests.fixtures.engine import docker
from tests.fixtures.functions import EXECUTION_ENVIRONMENT
from tests.fixtures.network import Answer, LoopbackServer, Request

WEBSOCKET = ROOT / "images" / "websocket"
COMPLETE = ROOT / ".local" / "venvs" / "websocket" / "bin" / "python"
OPERATIONS: dict[str, list[str]] = tomllib.loads((WEBSOCKET / "trim.toml").read_text())["operations"]

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run_in_image(images: None) -> Run:
    """Return a function that runs code in the image and returns the JSON that the code prints."""

    def run(code: str, *arguments: str, **environ: str) -> Any:
        variables = [f"--env={name}={value}" for name, value in (EXECUTION_ENVIRONMENT | environ).items()]
        command = ["run", "--rm", "--network=host", *variables, "--entrypoint=python", "websocket:dev"]
        ran = docker(*command, "-c", code, *arguments)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run


def run_in_process(code: str, *arguments: str, **environ: str) -> Any:
    """Run code with the complete botocore of the same version; return the JSON that the code prints."""
    assert COMPLETE.exists(), f"{COMPLETE} is missing, run `make setup`"
    command = [str(COMPLETE), "-c", code, *arguments]
    variables = {"PATH": os.defpath} | EXECUTION_ENVIRONMENT | environ
    return json.loads(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


def test_packages_are_the_same_version(run_in_image: Run) -> None:
    code = "import botocore, json; print(json.dumps(botocore.__version__))"

    assert run_in_image(code) == run_in_process(code)


def test_handler_calls_only_operations_that_the_image_keeps() -> None:
    session = botocore.session.get_session()
    kept = {xform_name(operation) for operations in OPERATIONS.values() for operation in operations}
    known = {
        xform_name(operation)
        for service in OPERATIONS
        for operation in session.get_service_model(service).operation_names
    }

    called = set(re.findall(r"\.(\w+)\(", (WEBSOCKET / "websocket.py").read_text())) & known

    assert {"put_item", "post_to_connection"} <= called
    assert called <= kept


# Operations

CALLS = """
import json, sys
import botocore.session
from botocore.exceptions import ClientError
session, results = botocore.session.get_session(), []
for number, (service, operation, parameters) in enumerate(json.loads(sys.argv[2])):
    client = session.create_client(service, region_name="us-east-1", endpoint_url=f"{sys.argv[1]}/{number}")
    try:
        result = client._make_api_call(operation, parameters)
    except ClientError as error:
        named = getattr(client.exceptions, error.response["Error"]["Code"], None)
        result = error.response | {"is named": named is type(error)}
    http = result.pop("ResponseMetadata")
    results.append([http["HTTPStatusCode"], http["RetryAttempts"], result])
print(json.dumps(results, default=str))
"""
KEY = {"connectionId": {"S": "L0SM9cOFvHcCIhw="}}
ITEM = {
    **KEY,
    "removedAt": {"N": "1700000000"},
    "slots": {"SS": ["1 a", "2 b"]},
    "nested": {"M": {"list": {"L": [{"BOOL": True}, {"NULL": True}, {"NS": ["1"]}]}}},
}
CAPACITY = {"TableName": "connections", "CapacityUnits": 1.5}
CONDITION: dict[str, Any] = {
    "ConditionExpression": "attribute_not_exists(#c)",
    "ExpressionAttributeNames": {"#c": "connectionId"},
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
}


class Example(NamedTuple):
    """The parameters of a call, which use many of the operation's shapes, and the service's answer."""

    parameters: dict[str, Any]
    answer: dict[str, Any]


EXAMPLES = {
    "DeleteItem": Example(
        {"TableName": "connections", "Key": KEY, "ReturnValues": "ALL_OLD", **CONDITION}, {"Attributes": ITEM}
    ),
    "GetItem": Example({"TableName": "connections", "Key": KEY, "ConsistentRead": True}, {"Item": ITEM}),
    "PutItem": Example(
        {"TableName": "connections", "Item": ITEM, "ReturnConsumedCapacity": "TOTAL", **CONDITION},
        {"ConsumedCapacity": CAPACITY, "ItemCollectionMetrics": {"SizeEstimateRangeGB": [0, 1]}},
    ),
    "Query": Example(
        {
            "TableName": "connections",
            "IndexName": "userIdIndex",
            "KeyConditionExpression": "userId = :u",
            "ExpressionAttributeValues": {":u": {"S": "user-1"}},
            "ExclusiveStartKey": KEY,
            "Limit": 10,
        },
        {"Items": [ITEM, ITEM], "Count": 2, "ScannedCount": 3, "LastEvaluatedKey": KEY},
    ),
    "UpdateItem": Example(
        {
            "TableName": "users",
            "Key": {"userId": {"S": "user-1"}},
            "UpdateExpression": "ADD slots :slots",
            "ExpressionAttributeValues": {":slots": {"SS": ["1 a"]}},
            **CONDITION,
        },
        {"Attributes": ITEM, "ConsumedCapacity": CAPACITY},
    ),
    "DeleteConnection": Example({"ConnectionId": "L0SM9cOFvHcCIhw="}, {}),
    "GetConnection": Example(
        {"ConnectionId": "L0SM9cOFvHcCIhw="},
        {
            "connectedAt": "2026-11-29T01:02:03Z",
            "identity": {"sourceIp": "203.0.113.7", "userAgent": "wscat"},
            "lastActiveAt": "2026-11-29T01:02:04Z",
        },
    ),
    "PostToConnection": Example({"ConnectionId": "L0SM9cOFvHcCIhw=", "Data": '{"message": "héllo"}'}, {}),
}
SERVICE_OF = {operation: service for service, operations in OPERATIONS.items() for operation in operations}
ERRORS: list[tuple[str, int, str, dict[str, Any]]] = [
    ("PutItem", 400, "ConditionalCheckFailedException", {"message": "The conditional request failed", "Item": ITEM}),
    ("PutItem", 400, "ResourceNotFoundException", {"message": "Requested resource not found"}),
    ("PutItem", 400, "ProvisionedThroughputExceededException", {"message": "too many"}),
    ("PutItem", 500, "InternalServerError", {"message": "sorry"}),
    ("PutItem", 400, "ValidationException", {"message": "malformed"}),
    ("PostToConnection", 403, "ForbiddenException", {"message": "Forbidden"}),
    ("PostToConnection", 410, "GoneException", {}),
    ("PostToConnection", 413, "PayloadTooLargeException", {"message": "too large"}),
    ("PostToConnection", 429, "LimitExceededException", {"message": "too many"}),
]
WITHOUT_EXCEPTION_CLASS = {"ValidationException"}


class Services(LoopbackServer):
    """Answers a request with the answer whose number is the first segment of the path."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(Answer())
        self.answers = answers

    def respond(self, request: Request) -> Answer:
        return self.answers[int(request.path.split("/")[1])]


def build_answer(status: int, body: dict[str, Any], **headers: str) -> Answer:
    content = json.dumps(body).encode()
    lines = {"Content-Type": "application/x-amz-json-1.0", "Content-Length": str(len(content)), **headers}
    return Answer(status, headers=lines, body=[content])


def call_operations(run: Run, operations: list[str], answers: list[Answer]) -> tuple[Any, Any]:
    """Call operations with `run`; return their results or errors, and the requests that they send."""
    calls = [(SERVICE_OF[operation], operation, EXAMPLES[operation].parameters) for operation in operations]
    with Services(answers) as services:
        results = run(CALLS, services.url, json.dumps(calls), AWS_MAX_ATTEMPTS="2", AWS_RETRY_MODE="standard")
    requests = [(each.method, each.path, each.body, each.headers.get("X-Amz-Target")) for each in services.requests]
    return results, requests


def test_operations_send_and_return_the_same(run_in_image: Run) -> None:
    operations = list(SERVICE_OF)
    answers = [build_answer(200, EXAMPLES[operation].answer) for operation in operations]

    results, requests = call_operations(run_in_image, operations, answers)

    for operation, (status, retries, result) in zip(operations, results, strict=True):
        members = {name[0].upper() + name[1:] for name in EXAMPLES[operation].answer}
        assert (operation, status, retries, result.keys()) == (operation, 200, 0, members)
    assert len(requests) == len(operations)
    assert (results, requests) == call_operations(run_in_process, operations, answers)


def test_errors_raise_the_same_exceptions_after_the_same_retries(run_in_image: Run) -> None:
    operations = [operation for operation, *_ in ERRORS]
    answers = [
        build_answer(status, {"__type": f"com.amazonaws#{code}", **body}, **{"x-amzn-ErrorType": code})
        for _, status, code, body in ERRORS
    ]

    results, requests = call_operations(run_in_image, operations, answers)

    for (_, status, code, _), (returned, _, error) in zip(ERRORS, results, strict=True):
        assert (returned, error["Error"]["Code"], error["is named"]) == (
            status,
            code,
            code not in WITHOUT_EXCEPTION_CLASS,
        )
    assert (results, requests) == call_operations(run_in_process, operations, answers)


# Endpoints

ENDPOINTS = """
import json
import botocore.session
from botocore.config import Config
session = botocore.session.get_session()
found = {}
def record(request, **_):
    seen.append([request.url, str(request.headers["Authorization"]).split("Credential=")[1].split(",")[0].split("/")[2:]])
    raise StopIteration
for partition in json.load(open(botocore.__path__[0] + "/data/partitions.json"))["partitions"]:
    for region in [*partition["regions"], partition["id"] + "-new-9"]:
        for service in ("dynamodb", "apigatewaymanagementapi"):
            for options in ({}, {"use_fips_endpoint": True}, {"use_dualstack_endpoint": True}):
                seen = []
                try:
                    client = session.create_client(service, region_name=region, config=Config(**options))
                    client.meta.events.register("before-send", record)
                    if service == "dynamodb":
                        client.get_item(TableName="connections", Key={})
                    else:
                        client.post_to_connection(ConnectionId="a", Data=b"a")
                except StopIteration:
                    pass
                except Exception as error:
                    seen = [repr(error)]
                found[" ".join([service, region, *options])] = seen[0]
found["partitions"] = session.get_available_partitions()
found["regions"] = {
    f"{service} {partition}": session.get_available_regions(service, partition)
    for service in ("dynamodb", "apigatewaymanagementapi") for partition in found["partitions"]
}
print(json.dumps(found))
"""
DOMAINS = {
    "us-east-1": "amazonaws.com",
    "cn-north-1": "amazonaws.com.cn",
    "us-gov-west-1": "amazonaws.com",
    "us-iso-east-1": "c2s.ic.gov",
    "us-isob-east-1": "sc2s.sgov.gov",
    "eu-isoe-west-1": "cloud.adc-e.uk",
    "us-isof-south-1": "csp.hci.ic.gov",
    "eusc-de-east-1": "amazonaws.eu",
}


@pytest.mark.parametrize(
    "environ", [{}, {"AWS_ACCOUNT_ID": "123456789012"}], ids=["no account", "endpoints of an account"]
)
def test_all_regions_of_all_partitions_have_the_same_endpoints(run_in_image: Run, environ: dict[str, str]) -> None:
    found = run_in_image(ENDPOINTS, **environ)

    assert found == run_in_process(ENDPOINTS, **environ)
    host = f"{environ['AWS_ACCOUNT_ID']}.ddb" if environ else "dynamodb"
    assert found["dynamodb eu-central-1"][0] == f"https://{host}.eu-central-1.amazonaws.com/"
    assert len(found["partitions"]) == len(DOMAINS)
    for region, domain in DOMAINS.items():
        url, (signed_region, signed_service, _) = found[f"apigatewaymanagementapi {region}"]
        assert url == f"https://execute-api.{region}.{domain}/@connections/a"
        assert (signed_region, signed_service) == (region, "execute-api")
        assert region in found[f"dynamodb {region}"][0]
        assert f".{domain}/" in found[f"dynamodb {region}"][0]
