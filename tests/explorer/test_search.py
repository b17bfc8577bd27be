"""Questions and searches over HTTP and the socket, against the engine itself."""

import pytest

from llmctl.explorer import Limits
from llmctl.reach import Problem, solve


def search(client, order, *, until="state", **message):
    """Start a search, and its news to the end."""
    with client.websocket_connect("/api/session") as socket:
        socket.send_json({"do": "start", "kind": "search", "job": "one", "order": order, **message})
        return list(news_of(socket))


def news_of(socket):
    while True:
        news = socket.receive_json()
        yield news
        if news["event"] == "refused" or news.get("state") in ("done", "stopped", "failed"):
            return


@pytest.fixture(scope="module")
def loaded(tiny_model):
    from llmctl.models import load

    return load(tiny_model, device="cpu")


def test_the_distribution_is_the_models_own(client, problem, loaded):
    import torch

    answer = client.post("/api/next", json={**problem, "top": 200}).json()
    ids = loaded.tokenizer.encode("hello", add_special_tokens=False)
    with torch.no_grad():
        expected = loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert [t["id"] for t in answer["tokens"][:5]] == expected.topk(5).indices.tolist()
    for token in answer["tokens"]:
        assert token["p"] == pytest.approx(float(expected[token["id"]]), abs=1e-5)
    assert answer["rest"] == pytest.approx(1 - sum(t["p"] for t in answer["tokens"]), abs=1e-5)
    assert answer["entropy"] == pytest.approx(float(-(expected * expected.log()).sum()), abs=1e-3)


def test_completion_offers_tokens_and_the_text_itself(client, problem):
    answer = client.post("/api/complete", json={"model": problem["model"], "text": "a"}).json()
    assert answer["tokens"][0]["text"] == "a"
    assert {t["text"] for t in answer["tokens"]} >= {"a", "A"}
    answer = client.post("/api/complete", json={"model": problem["model"], "text": "abc"}).json()
    assert [t["text"] for t in answer["whole"]] == ["a", "b", "c"]


def test_a_search_over_the_socket_finds_what_the_engine_finds(client, problem, loaded):
    target = loaded.tokenizer.encode("q", add_special_tokens=False)
    news = search(client, {**problem, "targets": [target], "k": 2, "budget": 2000})
    expected = solve(loaded.model, loaded.tokenizer, Problem("hello", target), max_k=2)
    (result,) = [n["result"] for n in news if n["event"] == "result"]
    assert (result["verdict"], result["k"]) == (expected.verdict, expected.k)
    assert result["control_ids"] == list(expected.control_ids)
    assert result["forwards"] == expected.forwards
    steps = [n for n in news if n["event"] == "step"]
    assert len(steps) == len(expected.path)
    assert [n["state"] for n in news if n["event"] == "state"] == ["running", "done"]


def test_the_effect_of_a_token_is_the_rise_of_the_loss_without_it(client, problem, loaded):
    import torch

    control, target = [70, 71], [80]
    order = {**problem, "target": target, "control": control}
    answer = client.post("/api/witness", json=order).json()
    ids = loaded.tokenizer.encode("hello", add_special_tokens=False)

    def loss(left):
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([[*left, *ids]])).logits[0, -1]
        return -float(logits.log_softmax(-1)[target[0]]), int((logits > logits[target[0]]).sum())

    assert answer["loss"] == pytest.approx(loss(control)[0], abs=1e-4)
    assert answer["rank"] == loss(control)[1] and answer["base_rank"] == loss([])[1]
    assert answer["effects"] == pytest.approx(
        [loss([71])[0] - loss(control)[0], loss([70])[0] - loss(control)[0]], abs=1e-4
    )
    assert answer["is_hit"] == (answer["rank"] == 0)


def test_several_targets_each_get_a_verdict_and_a_spent_budget_is_said(client, problem):
    order = {**problem, "targets": [[80], [90, 91], [100]], "k": 3, "budget": 60, "method": "random"}
    news = search(client, order)
    results = [n for n in news if n["event"] == "result"]
    assert [n["place"] for n in results] == [0, 1, 2]
    for n in results:
        assert n["result"]["verdict"] in ("reached", "unknown")
        assert n["result"]["forwards"] < 60 + 1024 // 8 + 32  # it ends between two passes


def test_a_search_can_pause_go_on_and_stop(client, problem):
    order = {**problem, "targets": [[250]], "k": 12, "budget": 100_000, "method": "beam"}
    with client.websocket_connect("/api/session") as socket:
        socket.send_json({"do": "start", "kind": "search", "job": "one", "order": order})
        seen = []
        while not (seen and seen[-1]["event"] == "step" and seen[-1]["k"] > 0):
            seen.append(socket.receive_json())
        socket.send_json({"do": "pause", "kind": "search"})
        while seen[-1].get("state") != "paused":
            seen.append(socket.receive_json())
        # the page stays usable meanwhile
        assert client.post("/api/next", json=problem).status_code == 200
        socket.send_json({"do": "go-on", "kind": "search"})
        while seen[-1].get("state") != "running":
            seen.append(socket.receive_json())
        socket.send_json({"do": "stop", "kind": "search"})
        rest = list(news_of(socket))
    assert rest[-1]["state"] == "stopped"
    (result,) = [n for n in rest if n["event"] == "result"]
    assert result["note"] == "stopped" and result["result"]["control_ids"]


def test_a_closed_socket_stops_its_search(make_client, problem):
    import threading

    client = make_client()
    order = {**problem, "targets": [[250]] * 16, "k": 12, "budget": 200_000, "method": "beam"}
    with client.websocket_connect("/api/session") as socket:
        socket.send_json({"do": "start", "kind": "search", "job": "one", "order": order})
        while socket.receive_json()["event"] != "step":
            pass
        threads = [t for t in threading.enumerate() if t.name == "llmctl-search"]
        assert threads
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": 99}, "allows 12 at most"),
        ({"budget": 10**9}, "allows 200,000 at most"),
        ({"state": "x" * 5000}, "allows 4,000 at most"),
        ({"targets": [[5]] * 17}, "allows 16 at most"),
        ({"targets": [[]]}, "a target is empty"),
        ({"targets": [[5] * 40]}, "more than 32 tokens"),
        ({"targets": [[99999]]}, "vocabulary is 0 to"),
        ({"model": "/etc"}, "not on offer"),
        ({"model": "runs:../secret"}, "not on offer"),
        ({"adapter": "/etc"}, "not on offer"),
        ({"position": "template"}, "position"),
        ({"magic": 1}, "magic"),
        ({"state": ""}, "at least 1"),
    ],
)
def test_what_asks_for_too_much_is_refused_in_one_line(client, problem, changes, reason):
    news = search(client, {**problem, "targets": [[5]], **changes})
    assert news[-1]["event"] == "refused" or news[-1]["state"] == "failed"
    assert reason in news[-1]["error"] and "\n" not in news[-1]["error"]


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", '"x"', '{"do": "start", "kind": "magic"}', '{"do": "fly"}']
)
def test_nonsense_on_the_socket_is_answered_and_harms_nothing(client, problem, text):
    with client.websocket_connect("/api/session") as socket:
        socket.send_text(text)
        assert socket.receive_json()["event"] == "refused"
        socket.send_json(
            {"do": "start", "kind": "search", "job": "one", "order": {**problem, "targets": [[5]], "k": 1}}
        )
        assert list(news_of(socket))[-1]["state"] == "done"


def test_searches_beyond_the_limit_wait_in_line(make_client, problem):
    client = make_client(Limits(running=1))
    order = {**problem, "targets": [[250]] * 16, "k": 12, "budget": 200_000, "method": "beam"}
    with (
        client,
        client.websocket_connect("/api/session") as one,
        client.websocket_connect("/api/session") as two,
    ):
        one.send_json({"do": "start", "kind": "search", "job": "one", "order": order})
        while one.receive_json().get("state") != "running":
            pass
        two.send_json(
            {"do": "start", "kind": "search", "job": "two", "order": {**problem, "targets": [[5]], "k": 1}}
        )
        waiting = two.receive_json()
        assert (waiting["state"], waiting["place"]) == ("waiting", 1)
        one.send_json({"do": "stop", "kind": "search"})
        assert list(news_of(two))[-1]["state"] == "done"
