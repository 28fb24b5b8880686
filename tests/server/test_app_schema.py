"""What the server says of itself is true, whatever is sent: schemathesis makes requests of its OpenAPI description."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from relish.server.limits import Limits
from tests.serving import HANG, Explaining, serving

pytestmark = pytest.mark.slow

REQUESTS = 60
"""For each route."""


def test_no_request_that_the_description_allows_or_forbids_is_a_server_error():
    schemathesis = pytest.importorskip("schemathesis")
    with serving(Explaining(), Limits(body_bytes=100_000, pixels=100_000)) as client:
        schema = schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))
        paths = set()
        for found in schema.get_all_operations():
            operation = found.ok()
            paths.add(operation.path)
            try_out(operation, schemathesis.GenerationMode.POSITIVE)
            if "requestBody" in operation.definition.raw:  # the others take nothing that could be wrong
                try_out(operation, schemathesis.GenerationMode.NEGATIVE)
        assert paths == {"/predict", "/explain", "/classes", "/health", "/metrics"}
        assert client.get("/health").status_code == 200


def try_out(operation, mode) -> None:
    """Ask in ways that are allowed, or that are not; each answer has a status and a shape that were described."""

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        response = case.call(timeout=HANG)
        assert response.status_code < 500, response.text
        assert str(response.status_code) in operation.definition.raw["responses"] or response.status_code in (404, 405)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"status", "reason", "hint"}

    ask()
