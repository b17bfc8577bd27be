import json
from pathlib import Path

MADE = Path(__file__).parents[1] / "jobs" / "logs" / "made_by_tools"
LOGS = [str(MADE / "inspect_ai-a.eval"), str(MADE / "inspect_ai-b.eval")]


def test_two_logs_of_inspect_ai_are_compared_in_one_command(llmctl):
    got = llmctl("compare", *LOGS)
    assert got.code == 0
    assert "Second minus first" in got.out
    assert "not decided" in got.out


def test_json_has_one_document(llmctl):
    got = llmctl("compare", *LOGS, "--metric", "match", "--json")
    found = json.loads(got.out)
    assert got.code == 0
    assert (found["n"], found["metric"], len(found["comparisons"])) == (12, "match", 1)


def test_a_mistake_is_one_line(llmctl):
    got = llmctl("compare", LOGS[0], "nothing.eval")
    assert got.code == 2
    assert got.err.startswith("error: nothing.eval: there is no such file") and got.err.count("\n") == 1
