"""Files of strangers in the runs folder: one bad run never takes the page down."""

import json
import resource
import threading

import pytest

from llmctl.errors import UserError
from llmctl.explorer import Limits
from llmctl.explorer.files import episode_index
from llmctl.explorer.files.episode_index import EpisodeIndex
from llmctl.explorer.files.file_cache import FileCache
from llmctl.explorer.files.library import Library
from llmctl.explorer.files.pair_index import PairIndex

DEEP = 100_000


def alias_bomb(levels=30):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"model: *a{levels - 1}", "kind: rise", ""])


BAD_RECIPES = {
    "alias bomb": alias_bomb(),
    "deep YAML": "model: " + "[" * DEEP + "]" * DEEP + "\n",
    "deep mapping": "".join(f"{' ' * n}a:\n" for n in range(600)),
    "large": "kind: rise\n# " + "x" * 2**19 + "\n",
    "name of a model that is a list": "kind: rise\nmodel: [a, b]\n",
    "long name of a model": f"kind: rise\nmodel: {'x' * 100_000}\n",
}


def make_run(folder, recipe="kind: rise\n", **files):
    (folder / "journal").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "recipe.yaml").write_text(recipe)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)


@pytest.fixture
def page(tmp_path, tiny_model):
    """A client on a runs folder with one good run."""
    from starlette.testclient import TestClient

    from llmctl.explorer.app import make_app
    from llmctl.explorer.models import Models

    make_run(tmp_path / "good", metrics='{"epsilon": {"0": {"value": 1.0}}}')
    library = Library(tmp_path)
    app = make_app(library, Models(library, [str(tiny_model)]), Limits(tokens=50))
    headers = {"Origin": "http://127.0.0.1", "Host": "127.0.0.1"}
    return TestClient(app, base_url="http://127.0.0.1", headers=headers, raise_server_exceptions=True)


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_bad_recipe_leaves_the_other_runs_and_views_alone(page, tmp_path, name):
    make_run(tmp_path / "bad", BAD_RECIPES[name], metrics='{"epsilon": {"0": {"value": 1.0}}}')
    for _ in range(2):
        answer = page.get("/api/runs")
        assert answer.status_code == 200 and len(answer.content) < 10_000
        assert "good" in [run["name"] for run in answer.json()["runs"]]
    assert page.get("/api/curve", params={"run": "good"}).status_code == 200
    assert page.get("/api/curve", params={"run": "bad"}).status_code in (200, 400)
    assert page.get("/api/rise", params={"run": "bad"}).status_code == 400


def test_a_bad_recipe_is_read_once_and_again_when_it_was_mended(tmp_path):
    make_run(tmp_path / "bad", BAD_RECIPES["deep YAML"])
    library = Library(tmp_path)
    for _ in range(3):
        with pytest.raises(UserError, match="nests deeper"):
            library.recipe("bad")
    assert len(library._recipes._entries) == 1
    (tmp_path / "bad" / "recipe.yaml").write_text("kind: mended\n")
    assert library.recipe("bad") == {"kind": "mended"}


@pytest.mark.parametrize("view", ["curve", "set"])
@pytest.mark.parametrize("nested", ['{"epsilon": ' + "[" * DEEP, '{"reached": ' + '{"a":' * DEEP])
def test_deep_metrics_are_one_line(page, tmp_path, view, nested):
    make_run(tmp_path / "bad", metrics=nested)
    answer = page.get(f"/api/{view}", params={"run": "bad"})
    assert answer.status_code == 400 and "nests too deep" in answer.json()["error"]


def test_metrics_that_nest_as_deep_as_can_be_read_do_not_break_the_answer(page, tmp_path):
    for depth in (300, 600, 900, 960):
        folder = tmp_path / f"deep-{depth}"
        make_run(
            folder, metrics=json.dumps({"reached": []})[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}"
        )
        assert page.get("/api/set", params={"run": folder.name}).status_code in (200, 400)


@pytest.mark.parametrize(
    "metrics",
    [
        '{"epsilon": {"x": {}}}', '{"epsilon": {"0": 1}}', '{"epsilon": {"0": {}}, "baseline": [1]}',
        '{"epsilon": {"0": {}}, "baseline": {"epsilon": 7}}',
    ],
)  # fmt: skip
def test_metrics_that_are_none_of_a_curve_are_one_line(page, tmp_path, metrics):
    make_run(tmp_path / "bad", metrics=metrics)
    answer = page.get("/api/curve", params={"run": "bad"})
    assert answer.status_code == 400 and "is not that of a curve" in answer.json()["error"]


@pytest.mark.parametrize(
    "config", ["[" * DEEP, '{"base_model_name_or_path": "' + "x" * 10**6 + '"}', "[]", "{}"]
)
def test_a_bad_adapter_is_offered_without_a_base(page, tmp_path, config):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(config)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    answer = page.get("/api/about")
    assert answer.status_code == 200
    assert [(offer["name"], offer["base"]) for offer in answer.json()["adapters"]] == [("runs:adapter", None)]


@pytest.mark.parametrize("content", [b"[" * 60_000, b'{"a":' * 12_000])
def test_a_deep_request_is_refused(page, content):
    answer = page.post("/api/next", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "not JSON" in answer.json()["error"]
    with page.websocket_connect("/api/session") as socket:
        socket.send_text(content.decode())
        assert socket.receive_json()["error"] == "the request is not JSON"
        socket.send_json({"do": "fly"})
        assert "fly" in socket.receive_json()["error"]


def test_a_text_is_held_to_tokens_as_well_as_characters(page, tiny_model):
    asked = {"model": str(tiny_model), "state": "x" * 51}
    answer = page.post("/api/next", json=asked)
    assert answer.status_code == 400 and "has 51 tokens" in answer.json()["error"]
    assert page.post("/api/next", json={**asked, "state": "x" * 50}).status_code == 200
    with page.websocket_connect("/api/session") as socket:
        order = {**asked, "targets": [[70]]}
        socket.send_json({"do": "start", "kind": "search", "job": "one", "order": order})
        while (news := socket.receive_json()).get("state") not in ("failed", "done"):
            pass
        assert "has 51 tokens" in news["error"]


def turn(is_correct, text="", **flags):
    return {"text": text, "reward": 0.0, "is_correct": is_correct, "answer": None, "tokens": 1, **flags}


def write_journal(path, episodes, text=""):
    """A journal with two records per line, as chunks leave it."""
    with path.open("w") as file:
        for number in range(0, episodes, 2):
            records = [
                {
                    "problem": f"p{n}",
                    "gold": "1",
                    "parallel": [],
                    "turns": [turn(False, text), turn(n % 2 == 0, text, is_repeat=True)],
                }
                for n in (number, number + 1)
            ]
            unit = {"records": records}
            line = {"key": f"k{number}", "chunk": [unit]} if number % 4 else {"key": f"k{number}", **unit}
            file.write(json.dumps(line) + "\n")


def test_an_overview_counts_as_the_metrics_do_and_an_episode_keeps_its_text(page, tmp_path):
    make_run(tmp_path / "rise")
    path = tmp_path / "rise" / "journal" / "evaluate-0.jsonl"
    write_journal(path, 10, "the text")
    with path.open("a") as file:
        file.write('{"key": "unfin')
    (stage,) = page.get("/api/rise", params={"run": "rise"}).json()["stages"]
    assert stage["problems"] == 10
    assert stage["episodes"][0] == {"problem": "p0", "right": [False, True]}
    assert stage["flows"][1]["wrong_to_right"] == 5 and stage["flows"][1]["repeats"] == 10
    answer = page.get("/api/episode", params={"run": "rise", "stage": 0, "problem": "p7"})
    assert [t["text"] for t in answer.json()["turns"]] == ["the text"] * 2
    assert page.get("/api/episode", params={"run": "rise", "stage": 0, "problem": "p11"}).status_code == 400


def test_a_journal_of_100_megabytes_is_read_once_for_20_overviews_and_little_is_kept(
    page, tmp_path, monkeypatch
):
    make_run(tmp_path / "big")
    write_journal(tmp_path / "big" / "journal" / "evaluate-0.jsonl", 4_000, "x" * 12_500)
    assert (tmp_path / "big" / "journal" / "evaluate-0.jsonl").stat().st_size > 100_000_000
    read, read_lines = [], episode_index.read_lines
    monkeypatch.setattr(episode_index, "read_lines", lambda path: read.append(path) or read_lines(path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    statuses = []

    def click():
        statuses.append(page.get("/api/rise", params={"run": "big"}).status_code)

    threads = [threading.Thread(target=click) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert statuses == [200] * 20 and len(read) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


@pytest.mark.parametrize(
    "line",
    [
        "no JSON", "[]", "[" * DEEP, '{"key": "a"}', '{"key": "a", "records": 1}', '{"records": [1]}',
        '{"records": [{"problem": "a"}]}', '{"records": [{"problem": 1, "turns": []}]}', '{"chunk": 7}',
        '{"records": [{"problem": "a", "turns": [7]}]}', '{"chunk": [{"records": null}]}',
        '{"records": [{"problem": "' + "x" * 2_000 + '", "turns": []}]}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_evaluation_is_named(page, tmp_path, line):
    make_run(tmp_path / "bad")
    (tmp_path / "bad" / "journal" / "evaluate-0.jsonl").write_text(line + "\n")
    answer = page.get("/api/rise", params={"run": "bad"})
    assert answer.status_code == 400
    assert "line 1 of evaluate-0.jsonl is not an evaluation" in answer.json()["error"]


def test_a_line_without_an_end_is_refused_before_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("llmctl.explorer.files.readers.LINE_BYTES", 1_000)
    path = tmp_path / "lines.jsonl"
    path.write_text("x" * 10_000)
    for index in (EpisodeIndex, PairIndex):
        with pytest.raises(UserError, match="line 1 of lines.jsonl is longer than 1,000 bytes"):
            index(path)


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("llmctl.explorer.files.episode_index._MOST", 4)
    monkeypatch.setattr("llmctl.explorer.files.pair_index._MOST", 4)
    write_journal(tmp_path / "evaluate-0.jsonl", 6)
    with pytest.raises(UserError, match="more than 4 episodes"):
        EpisodeIndex(tmp_path / "evaluate-0.jsonl")
    (tmp_path / "pairs.jsonl").write_text('{"verdict": "reached", "k": 1, "id": 0}\n' * 5)
    with pytest.raises(UserError, match="more than 4 pairs"):
        PairIndex(tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("key", ["problems", "options"])
def test_a_recipe_cannot_make_the_server_pose_huge_problems(page, tmp_path, key):
    huge = {"problems": "evaluate: {problems: 1000000000}", "options": ""}[key]
    size = {"problems": 2, "options": 10**9}[key]
    task = f"task: {{name: sort, options: {{min_length: 2, max_length: {size}}}}}"
    make_run(tmp_path / "huge", f"kind: rise\nmodel: a\n{task}\n{huge}\n")
    write_journal(tmp_path / "huge" / "journal" / "evaluate-0.jsonl", 2)
    answer = page.get("/api/episode", params={"run": "huge", "stage": 0, "problem": "p1"})
    assert answer.status_code == 200 and answer.json()["prompt"] is None


def test_the_cache_keeps_what_was_used_last(tmp_path):
    made = []
    cache = FileCache(lambda path: made.append(path.name) or path.read_text(), len, 6)
    for name, text in (("a", "aaa"), ("b", "bbb"), ("a", "aaa"), ("c", "ccc"), ("a", "aaa"), ("b", "bbb")):
        (tmp_path / name).exists() or (tmp_path / name).write_text(text)
        assert cache.get(tmp_path / name) == text
    assert made == ["a", "b", "c", "b"]
