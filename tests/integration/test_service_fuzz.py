"""Requests made from the service's own description: no server error, no status that is not declared, no secret told."""

import re

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from services import Echo, jpeg, running, tiny_service

LEAKS = re.compile(r"0x[0-9a-f]{6,}|Traceback|/(?:work|tmp|root|home|usr|opt)/|\.py\b|site-packages")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    service = tiny_service(tmp_path_factory.mktemp("model"), Echo(), samples=[jpeg()], max_body_bytes=1 << 20)
    with running(service) as found:
        yield found


@pytest.fixture(scope="module")
def schema(address):
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


OPERATIONS = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/about"),
    ("GET", "/v1/samples/{number}"),
    ("POST", "/v1/appraise"),
    ("POST", "/v1/chat/completions"),
]


def test_every_operation_is_described(schema):
    found = {(result.ok().method.upper(), result.ok().path) for result in schema.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_breaks_the_service(schema, address, method, path):
    operation = schema[path][method]
    strategy = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    statuses = {int(status) for status in operation.definition.raw["responses"]}
    seen = []

    from hypothesis import given

    @given(case=strategy)
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    def ask(case):
        answer = case.call(base_url=address)
        seen.append(answer.status_code)
        assert answer.status_code < 500 or answer.status_code == 503
        assert answer.status_code in statuses, answer.status_code
        assert not LEAKS.search(answer.content.decode("latin-1"))

    ask()
    assert len(seen) >= 100 or not operation.body  # operations without parameters have few different requests


def test_the_description_names_each_route_that_answers(address):
    description = httpx.get(f"{address}/openapi.json").json()
    chat = description["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatRequest"}
    assert "ImagePart" in description["components"]["schemas"]
    assert {"200", "401", "404", "413", "422", "429", "503"} <= set(chat["responses"])
