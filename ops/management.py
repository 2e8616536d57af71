"""Call `@connections` over botocore's HTTP session, because botocore's client needs three times the CPU time for a call."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from botocore.utils import get_environ_proxies

TIMEOUT_SECONDS = 10
OPERATIONS = {"POST": "PostToConnection", "DELETE": "DeleteConnection"}


class Management:
    """A client of `@connections` of one stage. Many threads can use it at the same time."""

    def __init__(self, callback_url: str, region: str, session: Session, threads: int) -> None:
        self.url = callback_url.rstrip("/")
        self._region = region
        self._session = session
        is_remote = self.url.startswith("https:")  # http: on this machine, so it is not called through a proxy
        self._http = URLLib3Session(
            proxies=get_environ_proxies(self.url) if is_remote else {},
            verify=session.get_config_variable("ca_bundle") or True,
            timeout=TIMEOUT_SECONDS,
            max_pool_connections=threads,
        )

    def post(self, connection_id: str, message: bytes) -> None:
        """Send a message; raise ClientError or BotoCoreError as the SDK does."""
        self._call("POST", connection_id, message)

    def delete(self, connection_id: str) -> None:
        """Close a connection; raise ClientError or BotoCoreError as the SDK does."""
        self._call("DELETE", connection_id, b"")

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, connection_id: str, body: bytes) -> None:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        request = AWSRequest(method, f"{self.url}/%40connections/{quote(connection_id, safe='')}", {}, body)
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(request)
        answer = self._http.send(request.prepare())
        if answer.status_code >= 300:
            raise build_error(OPERATIONS[method], answer)


def build_error(operation: str, answer: AWSResponse) -> ClientError:
    """Return the same error as the SDK would raise, with the members that `ops` reads."""
    body: dict[str, Any] = {}
    with suppress(ValueError, TypeError):
        body = dict(json.loads(answer.content))
    code = answer.headers.get("x-amzn-ErrorType", "").partition(":")[0] or f"status {answer.status_code}"
    error = {"Code": code, "Message": str(body.get("message") or body.get("Message") or code)}
    response: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": answer.status_code}}
    return ClientError(response, operation)
