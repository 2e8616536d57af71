"""What functions call instead of AWS: checks that their role allows the call, then passes it on to the local AWS."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from io import BytesIO
from typing import Any

import botocore.session
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.apigateway.sockets import GRACE_SECONDS
from local.aws.account import Account
from local.aws.iam import ADMINISTRATOR, Iam, UnknownAccessKeyError

MAX_REQUEST_BYTES = 32 * 1024 * 1024  # DynamoDB itself takes 16 MB
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 .*\bCredential=(?P<access_key_id>[^/\s]+)/\d+/[^/]+/(?P<service>[^/]+)/aws4_request"
)
PASSED_ON = {"content-type", "x-amz-target", "x-amz-api-version", "x-amz-user-agent", "amz-sdk-invocation-id"}
DYNAMODB_ITEMS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
DYNAMODB_OF_THE_ACCOUNT = {"DescribeEndpoints", "DescribeLimits", "ListBackups", "ListTables"}

NO_ACCOUNT = Account()

Call = tuple[str, str]  # action and resource, e.g. `dynamodb:PutItem` and a table's ARN


class UnknownCallError(ValueError):
    """The call cannot be evaluated; the message says which."""


def calls(service: str, target: str, body: bytes, account: Account = NO_ACCOUNT) -> Iterator[Call]:
    """What a call needs to be allowed, e.g. one grant for each table of a transaction.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html

    Raises:
        UnknownCallError: it is none that is known here.
    """
    operation = target.rpartition(".")[2]
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as error:
        raise UnknownCallError("the request is not JSON") from error
    if not isinstance(parameters, dict) or not operation:
        raise UnknownCallError(f"{service} cannot be called like this")
    if service == "cognito-idp":
        user_pool_id = parameters.get("UserPoolId")
        arn = account.arn("AWS::Cognito::UserPool", user_pool_id) if user_pool_id else "*"
        yield f"cognito-idp:{operation}", arn
    elif service == "dynamodb":
        yield from dynamodb_calls(operation, parameters, account)
    else:
        raise UnknownCallError(f"{service} is not run locally")


@cache
def cognito_model() -> Any:
    """botocore's ServiceModel; reading it takes longer than a call."""
    return botocore.session.get_session().get_service_model("cognito-idp")


def is_public(target: str) -> bool:
    """Whether a call needs no signature, as a user's own sign-in; the service's model says so."""
    model = cognito_model()
    prefix, _, operation = target.rpartition(".")
    known = prefix == model.metadata["targetPrefix"] and operation in model.operation_names
    return known and model.operation_model(operation).auth_type == "none"


def dynamodb_calls(operation: str, parameters: dict[str, Any], account: Account) -> Iterator[Call]:
    action = f"dynamodb:{operation}"
    if operation in DYNAMODB_OF_THE_ACCOUNT:
        yield action, "*"
    elif operation in {"BatchGetItem", "BatchWriteItem"}:
        for name in parameters.get("RequestItems") or ():
            yield action, table_arn(name, account)
    elif operation in {"TransactGetItems", "TransactWriteItems"}:
        for item in parameters.get("TransactItems") or ():
            for name, part in item.items():
                yield f"dynamodb:{DYNAMODB_ITEMS.get(name, 'GetItem')}", table_arn(part.get("TableName"), account)
    elif "TableName" in parameters:
        index = f"/index/{parameters['IndexName']}" if parameters.get("IndexName") else ""
        yield action, table_arn(parameters["TableName"], account) + index
    else:
        raise UnknownCallError(f"{action} cannot be evaluated locally")


def table_arn(name: object, account: Account) -> str:
    """Of a table's name, or the ARN that may stand in its place."""
    text = str(name)
    return text if text.startswith("arn:") else account.arn("AWS::DynamoDB::Table", text)


class AwsEndpoint:
    """Listens on the loopback interface for functions' calls; `urls` has the local AWS by service."""

    def __init__(self, iam: Iam, urls: Mapping[str, str], account: Account = NO_ACCOUNT) -> None:
        self.account = account
        self.iam = iam
        self.urls = urls
        self._credentials = Credentials(ADMINISTRATOR, ADMINISTRATOR)

    async def start(self) -> str:
        """Returns its URL."""
        self._client = ClientSession(
            auto_decompress=False,
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
        )
        self._http = web.Server(self._serve, access_log=None)
        self._server = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        await self._http.shutdown(GRACE_SECONDS)
        await self._client.close()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        if (request.content_length or 0) > MAX_REQUEST_BYTES:
            return failure(413, "RequestEntityTooLarge", f"a request has at most {MAX_REQUEST_BYTES} bytes")
        body = await request.content.read()
        signed = SIGNED.match(request.headers.get("Authorization", ""))
        service = signed["service"] if signed else "cognito-idp"
        if service not in self.urls:
            return failure(501, "NotImplemented", f"{service} is not run locally")
        target = request.headers.get("X-Amz-Target", "")
        if signed:
            refusal = self._refusal(signed["access_key_id"], service, target, body)
        elif target and not is_public(target):
            refusal = failure(400, "MissingAuthenticationTokenException", "Missing Authentication Token")
        else:
            refusal = None
        return refusal or await self._pass_on(request, service, body, signed=signed is not None)

    def _refusal(self, access_key_id: str, service: str, target: str, body: bytes) -> web.Response | None:
        """The answer to a call that its caller may not make."""
        try:
            for action, resource in list(calls(service, target, body, self.account)):
                if refused := self.iam.authorize(access_key_id, action, resource):
                    return failure(400, "AccessDeniedException", refused.message)
        except UnknownAccessKeyError as error:
            return failure(400, "UnrecognizedClientException", str(error))
        except (UnknownCallError, AttributeError, TypeError) as error:
            return failure(501, "NotImplemented", f"not evaluated: {error}")
        return None

    async def _pass_on(self, request: web.BaseRequest, service: str, body: bytes, *, signed: bool) -> web.Response:
        url = self.urls[service] + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name.lower() in PASSED_ON}
        if signed:
            resigned = AWSRequest(request.method, url, headers, body)
            SigV4Auth(self._credentials, service, self.account.region).add_auth(resigned)
            headers = dict(resigned.headers.items())
        headers["Accept-Encoding"] = "identity"  # for the caller may not understand another
        try:
            async with self._client.request(request.method, url, headers=headers, data=BytesIO(body)) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amz")}
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={**kept, "Content-Type": answer.headers.get("Content-Type", "application/json")},
                )
        except ClientError as error:
            return failure(503, "ServiceUnavailable", f"the local {service} does not answer: {error}")


def failure(status: int, error: str, message: str) -> web.Response:
    """An error as services with a JSON protocol write it."""
    body = json.dumps({"__type": error, "message": message})
    return web.Response(
        status=status, text=body, content_type="application/x-amz-json-1.0", headers={"x-amzn-ErrorType": error}
    )
