"""The conformance pack's function. It serves the authorizer and all routes, and runs the script that a client sends.

A script is JSON:

    {"steps": [["post", "self", "hello"], ["sleep", 2], ["report", "observer"]], "return": {"statusCode": 200}}

The function takes the steps in turn, then raises (`"raise": "Unauthorized"`) or returns. A message has its script in the
member `do`. The scripts of the authorizer, `$connect` and `$disconnect` are in the query string, as base64url.

The query parameter `observer`, or the header `X-Observer`, is the id of another connection, which gets all events of
this one. The authorizer's context carries the observer and the script of `$disconnect`, so the function needs no storage.

Everybody who knows the endpoint can run scripts on the connections of its API: deploy it to test, then destroy it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

Event = dict[str, Any]
Script = dict[str, Any]

LARGE_BODY_CHARACTERS = 4096  # a larger body is reported by its size and hash, because it may not fit into a report
POLL_SECONDS = 0.02


class Scripted(Exception):
    """The error that a script raises."""


def handler(event: Event, context: object) -> Any:
    script, observer = read_script(event), find_observer(event)
    results: list[Any] = []
    if observer:
        take_step(["report", "observer"], event, results)
    for step in script.get("steps", ()):
        results.append(take_step(step, event, results))
    if "raise" in script:
        raise Scripted(script["raise"])
    if "return" in script:
        return fill_in(repeat_body(script["return"], script), event)
    return fill_in(build_policy(script, event), event) if is_authorizer(event) else {"statusCode": 200}


def is_authorizer(event: Event) -> bool:
    return event.get("type") == "REQUEST"


def read_script(event: Event) -> Script:
    """Return the event's script; a message that is not JSON has none."""
    route_key = event["requestContext"]["routeKey"]
    if is_authorizer(event):
        return decode_script(read_query(event).get("authorizer"))
    if route_key == "$connect":
        return decode_script(read_query(event).get("connect"))
    if route_key == "$disconnect":
        return decode_script(event["requestContext"].get("authorizer", {}).get("disconnect"))
    try:
        script: Script = json.loads(event["body"])["do"]
    except (ValueError, LookupError, TypeError):
        return {}
    return script


def decode_script(script: str | None) -> Script:
    return dict(json.loads(urlsafe_b64decode(script))) if script else {}


def read_query(event: Event) -> dict[str, str]:
    return event.get("queryStringParameters") or {}


def find_observer(event: Event) -> str | None:
    known = event["requestContext"].get("authorizer", {}).get("observer")
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    observer: str | None = known or read_query(event).get("observer") or headers.get("x-observer")
    return observer


def build_policy(script: Script, event: Event) -> dict[str, Any]:
    """Return an Allow. The script's `answer` replaces members, or drops them by null; `pad` makes the context large."""
    statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "{methodArn}"}
    changes = script.get("answer", {})
    carried = {
        "observer": find_observer(event),
        "disconnect": read_query(event).get("disconnect"),
        "pad": build_padding(script),
    }
    context = {name: value for name, value in carried.items() if value}
    answer = {
        "principalId": "me",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        **changes,
        "context": {**context, **changes.get("context", {})},
    }
    return {name: value for name, value in answer.items() if value is not None}


def build_padding(script: Script) -> str:
    return "x" * int(script.get("pad", 0))


def repeat_body(answer: Any, script: Script) -> Any:
    """Repeat the answer's body. A message is too small for a script with a body over the limit."""
    return {**answer, "body": answer["body"] * script["repeat"]} if "repeat" in script else answer


def fill_in(answer: Any, event: Event) -> Any:
    """Replace `{methodArn}` and `{stage}` in the answer. The latter is the part of the ARN before `/$connect`."""
    text = json.dumps(answer)
    if method_arn := event.get("methodArn"):
        text = text.replace("{methodArn}", method_arn).replace("{stage}", method_arn.rpartition("/")[0])
    return json.loads(text)


# Steps. Each returns its result for a report


def take_step(step: list[Any], event: Event, results: list[Any]) -> Any:
    name, *arguments = step
    if name == "report":
        report = {"event": shorten_body(event), "results": results}
        return call(
            management.post_to_connection, resolve_connection_id(arguments, event), Data=json.dumps(report).encode()
        )
    if name == "post":
        return call(management.post_to_connection, resolve_connection_id(arguments, event), Data=arguments[1].encode())
    if name in CALLS:
        return call(CALLS[name], resolve_connection_id(arguments, event))
    if name == "until gone":
        return wait_until_gone(resolve_connection_id(arguments, event))
    return OTHERS[name](*arguments)


def resolve_connection_id(arguments: list[Any], event: Event) -> str:
    """Return the id in the first argument; `self` and `observer` stand for ids."""
    name = arguments[0] if arguments else "self"
    known = {"self": event["requestContext"]["connectionId"], "observer": find_observer(event)}
    return str(known.get(name, name))


def shorten_body(event: Event) -> Event:
    if len(event.get("body", "")) <= LARGE_BODY_CHARACTERS:
        return event
    body = event["body"].encode()
    return {**event, "body": f"{len(body)} bytes, SHA-256 {hashlib.sha256(body).hexdigest()}"}


def call(operation: Callable[..., Any], connection_id: str, **parameters: Any) -> dict[str, Any]:
    try:
        response = operation(ConnectionId=connection_id, **parameters)
    except ClientError as error:
        failure: Any = error.response
        return {"status": failure["ResponseMetadata"]["HTTPStatusCode"], **failure["Error"]}
    return {"status": response["ResponseMetadata"]["HTTPStatusCode"]}


def wait_until_gone(connection_id: str) -> None:
    """Wait until the connection is gone. The function's timeout limits the wait."""
    while call(management.get_connection, connection_id)["status"] != 410:
        time.sleep(POLL_SECONDS)


management = boto3.Session(region_name=os.environ.get("AWS_REGION")).client(
    "apigatewaymanagementapi",
    endpoint_url=os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI") or os.environ["CALLBACK_URL"],
    config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
)
CALLS = {"get": management.get_connection, "delete": management.delete_connection}
OTHERS: dict[str, Callable[..., Any]] = {"sleep": time.sleep, "exit": os._exit}
