"""`llmctl msr prepare` and `baselines`: what is printed, and what is refused."""

import json

import pytest
import yaml

from tests.msr.made_data import write_files


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "my data: set")


def options(files):
    return (
        "--interactions",
        str(files / "interactions.csv"),
        "--items",
        str(files / "items.csv"),
    )


def test_prepare_from_options_prints_counts_chance_and_hashes(llmctl, files, tmp_path):
    run = ("--run", str(tmp_path / "run"))
    done = llmctl("msr", "prepare", *options(files), *run)
    assert done.code == 0, done.err
    for words in ("no duplicates", "5-core items", "0.2381", "candidate hash", "train", "0 out of order"):
        assert words in done.out
    facts = json.loads(llmctl("msr", "prepare", *options(files), *run, "--json").out)
    assert facts["candidate_hash"] in done.out and facts["users"] == {"train": 48, "valid": 6, "test": 6}
    assert facts["steps"][0]["interactions"] == 480


def test_a_recipe_and_options_and_set_may_be_mixed(llmctl, files, tmp_path):
    content = {"kind": "msr", "data": {"interactions": "none.csv", "items": str(files / "items.csv")}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    given = ("--interactions", str(files / "interactions.csv"), "--set", "candidates.negatives=4")
    done = llmctl(
        "msr", "prepare", str(tmp_path / "r.yaml"), *given, "--json", "--run", str(tmp_path / "run")
    )
    assert json.loads(done.out)["negatives"] == 4


def test_baselines_print_a_table_and_json(llmctl, files, tmp_path):
    content = {
        "data": {"interactions": str(files / "interactions.csv"), "items": str(files / "items.csv")},
        "baselines": {"names": ["popularity", "item-knn"]},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    command = ("msr", "baselines", str(tmp_path / "r.yaml"), "--run", str(tmp_path / "run"))
    done = llmctl(*command)
    assert done.code == 0, done.err
    for words in ("popularity", "item-knn", "(exact chance)", "Full ranking", "6 test users"):
        assert words in done.out
    assert json.loads(llmctl(*command, "--json").out) == json.loads(
        (tmp_path / "run/metrics.json").read_text()
    )


def test_a_plan_changes_nothing(llmctl, files, tmp_path):
    done = llmctl("msr", "prepare", *options(files), "--dry-run", "--run", str(tmp_path / "run"))
    assert "negatives: 20" in done.out and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "neither a recipe nor files were given"),
        (
            ("--interactions", "no.csv", "--items", "no.csv"),
            "data.interactions is no.csv, which is not there",
        ),
        (("--interactions", "a", "--items", "b", "--format", "movielens"), "data.format is 'movielens'"),
        (("--set", "data.interactions=x"), "the key 'data.items' is missing"),
        (("--interactions", "a", "--items", "b", "--set", "split.train=0.95"), "leaves no test users"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(llmctl, tmp_path, arguments, message):
    done = llmctl("msr", "prepare", *arguments, "--run", str(tmp_path / "run"))
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_broken_line_is_named(llmctl, files, tmp_path):
    with (files / "interactions.csv").open("a") as stream:
        stream.write("u1,i1\n")
    done = llmctl("msr", "prepare", *options(files), "--run", str(tmp_path / "run"))
    assert done.code == 2 and "interactions.csv, line 482: 2 fields" in done.err
