"""Caches botocore's data about AWS for the whole process, because every new session would read the files again."""

from __future__ import annotations

import os
from functools import cache

import botocore.session
from botocore.model import ServiceModel

# Ignore the user's profile and files, which are for the real AWS. A missing profile would be an error.
OWN_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


@cache
def get_session() -> botocore.session.Session:
    """Return a session without the user's AWS configuration."""
    return botocore.session.get_session(OWN_CONFIGURATION)


@cache
def load_service_model(service: str) -> ServiceModel:
    return get_session().get_service_model(service)
