from types import SimpleNamespace

from llmctl.reach.scoring.models import check_model, context_of, vocabulary_of
from llmctl.reach.scoring.ties import tie_of


def test_size_and_context_are_read_off_the_model(small_model):
    check_model(small_model)
    assert (vocabulary_of(small_model), context_of(small_model)) == (40, 128)


def test_an_unknown_context_is_none():
    text = SimpleNamespace()
    assert context_of(SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))) is None
    text.n_positions = 64
    assert context_of(SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))) == 64


def test_a_tie_is_wider_in_half_precision(small_model):
    half = SimpleNamespace(dtype="bfloat16")
    assert 0 < tie_of(small_model) < tie_of(half)
