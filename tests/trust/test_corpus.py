"""The corpus of hostile files: nothing runs, nothing outside is touched, and each answer is one line."""

import logging

import pytest

from llmctl.cli import main
from tests.trust.corpus import all_cases

CASES = all_cases()


def test_the_corpus_is_large_and_its_names_differ():
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.timeout(120)
def test_a_hostile_file_runs_nothing_touches_nothing_and_is_answered_in_words(
    case, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    command = case.lay_out(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(command)
    logging.shutdown()
    out, err = capsys.readouterr()
    assert not (tmp_path / "EXECUTED").exists()
    assert (tmp_path / "victim" / "precious.txt").read_text() == "precious"
    assert sorted(path.name for path in (tmp_path / "victim").iterdir()) == ["precious.txt"]
    assert ended.value.code in (0, 1, 2)
    assert "Traceback" not in out + err
    assert "sk-of-the-user" not in out + err
    errors = [line for line in err.splitlines() if line.startswith("error")]
    assert len(errors) == (ended.value.code != 0)
