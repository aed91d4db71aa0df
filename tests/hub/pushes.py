"""Pushes by a client of the test Hub, and the refusals they end in."""

from dataclasses import asdict

import pytest

from tests.hub.client import ClientError
from tests.hub.folders import OPEN


def push(client, folder, repo_id, terms=OPEN, **options):
    return client("publish_dataset", folder=folder, repo_id=repo_id, terms=asdict(terms), **options)


def refusal(client, name, /, **arguments):
    """Message of the one-line error that the action ends in."""
    with pytest.raises(ClientError) as caught:
        client(name, **arguments)
    assert caught.value.kind == "VividMedError", caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_push(client, folder, repo_id, terms=OPEN, **options):
    return refusal(client, "publish_dataset", folder=folder, repo_id=repo_id, terms=asdict(terms), **options)
