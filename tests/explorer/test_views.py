"""What the other views are told: sets, curves, bounds, episodes, a conversation of one's own."""

import json

import pytest

from llmctl.reach import Problem, attention_bound, reachable_set

from .made_runs import HOSTILE
from .test_search import news_of

PROBLEMS = [
    f"Say {word}." for word in "one two three four five six seven eight nine ten eleven twelve".split()
]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    from llmctl.models import load

    return load(tiny_model, device="cpu")


def job(client, kind, order):
    with client.websocket_connect("/api/session") as socket:
        socket.send_json({"do": "start", "kind": kind, "job": "one", "order": order})
        return list(news_of(socket))


def test_a_live_set_is_the_engines_set_and_grows(client, problem, loaded):
    news = job(client, "set", {**problem, "k": 1, "sample": 0})
    told = {}
    for n in news:
        if n["event"] == "reached":
            told |= {t["token"]["id"]: t for t in n["tokens"]}
    expected = reachable_set(loaded.model, loaded.tokenizer, Problem("hello"))
    assert told.keys() == expected.tokens()
    for entry in expected.reached:
        assert told[entry.token]["base_rank"] == entry.base_rank
        assert len(told[entry.token]["control"]) == len(entry.control_ids)
    growth = [n["reached"] for n in news if n["event"] == "progress"]
    assert growth == sorted(growth) and len(growth) >= 4
    assert news[-2]["event"] == "end" and news[-2]["exact_k"] == 1


def test_an_explored_set_is_remembered_for_its_link(client, problem):
    order = {**problem, "state": "remember", "k": 1, "sample": 50}
    assert client.post("/api/explored", json=order).json() == {"reached": [], "growth": [], "end": None}
    news = job(client, "set", order)
    told = {t["token"]["id"] for n in news if n["event"] == "reached" for t in n["tokens"]}
    found = client.post("/api/explored", json=order).json()
    assert {entry["token"]["id"] for entry in found["reached"]} == told
    assert found["end"]["allowed"] == 50 and len(found["growth"]) == len(
        [n for n in news if n["event"] == "progress"]
    )
    assert client.post("/api/explored", json={**order, "seed": 1}).json()["reached"] == []


def test_a_sampled_set_says_how_many_tokens_it_allowed(client, problem):
    news = job(client, "set", {**problem, "k": 2, "sample": 20, "forwards": 40})
    assert news[-1]["state"] == "done"
    assert next(n for n in news if n["event"] == "begin")["allowed"] == 20
    assert {
        t["id"] for n in news if n["event"] == "reached" for e in n["tokens"] for t in e["control"]
    } <= set(range(259))


def test_runs_are_listed_by_kind_and_a_link_out_is_not(client):
    runs = {run["name"]: run for run in client.get("/api/runs").json()["runs"]}
    assert {name: run["kind"] for name, run in runs.items()} == {
        "curve": "reach-curve",
        "rise": "rise",
        "set": "reach-set",
    }
    assert all(run["is_done"] for run in runs.values())
    assert runs["curve"]["model"] == "runs:models/tiny"  # and not where the runs folder lies
    assert {"name": "runs:models/tiny", "label": "models/tiny", "base": None} in client.get(
        "/api/about"
    ).json()["models"]


@pytest.mark.parametrize(
    "name", ["../secret", "link", "/etc", "curve/../../secret", "~", "curve\0", "nowhere", ""]
)
@pytest.mark.parametrize("path", ["curve", "pairs", "set", "rise", "episode?stage=0&problem=x"])
def test_paths_outside_the_runs_folder_are_refused(client, path, name):
    path, _, query = path.partition("?")
    params = {"run": name, **dict(part.split("=") for part in query.split("&") if part)}
    answer = client.get(f"/api/{path}", params=params)
    assert answer.status_code == 404
    assert "epsilon" not in answer.json()


def test_a_file_that_is_a_link_out_of_the_runs_folder_is_refused(make_client, runs, tmp_path):
    secret = tmp_path / "metrics.json"
    secret.write_text('{"epsilon": {"0": {"value": 0.25}}}')
    folder = runs / "linked"
    folder.mkdir()
    try:
        for name in ("recipe.yaml", "manifest.json"):
            (folder / name).write_text("kind: reach-curve\n")
        (folder / "metrics.json").symlink_to(secret)
        answer = make_client().get("/api/curve", params={"run": "linked"})
        assert answer.status_code == 400 and "leads out" in answer.json()["error"]
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_a_curve_is_what_its_metrics_say_and_its_pairs_can_be_paged(client, runs):
    metrics = json.loads((runs / "curve" / "metrics.json").read_text())
    lines = [json.loads(line) for line in (runs / "curve" / "pairs.jsonl").read_text().splitlines()]
    curve = client.get("/api/curve", params={"run": "curve"}).json()
    assert [(p["k"], p["value"]) for p in curve["points"]] == [
        (int(k), p["value"]) for k, p in metrics["epsilon"].items()
    ]
    assert curve["pairs"] == len(lines) and curve["baseline"] is not None
    seen = []
    for k in ("none", "0", "1", "2"):
        wanted = None if k == "none" else int(k)
        page = client.get("/api/pairs", params={"run": "curve", "k": k, "limit": 200}).json()
        assert page["total"] == len(lines)
        assert [p["id"] for p in page["pairs"]] == [p["id"] for p in lines if p["k"] == wanted]
        if page["of"] > 1:
            second = client.get("/api/pairs", params={"run": "curve", "k": k, "offset": 1, "limit": 1}).json()
            assert second["pairs"] == page["pairs"][1:2]
        seen += page["pairs"]
    assert len(seen) == len(lines)


def test_published_curves_come_with_intervals(client):
    curves = client.get("/api/published").json()["curves"]
    assert len(curves) >= 10
    for curve in curves:
        for point in curve["points"]:
            assert point["low"] <= point["value"] <= point["high"]


def test_a_saved_set_keeps_hostile_text_as_text(client):
    answer = client.get("/api/set", params={"run": "set"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["state_text"] == HOSTILE


def test_the_bound_is_the_engines_bound(client, problem, loaded):
    answer = client.post("/api/bound", json={**problem, "relative": 0.5}).json()
    expected = attention_bound(loaded.model, loaded.tokenizer, Problem("hello"), relative=0.5)
    assert [h["least_k"] for h in answer["heads"]] == [h.least_k for h in expected.heads]
    for shown, head in zip(answer["heads"], expected.heads, strict=True):
        assert shown["reach"] == pytest.approx(head.limit(1) / head.output_norm, rel=1e-5)


def test_a_rise_run_has_its_episodes_and_flows(client):
    found = client.get("/api/rise", params={"run": "rise"}).json()
    (stage,) = found["stages"]
    assert (found["task"], stage["stage"], len(stage["episodes"])) == ("sort", 0, 4)
    for number, turn in enumerate(stage["flows"]):
        right = sum(entry["right"][number] for entry in stage["episodes"])
        assert turn["accuracy"]["value"] == pytest.approx(right / 4)
    problem = stage["episodes"][0]["problem"]
    episode = client.get("/api/episode", params={"run": "rise", "stage": 0, "problem": problem}).json()
    assert "sort" in episode["system"].lower()
    assert len(episode["turns"]) == 3 and episode["retry"] == "That is not correct."
    for number in problem.removeprefix("sort:").split("-"):
        assert number in episode["prompt"]
    answer = client.get("/api/episode", params={"run": "rise", "stage": 0, "problem": "no such"})
    assert answer.status_code == 400 and "no problem 'no such'" in answer.json()["error"]


@pytest.mark.parametrize(
    "task",
    [
        {"name": "python:os:getcwd"},
        {"name": "jsonl", "path": "/etc/passwd"},
        {"name": "jsonl", "options": {"path": "/etc/passwd"}},
    ],
)
def test_a_recipe_cannot_make_the_page_run_code_or_read_files(client, runs, task):
    import shutil

    import yaml

    folder = runs / "planted"
    shutil.copytree(runs / "rise", folder)
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
        (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "task": task}))
        found = client.get("/api/rise", params={"run": "planted"}).json()
        problem = found["stages"][0]["episodes"][0]["problem"]
        query = {"run": "planted", "stage": 0, "problem": problem}
        assert client.get("/api/episode", params=query).json()["prompt"] is None
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """A LoRA adapter with weights that matter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "lora"
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(r=2, target_modules=["q_proj", "o_proj", "down_proj"]),
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2.0)
    model.save_pretrained(folder)
    return folder


def test_a_tuned_model_talks_beside_its_base(runs, tiny_model, adapter):
    from starlette.testclient import TestClient

    from llmctl.explorer.app import make_app
    from llmctl.explorer.files.library import Library
    from llmctl.explorer.models import Models
    from llmctl.sampling import Settings, open_sampler

    from .conftest import ADDRESS, HEADERS

    app = make_app(Library(runs), Models(Library(runs), [str(tiny_model)], [adapter]))
    client = TestClient(app, base_url=ADDRESS, headers=dict(HEADERS))
    expected = {}
    for name, path in (("base", None), ("tuned", adapter)):
        with open_sampler(str(tiny_model), engine="transformers", adapter=path) as sampler:
            said = [[{"role": "user", "content": text}] for text in PROBLEMS]
            replies = sampler.chat(said, Settings(temperature=0, max_tokens=12))
            expected[name] = [reply.text for (reply,) in replies]
    pairs = list(zip(expected["base"], expected["tuned"], strict=True))
    place = next(i for i, (base, tuned) in enumerate(pairs) if tuned and base != tuned)
    order = {
        "model": str(tiny_model),
        "problem": PROBLEMS[place],
        "answer": "5",
        "turns": 2,
        "new_tokens": 12,
    }
    news = job(client, "converse", {**order, "adapter": str(adapter)})
    assert news[-1]["state"] == "done", news[-1]
    turns = {(n["side"], n["turn"]): n for n in news if n["event"] == "turn"}
    assert turns.keys() == {(side, turn) for side in ("tuned", "base") for turn in (0, 1)}
    assert (turns["base", 0]["text"], turns["tuned", 0]["text"]) == pairs[place]
    streamed = "".join(
        n["piece"] for n in news if n["event"] == "text" and (n["side"], n["turn"]) == ("base", 0)
    )
    assert turns["base", 0]["text"].startswith(streamed)


def test_a_model_without_a_template_says_that_it_cannot_talk(client, runs, tiny_model, tmp_path, make_client):
    from transformers import AutoTokenizer

    folder = runs / "models" / "silent"
    import shutil

    shutil.copytree(tiny_model, folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = None
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(folder)
        news = job(make_client(), "converse", {"model": "runs:models/silent", "problem": "Hi"})
        assert news[-1]["state"] == "failed" and "no chat template" in news[-1]["error"]
    finally:
        shutil.rmtree(folder)
