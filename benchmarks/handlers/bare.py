"""A handler that answers at once, to measure the runtime alone."""

from __future__ import annotations


def handler(event: object, context: object) -> dict[str, int]:
    return {"statusCode": 200}
