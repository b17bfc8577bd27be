"""Results in words and tables, for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmctl.reach.result import Result
from llmctl.reach.vocabulary import decode
from llmctl.runs import Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def path_table(result: Result, tokenizer: PreTrainedTokenizerBase) -> Table:
    """The steps of a search, those alone that found something better at their k."""
    rows = []
    best: dict[int, tuple[bool, float]] = {}
    for step in result.path:
        standing = (not step.is_hit, step.loss)
        if step.k in best and best[step.k] <= standing:
            continue
        best[step.k] = standing
        control = decode(step.control_ids, tokenizer)
        rows.append(
            [step.method, step.k, repr(control), step.loss, "yes" if step.is_hit else "", step.forward_tokens]
        )
    columns = ["by", "k", "best control", "loss", "hit", "forward tokens"]
    return Table(columns, rows, f"{len(result.path)} steps; those that found something better are shown.")


def verdict(result: Result) -> str:
    """The answer in one sentence."""
    target = repr(result.target_text)
    cost = f"{result.forwards:,} controls and {result.forward_tokens:,} forward tokens" + (
        f" (and {result.backward_tokens:,} backward)" if result.backward_tokens else ""
    )
    if result.error:
        return f"unknown: the search stopped after {cost}: {result.error}"
    if result.k == 0:
        return f"reached: the state alone makes the model emit {target} (k = 0)."
    if result.k is not None:
        return (
            f"reached: {result.control_text!r} makes the model emit {target} (k = {result.k}, by "
            f"{result.method}; loss {result.base_loss:.2f} -> {result.loss:.2f} nats), after {cost}."
        )
    if result.verdict == "unreachable":
        return f"unreachable: no allowed control of one token makes the model emit {target}, after {cost}."
    return (
        f"unknown: no control was found that makes the model emit {target}; the closest has loss "
        f"{result.loss:.2f} nats against {result.base_loss:.2f} without a control, after {cost}"
        f"{_at_most(result)}."
    )


def _at_most(result: Result) -> str:
    """What the uniform draws of the longest control length say of an unknown; empty without such draws."""
    if not result.density_bound:
        return ""
    k = max(result.density_bound)
    tokens = "1 token" if k == 1 else f"{k} tokens"
    return (
        f". Of all controls of {tokens} at most {_percent(result.density_bound[k])} can reach it (at 95 % "
        f"confidence, since none of {result.uniform_draws[k]:,} uniform draws did)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 else "100 %"


def notes(result: Result, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a user should know about the answer."""
    what = "" if len(result.target_ids) == 1 else "the first token of "
    said = [
        f"without a control {what}{result.target_text!r} has rank {result.base_rank} (0 is what is emitted)"
    ]
    if result.k and not result.roundtrips:
        said.append(
            "the control holds as token ids only: written out as text and read again it no longer works "
            f"(ids {list(result.control_ids)}); --must-roundtrip looks for one that does"
        )
    if result.k and result.k > (result.certified_k or 0) + 1:
        said.append(
            f"{result.k} is the least k that was found; a shorter control may exist (--effort looks harder)"
        )
    if result.certified_k == 1 and result.verdict != "unreachable":
        said.append("no allowed control of one token reaches it (every one was tried)")
    if result.verdict == "unknown" and not result.error:
        said.append(f"{_budget(result)}more may be found with a larger --k or --effort")
    hint = _spaced(result, tokenizer)
    return [*said, hint] if hint else said


def _budget(result: Result) -> str:
    """How many controls were scored of those planned, by length; empty for records that do not say."""
    if not result.planned:
        return ""
    each = ", ".join(f"{result.spent.get(k, 0):,} of {n:,} at k = {k}" for k, n in result.planned.items())
    return f"controls scored of those planned: {each}; "


def _spaced(result: Result, tokenizer: PreTrainedTokenizerBase) -> str:
    """A hint where the target lacks the space that a new word begins with."""
    text = result.target_text
    is_word = text[:1].isalpha() and not result.state_text[-1:].isspace()
    if not is_word or result.position not in ("before", "after") or result.k == 0:
        return ""
    spaced = tokenizer.encode(f" {text}", add_special_tokens=False)
    if len(spaced) > len(result.target_ids):
        return ""
    word = f" {text}"
    return f"the target begins without a space, so it goes on inside a word; a new word is --target {word!r}"


def set_table(found: Mapping[str, Any], count: int) -> Table:
    """Reached tokens: those that the state alone made least likely come first."""
    chosen = sorted(found["reached"], key=lambda entry: -entry["base_rank"])[:count]
    rows = [
        [
            repr(entry["text"]),
            entry["token"],
            len(entry["control_ids"]),
            repr(entry["control_text"]),
            entry["base_rank"],
            entry["base_loss"],
            entry["loss"],
        ]
        for entry in chosen
    ]
    columns = ["token", "id", "k", "control", "base rank", "base loss", "loss"]
    shown = f"The {len(rows)} reached tokens of the highest base rank." if rows else ""
    return Table(columns, rows, shown)


def set_sentence(found: Mapping[str, Any]) -> str:
    """How many tokens were reached, and how sure that is."""
    allowed = f"{found['allowed']:,} tokens that a control may hold"
    cost = f"{found['forwards']:,} controls scored, {found['forward_tokens']:,} forward tokens"
    exact = sum(len(entry["control_ids"]) <= 1 for entry in found["reached"])
    if found["is_exact"]:
        return f"R_1 holds exactly {exact:,} tokens, over the {allowed} ({cost})."
    return (
        f"R_{found['k']} holds at least {len(found['reached']):,} tokens ({found['strategy']} exploration, "
        f"seed {found['seed']}); R_1 holds exactly {exact:,}, over the {allowed} ({cost})."
    )


def bound_table(report: Mapping[str, Any], count: int) -> Table:
    """The heads that are hardest to turn."""
    heads = sorted(
        report["heads"],
        key=lambda head: (-(head["least_k"] or float("inf")), -head["desired"] / head["max_value"]),
    )[:count]
    rows = [
        [
            head["layer"],
            head["head"],
            "no k" if head["least_k"] is None else f"{head['least_k']:,}",
            head["desired"],
            head["max_value"],
            head["max_logit"],
            head["log_g"],
        ]
        for head in heads
    ]
    columns = ["layer", "head", "least k", "desired turn", "longest value", "largest logit", "log g"]
    return Table(columns, rows, f"The {len(rows)} heads that are hardest to turn, of {len(report['heads'])}.")


def bound_sentence(report: Mapping[str, Any]) -> str:
    """What the bound rules out, and what it is."""
    ruled = sum(head["least_k"] is None or head["least_k"] > 1 for head in report["heads"])
    heads = f"{ruled} of {len(report['heads'])} heads"
    return f"The bound rules out one control token for {heads}. {report['statement']}"
