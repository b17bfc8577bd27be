"""The tiny model and adapter that all engines are held to."""

import pytest


@pytest.fixture(scope="session")
def contract_model(tmp_path_factory):
    from tests.sampling.contract import make_model

    return make_model(tmp_path_factory.mktemp("contract") / "model")


@pytest.fixture(scope="session")
def contract_adapter(contract_model, tmp_path_factory):
    from tests.sampling.contract import make_adapter

    return make_adapter(contract_model, tmp_path_factory.mktemp("contract") / "adapter")
