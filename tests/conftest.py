"""Shared fixtures: tiny random models, the embedded model, and an offline, quiet environment."""

import os

# Before torch is imported: two torch processes that spin on two cores starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from llmctl.trust import Permissions, allow_code


@pytest.fixture(autouse=True)
def no_permissions():
    """What a test allows ends with it."""
    yield
    Permissions().adopt()


@pytest.fixture
def allowed_code(no_permissions):
    """Let the test run code that a recipe names."""
    allow_code()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a tiny random Llama with a byte tokenizer and a chat template."""
    from llmctl.models.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def embedded_model():
    """The folder of the embedded default model; fails, never skips, where it is not installed."""
    from llmctl.models import resolve

    return resolve("smollm2-135m")
