"""`llmctl reach`: what is printed, what scripts rely on, and what is refused."""

import json

import pytest
import yaml

FIELDS = (
    "verdict k control_ids control_text method base_rank base_loss loss forwards forward_tokens roundtrips"
)


@pytest.fixture
def model(tiny_model):
    return ("--model", str(tiny_model))


@pytest.fixture
def recipe(tiny_model, tmp_path):
    path = tmp_path / "tiny.yaml"
    content = {
        "kind": "reach-curve",
        "model": str(tiny_model),
        "states": {"count": 4, "lengths": [4]},
        "search": {"max_k": 1},
        "controls": {"sample": 60},
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_solve_prints_what_scripts_rely_on(llmctl, model):
    done = llmctl("reach", "solve", "--state", "abc", "--target", "d", "--k", "2", *model, "--json")
    found = json.loads(done.out)
    assert done.code == 0 and all(field in found for field in FIELDS.split())
    assert found["verdict"] in ("reached", "unknown") and found["target_text"] == "d"
    assert found["path"][0]["method"] == "base"


def test_solve_tells_a_person_the_path_and_the_verdict(llmctl, model):
    done = llmctl("reach", "solve", "--state", "abc", "--target", "d", *model)
    assert "forward tokens" in done.out and "without a control 'd' has rank" in done.out


def test_ids_stand_for_texts(llmctl, model):
    text = llmctl("reach", "solve", "--state", "abc", "--target", "d", "--k", "1", *model, "--json")
    ids = json.loads(text.out)
    arguments = ("--state-ids", " ".join(map(str, ids["state_ids"])))
    arguments += ("--target-ids", ",".join(map(str, ids["target_ids"])))
    assert json.loads(llmctl("reach", "solve", *arguments, "--k", "1", *model, "--json").out) == ids


def test_certify_says_unreachable_or_gives_a_witness_for_every_target(llmctl, model):
    verdicts = set()
    for target in "0123456789":
        arguments = ("--state", "abc", "--target", target, "--k", "1", "--certify", *model, "--json")
        verdicts.add(json.loads(llmctl("reach", "solve", *arguments).out)["verdict"])
    assert verdicts <= {"reached", "unreachable"} and "unreachable" in verdicts
    arguments = ("--state", "abc", "--target", "0", "--k", "1", "--certify", *model)
    assert "no allowed control of one token makes" in llmctl("reach", "solve", *arguments).out


def test_a_conversation_can_hold_the_control(llmctl, model):
    state = json.dumps([{"role": "user", "content": "{control} Say x."}])
    arguments = ("--state", state, "--position", "template", "--target", "x", "--k", "1", *model, "--json")
    assert json.loads(llmctl("reach", "solve", *arguments).out)["position"] == "template"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--target", "d"), "--state and --state-ids are empty"),
        (("--state", "abc"), "--target and --target-ids are empty"),
        (("--state", "abc", "--state-ids", "1", "--target", "d"), "are both given"),
        (("--state-ids", "1 b", "--target", "d"), "--state-ids is '1 b', but token ids are needed"),
        (("--state-ids", "99999", "--target", "d"), "holds token 99999, but the vocabulary is"),
        (("--state", "abc", "--target", "d", "--k", "0"), "--k is 0, but a control needs at least 1"),
        (("--state", "abc", "--target", "d", "--k", "9999"), "but the model's context is"),
        (("--state", "abc", "--target", "d", "--certify"), "only k = 1 can be exhausted"),
        (("--state", "abc", "--target", "d", "--method", "magic"), "--method is 'magic', but it must be one"),
        (("--state", "abc", "--target", "d", "--method", "scan"), "--method scan exhausts k = 1"),
        (("--state", "abc", "--target", "d", "--position", "middle"), "position is 'middle'"),
        (("--state", "abc", "--target", "d", "--controls", "rude"), "tokens is 'rude'"),
        (("--state", "abc", "--target", "d", "--effort", "0"), "--effort is 0.0"),
        (("--state", "x", "--position", "template", "--target", "d"), "needs a JSON conversation"),
        (("--state", "abc", "--target", "d", "--sample-controls", "99999"), "only .* tokens are allowed"),
        (
            ("--state", "abc", "--target", "d", "--dictionary", "none.txt"),
            "only words are looked up",
        ),
        (
            ("--state", "abc", "--target", "d", "--controls", "words", "--dictionary", "none.txt"),
            "no such file",
        ),
    ],
)
def test_a_mistake_is_one_line(llmctl, model, arguments, match):
    done = llmctl("reach", "solve", *arguments, *model)
    assert done.code == 2 and done.out == "" and done.err.strip().count("\n") == 0
    import re

    assert re.search(match, done.err), done.err


def test_controls_of_which_none_is_left_are_one_line(llmctl, model, tmp_path):
    (tmp_path / "words.txt").write_text("qqqq\n")
    arguments = ("--state", "abc", "--target", "d", "--controls", "words")
    done = llmctl("reach", "solve", *arguments, "--dictionary", str(tmp_path / "words.txt"), *model)
    assert done.code == 2 and "no token is left for the control" in done.err


def test_set_is_exact_at_k_1_and_its_folder_resumes(llmctl, model, tmp_path):
    arguments = ("reach", "set", "--state", "abc", *model, "--json")
    plain = json.loads(llmctl(*arguments).out)
    assert plain["is_exact"] and plain["reached"][0]["base_rank"] == 0
    folder = ("--run", str(tmp_path / "set"))
    kept = json.loads(llmctl(*arguments, *folder).out)
    assert kept == plain and (tmp_path / "set/figures/reached.png").is_file()
    (tmp_path / "set/metrics.json").unlink()
    assert json.loads(llmctl(*arguments, *folder).out) == plain  # from the journal's chunks
    words = llmctl("reach", "set", "--state", "abc", *model, *folder)
    assert f"R_1 holds exactly {len(plain['reached'])} tokens" in words.out
    longer = llmctl("reach", "set", "--state", "abc", *model, "--k", "2", "--forwards", "300", "--json")
    assert len(json.loads(longer.out)["reached"]) >= len(plain["reached"])


def test_a_mistake_in_set_leaves_no_folder(llmctl, model, tmp_path):
    done = llmctl("reach", "set", *model, "--run", str(tmp_path / "none"))
    assert done.code == 2 and "--state and --state-ids are empty" in done.err
    assert not (tmp_path / "none").exists()


def test_bound_says_what_it_is(llmctl, model, tmp_path):
    picture = tmp_path / "bound.png"
    done = llmctl("reach", "bound", "--state", "abc", *model, "--out", str(picture))
    assert done.code == 0 and "not on the model" in done.out and picture.read_bytes()[:4] == b"\x89PNG"
    report = json.loads(llmctl("reach", "bound", "--state", "abc", *model, "--json").out)
    assert {"layer", "head", "least_k"} <= report["heads"][0].keys()


def test_curve_prints_the_table_and_json_is_metrics(llmctl, recipe, tmp_path):
    folder = tmp_path / "run"
    done = llmctl("reach", "curve", recipe, "--run", str(folder))
    assert done.code == 0 and "epsilon, clustered by state" in done.out
    assert done.out.rstrip().endswith(f"report: {folder / 'report.html'}")
    again = llmctl("reach", "curve", recipe, "--run", str(folder), "--json")
    assert json.loads(again.out) == json.loads((folder / "metrics.json").read_text())


def test_a_dry_run_shows_the_work_and_makes_nothing(llmctl, recipe, tmp_path):
    done = llmctl("reach", "curve", recipe, "--run", str(tmp_path / "none"), "--dry-run")
    assert done.code == 0 and "kind: reach-curve" in done.out and "# states: 4" in done.out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("states.count=9999", "states.count is 9999, but the passage that comes with llmctl gives"),
        ("states.path=none.jsonl", "states.path is none.jsonl, but there is no such file"),
        ("states.pairs=none.jsonl", "but there is no such file"),
        ("targets.draw=prev", "targets.draw is 'prev'"),
        ("search.max_k=0", "search.max_k is 0"),
        ("search.max=3", "unknown key 'search.max'"),
        ("controls.position=template", "a curve's states are plain texts"),
        ("beside=[falcon-8b]", "no published curve"),
        ("adapter=none", "give the folder of a saved PEFT adapter"),
        ("shard.index=1", "index is 1 and of is 1"),
        ("targets.tokens=999", "followed by"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_and_leaves_no_folder(llmctl, recipe, tmp_path, change, match):
    done = llmctl("reach", "curve", recipe, "--run", str(tmp_path / "none"), "--set", change)
    assert done.code == 2 and match in done.err and done.err.strip().count("\n") == 0
    assert not (tmp_path / "none").exists()


def test_compare_takes_runs_or_a_recipe(llmctl, recipe, tmp_path, tiny_model):
    for name in ("a", "b"):
        llmctl("reach", "curve", recipe, "--run", str(tmp_path / name), "--json")
    done = llmctl("reach", "compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert "b - a" in done.out and "+0.000 [-0.462, +0.462]" in done.out
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    del content["model"]
    arms = {"one": {"model": str(tiny_model)}, "two": {"model": str(tiny_model)}}
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(content | {"kind": "reach-compare", "arms": arms, "baseline": "none"}))
    made = llmctl("reach", "compare", str(path), "--run", str(tmp_path / "c"), "--json")
    assert json.loads(made.out)["differences"]["two"]["gained"] == 0
    assert (tmp_path / "c/report.html").is_file()
    for arguments, match in [
        ((str(tmp_path / "a"),), "is one run, but a comparison needs two or more"),
        ((str(tmp_path / "a"), str(tmp_path)), "is no run"),
        ((str(tmp_path / "a"), str(tmp_path / "b"), "--fresh"), "are for a recipe"),
        ((recipe,), "is a recipe of kind 'reach-curve', but this command needs one of kind 'reach-compare'"),
    ]:
        done = llmctl("reach", "compare", *arguments)
        assert done.code == 2 and match in done.err


def test_import_recomputes_a_published_curve_and_draws_it(llmctl, tmp_path):
    header = (
        "question_ids,answer_ids,base_loss,search_method,best_prompt_ids,prompt_length,prompted_loss,"
        "prompt_correct\n"
    )
    rows = ['"[1]",2,0.5,base,[],0,-1,True\n', '"[1]",3,2.5,greedy,[9],1,0.5,True\n']
    rows += ['"[2]",3,4.5,gcg,"[1, 2, 3, 4]",4,2.5,False\n']
    path = tmp_path / "mine.csv"
    path.write_text(header + "".join(rows))
    done = llmctl("reach", "import", str(path), "--run", str(tmp_path / "run"), "--beside", "llama-7b")
    assert "66.67" in done.out and "mine: 3 pairs at 2 states" in done.out
    assert (tmp_path / "run/figures/epsilon.png").is_file()
    found = json.loads(llmctl("reach", "import", str(path), "--json").out)
    assert found["mine"]["epsilon"]["1"]["value"] == pytest.approx(1 / 3)
    done = llmctl("reach", "import", str(tmp_path / "none.csv"))
    assert done.code == 2 and "is no CSV file" in done.err
