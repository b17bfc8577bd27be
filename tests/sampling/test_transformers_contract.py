"""The transformers engine against the shared contract."""

from contextlib import contextmanager

import pytest

from llmctl.sampling import open_sampler
from tests.sampling.contract import SamplerContract


class TestTransformers(SamplerContract):
    @pytest.fixture(scope="class")
    def sampler(self, contract_model):
        with open_sampler(str(contract_model), engine="transformers", device="cpu") as sampler:
            yield sampler

    @pytest.fixture(scope="class")
    def adapted(self, contract_adapter):
        @contextmanager
        def swap(sampler):
            sampler.use_adapter(contract_adapter)
            yield sampler
            sampler.use_adapter(None)

        return swap
