import dataclasses

from llmctl.reach.curves.metrics import curve_metrics
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.report import epsilon_table, sentences, unreached_table, witness_table
from tests.reach.curves.build import make_pair

RECIPE = CurveRecipe.model_validate({"search": {"max_k": 2}})
PAIRS = [make_pair(0, 0), make_pair(1, 1), make_pair(2, 2), make_pair(3, None)]


def said(pairs, baseline=()):
    return "\n".join(sentences(RECIPE, curve_metrics(RECIPE, pairs, baseline, 1.0)))


def test_few_pairs_do_not_decide_against_random_controls():
    text = said(PAIRS, [make_pair(number, None).pair() for number in range(4)])
    assert "epsilon of random controls at the same cost is -0.750 [" in text
    same = said(PAIRS, [pair.pair() for pair in PAIRS])
    assert "it may be zero" in same


def test_many_pairs_do():
    pairs = [make_pair(number, 1) for number in range(20)]
    assert "it is not zero by chance" in said(pairs, [make_pair(number, None).pair() for number in range(20)])


def test_the_verdicts_and_fragile_witnesses_are_told():
    marked = [dataclasses.replace(pair, rechecks={"vllm": pair.result.k == 1}) for pair in PAIRS[1:3]]
    text = said([PAIRS[0], *marked, PAIRS[3]])
    assert "Of 4 pairs 3 were reached, 0 are certified unreachable" in text
    assert "Checked again on vllm, 1 of 2 witnesses hold; the others are fragile." in text


def test_tables_list_the_hardest_first_and_the_unreached():
    assert [row[0] for row in witness_table(PAIRS).rows] == ["2/0", "1/0"]
    assert [row[0] for row in unreached_table(PAIRS).rows] == ["3/0"]
    table = epsilon_table(curve_metrics(RECIPE, PAIRS, [], 1.0), [])
    assert [row[0] for row in table.rows] == [0, 1, 2]
