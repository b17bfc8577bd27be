"""Losses row by row, against cross entropy of one row at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from llmctl.errors import UserError
from llmctl.models.loading import load
from llmctl.training import train
from llmctl.training.data import prepare
from llmctl.training.data.rows import read_rows
from llmctl.training.result import perplexity
from llmctl.training.validation import row_losses

from .helpers import chat, settings, some_rows

ROWS = [chat("a", "bb"), chat("a longer question", "c"), chat("q", "x" * 40), chat("q", "yes")]


def by_hand(model, data):
    found = []
    for ids, labels in zip(data.dataset["input_ids"], data.dataset["labels"], strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        targets = torch.tensor(labels[1:])
        found.append((F.cross_entropy(logits, targets, reduction="sum").item(), int((targets >= 0).sum())))
    return found


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_of_padded_rows_give_the_losses_of_rows_alone(tiny_model, batch_size):
    loaded = load(tiny_model)
    data = prepare(ROWS, loaded.tokenizer)
    found = row_losses(loaded.model, data, batch_size)
    for nll, tokens, (one, count) in zip(found.nll, found.tokens, by_hand(loaded.model, data), strict=True):
        assert nll == pytest.approx(one, rel=1e-4) and tokens == count
    assert found.loss == pytest.approx(sum(found.nll) / sum(found.tokens))


def test_the_mode_of_the_model_stays(tiny_model):
    loaded = load(tiny_model)
    loaded.model.train()
    row_losses(loaded.model, prepare(ROWS, loaded.tokenizer), 2)
    assert loaded.model.training


def test_the_trainers_validation_loss_is_over_all_tokens_whatever_the_batches(tiny_model, tmp_path):
    # Batches of very unlike numbers of label tokens: a mean of batches' means would differ.
    result = train(tiny_model, some_rows(4), settings(epochs=1, batch_size=3), tmp_path / "m", eval_rows=ROWS)
    loaded = load(tmp_path / "m")
    exact = row_losses(loaded.model, prepare(read_rows(ROWS), loaded.tokenizer), 4).loss
    assert result.eval_losses[-1] == pytest.approx(exact, rel=1e-5)
    weighted = [dict(row, weight=2.0) for row in ROWS]
    twice = train(tiny_model, some_rows(4), settings(epochs=1), tmp_path / "n", eval_rows=weighted)
    once = train(tiny_model, some_rows(4), settings(epochs=1), tmp_path / "o", eval_rows=ROWS)
    assert twice.eval_losses[-1] == pytest.approx(2 * once.eval_losses[-1])


def test_text_has_no_response_to_carry_loss(tiny_model):
    tokenizer = load(tiny_model).tokenizer
    with pytest.raises(UserError, match="row 1 is plain text.* loss_on is last: set loss_on=all"):
        prepare([{"text": "words"}], tokenizer)
    assert prepare([{"text": "words"}], tokenizer, loss_on="all").label_tokens == 5  # 5 bytes + end - first


@pytest.mark.parametrize("row", [{"text": ""}, {"text": 3}, {"input_ids": []}, {"input_ids": [1.5]}, {}])
def test_rows_of_nothing_are_refused(row):
    with pytest.raises(UserError, match="row 1 .*needs messages"):
        read_rows([row])


def test_perplexity_is_the_exponential_and_nothing_where_that_is_no_number():
    assert perplexity(math.log(20)) == pytest.approx(20)
    assert perplexity(1e4) is None
