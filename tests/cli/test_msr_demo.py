"""`llmctl msr demo`: what is written, printed and refused."""

import json


def test_demo_writes_data_that_prepare_takes_and_prints_what_can_be_reached(llmctl, tmp_path):
    folder = str(tmp_path / "demo")
    sizes = ("--items", "64", "--users", "30")
    done = llmctl("msr", "demo", folder, *sizes)
    assert done.code == 0, done.err
    for words in ("oracle: titles alone", "30 users, 20 negatives each", "next: llmctl msr prepare"):
        assert words in done.out
    found = json.loads(llmctl("msr", "demo", folder, *sizes, "--json").out)
    assert found["oracles"]["oracle: latest taste"]["auc"]["n"] == 30
    files = ("--interactions", found["interactions"], "--items", found["items"])
    run = ("--set", "filters.item_core=1", "--run", str(tmp_path / "run"), "--json")
    facts = json.loads(llmctl("msr", "prepare", *files, *run).out)
    assert facts["without_image"] == 0 and facts["users"]["test"] == 3


def test_a_folder_that_is_in_use_is_refused_in_one_line(llmctl, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = llmctl("msr", "demo", str(tmp_path))
    assert done.code == 2 and "is not empty ('notes.txt' is there)" in done.err
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


def test_demo_model_prints_what_both_models_can_do(llmctl, tmp_path, monkeypatch):
    from llmctl.demo import vision, writer

    share = {"value": 0.95, "low": 0.91, "high": 0.97, "n": 200}
    common = {"held_out": {"seed": 1}}
    seen = common | {
        "names_rightly": {"colour": share},
        "seconds": {"draw": 1.0, "words": 2.0},
        "examples": {"A red cup.": "A red\ncup."},
    }
    written = common | {
        "names_latest_colour": {"direct": share},
        "seconds": 3.0,
        "examples": [{"true": "This user now likes red items.", "direct": "Red."}],
    }
    for module, report, name in (
        (vision, seen, "ensure_demo_model"),
        (writer, written, "ensure_demo_writer"),
    ):
        (tmp_path / module.REPORT).write_text(json.dumps(report))
        monkeypatch.setattr(module, name, lambda quiet: tmp_path)
    done = llmctl("msr", "demo-model")
    assert done.code == 0, done.err
    for words in ("0.950 [0.910, 0.970], n = 200", "A red cup.", "direct:     Red.", "trained in 3 s"):
        assert words in done.out
    found = json.loads(llmctl("msr", "demo-model", "--json").out)
    assert found["msr-demo"]["names_rightly"]["colour"] == share
    assert found["msr-demo-writer"]["path"] == str(tmp_path)
