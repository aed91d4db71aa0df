"""One model and one server for all tests of this folder."""

import pytest

from tests.fixtures.servers import MODEL, serve


@pytest.fixture(scope="session")
def predictor():
    from vividmed.inference.predictor import Predictor

    return Predictor(MODEL, device="cpu")


@pytest.fixture(scope="session")
def app(predictor):
    from vividmed.serving.application import create_app
    from vividmed.serving.settings import ServerSettings

    return create_app(predictor, ServerSettings(model_name="tiny", max_requests=24, max_new_tokens=16))


@pytest.fixture(scope="session")
def address(app):
    with serve(app) as address:
        yield address


@pytest.fixture
def client(address):
    from openai import OpenAI

    with OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:
        yield client
