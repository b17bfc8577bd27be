"""Tiny random models for searches, among them one with a vocabulary small enough for brute force."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmctl.models.tiny import FAMILIES, make_tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="session", params=FAMILIES)
def any_model(request, tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("families") / request.param, request.param)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


class ListTokenizer:
    """Forty letters, one token each: enough of a tokenizer for a search by brute force."""

    bos_token_id = None
    chat_template = None

    def __len__(self):
        return 40

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) - 48 for letter in text]

    def __call__(self, texts, add_special_tokens=True):
        return {"input_ids": [self.encode(text) for text in texts]}

    def decode(self, ids, **_):
        return "".join(chr(48 + token) for token in ids)


@pytest.fixture(scope="session")
def letters():
    return ListTokenizer()


@pytest.fixture(scope="session")
def small_model():
    """A random Llama of 40 tokens whose weights are large enough that controls matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LlamaForCausalLM(config).eval()
