import types

import engine_elsewhere
import pytest

import harness
from harness.testing import FakeEndpoint

VARIANTS = (types.SimpleNamespace(name="demo"),)


def options_of(server):
    return engine_elsewhere.ElsewhereOptions(port=int(server.url.rpartition(":")[2].partition("/")[0]), api_key="k")


def test_a_server_that_runs_is_found_under_the_variants_names():
    with (
        FakeEndpoint(models=("demo",), key="k") as server,
        engine_elsewhere.start(VARIANTS, options_of(server), print) as endpoint,
    ):
        assert (endpoint.url, endpoint.models, endpoint.api_key) == (server.url, ("demo",), "k")


def test_one_that_does_not_know_them_is_refused_and_so_is_none():
    with (
        FakeEndpoint(models=("another",), key="k") as server,
        pytest.raises(harness.ModelError, match="does not know 'demo'"),
        engine_elsewhere.start(VARIANTS, options_of(server), print),
    ):
        pass
    with (
        pytest.raises(harness.ModelError, match="no server answers"),
        engine_elsewhere.start(VARIANTS, options_of(server), print),
    ):
        pass
