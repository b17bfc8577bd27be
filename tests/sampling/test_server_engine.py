"""The server engine against a server that fails in every way a network can."""

import math
import time

import pytest

from llmctl.errors import EngineError, UserError
from llmctl.sampling import Settings, open_sampler, server_client
from llmctl.sampling.common import request_seeds
from tests.sampling.fake_server import Drop, FakeServer, Late, reply


def user(text):
    return [{"role": "user", "content": text}]


ASK = [user(f"q{i}") for i in range(6)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(server_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def connect(server, **options):
    return open_sampler("fake", engine="server", base_url=server.url, **options)


def texts(replies):
    return [[completion.text for completion in r] for r in replies]


class TestOpening:
    def test_token_ids_are_refused_with_the_engines_that_take_them(self):
        with FakeServer() as server, connect(server) as sampler:
            with pytest.raises(EngineError, match="not by token ids: take engine vllm or transformers"):
                sampler.continue_ids([[1, 2]], 3)

    def test_no_server_is_one_line_that_says_how_to_start_one(self):
        with pytest.raises(
            UserError, match="no server answers at http://127.0.0.1:9/v1.*api_server"
        ) as caught:
            open_sampler("fake", engine="server", base_url="http://127.0.0.1:9/v1")
        assert "\n" not in str(caught.value)

    def test_an_unknown_model_lists_what_is_served(self):
        with FakeServer() as server, pytest.raises(UserError, match="no 'other': it serves fake, tuned"):
            open_sampler("other", engine="server", base_url=server.url)

    def test_an_unknown_adapter_lists_what_is_served(self):
        with FakeServer() as server, pytest.raises(UserError, match="no 'mine': it serves fake, tuned"):
            connect(server, adapter="mine")

    def test_the_adapters_name_is_asked_for_instead_of_the_model(self):
        with FakeServer() as server, connect(server, adapter="tuned") as sampler:
            sampler.chat(ASK[:1])
            sampler.use_adapter(None)
            sampler.chat(ASK[:1])
        assert [body["model"] for body in server.bodies] == ["tuned", "fake"]

    @pytest.mark.parametrize("models", [(404, {}), {"object": "hello"}, b"<html>"])
    def test_another_kind_of_server_is_told_apart(self, models):
        with (
            FakeServer(models=models) as server,
            pytest.raises(UserError, match="no OpenAI-compatible server"),
        ):
            connect(server)

    def test_a_refused_key_names_the_variable(self):
        with FakeServer(models=(401, {"error": {"message": "bad key"}})) as server:
            with pytest.raises(UserError, match="refuses the key .bad key.: set OPENAI_API_KEY"):
                connect(server)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"base_url": "localhost:8000"}, "base_url is"), ({"max_parallel": 0}, "max_parallel is 0")],
    )
    def test_an_option_out_of_range_is_refused(self, options, message):
        with pytest.raises(UserError, match=message):
            open_sampler("fake", engine="server", **options)

    def test_a_missing_package_names_the_extra(self, monkeypatch):
        monkeypatch.setattr(server_client, "find_spec", lambda name: None)
        with pytest.raises(UserError, match="pip install openai"):
            open_sampler("fake", engine="server")

    def test_a_proxy_of_the_environment_is_not_used_for_this_machine(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        with FakeServer() as server, connect(server) as sampler:
            assert not sampler.chat(ASK[:1])[0][0].is_error

    def test_a_closed_sampler_says_so(self):
        with FakeServer() as server:
            sampler = connect(server)
            sampler.close()
            sampler.close()
            with pytest.raises(UserError, match="closed"):
                sampler.chat(ASK)


class TestChat:
    def test_settings_reach_the_server_and_seeds_are_the_conversations(self):
        settings = Settings(n=2, temperature=0.5, top_p=0.9, max_tokens=7, stop=("X",), seed=4)
        with FakeServer() as server, connect(server, max_parallel=1) as sampler:
            sampler.chat(ASK, settings)
        seeds = [seed & 0x7FFFFFFF for seed in request_seeds(4, ASK)]
        assert [body["seed"] for body in server.bodies] == seeds
        wanted = {"n": 2, "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["X"]}
        assert server.bodies[0].items() >= wanted.items()

    def test_requests_run_at_once_and_answers_keep_their_order(self):
        """The first request is answered last."""
        with FakeServer(lambda body, number: Late(0.3 - 0.05 * number)) as server, connect(server) as sampler:
            replies = sampler.chat(ASK)
        assert [r[0].text.split(":")[0] for r in replies] == [f"q{i}" for i in range(6)]
        assert server.most_in_flight == 6

    def test_no_more_than_max_parallel_requests_are_in_flight(self):
        with (
            FakeServer(lambda body, number: Late(0.03)) as server,
            connect(server, max_parallel=2) as sampler,
        ):
            sampler.chat(ASK)
        assert server.most_in_flight == 2

    def test_a_server_that_ignores_n_is_asked_on_with_the_next_seeds(self):
        with FakeServer(lambda body, number: reply(body | {"n": 1})) as lazy, connect(lazy) as sampler:
            filled = sampler.chat(ASK, Settings(n=3))
            assert sampler.usage.prompt_tokens == 5 * len(ASK)
            assert sampler.usage.completion_tokens == 2 * 3 * len(ASK)
        assert len(lazy.bodies) == 3 * len(ASK)
        with FakeServer() as server, connect(server) as sampler:
            assert texts(filled) == texts(sampler.chat(ASK, Settings(n=3)))

    def test_a_server_that_gives_more_than_asked_is_cut(self):
        with FakeServer(lambda body, number: reply(body | {"n": 5})) as server, connect(server) as sampler:
            assert [len(r) for r in sampler.chat(ASK, Settings(n=2))] == [2] * 6

    def test_choices_are_put_in_the_order_of_their_index(self):
        def turned(body, number):
            data = reply(body)
            data["choices"].reverse()
            return data

        with FakeServer(turned) as server, connect(server) as sampler:
            seed = request_seeds(0, ASK[:1])[0] & 0x7FFFFFFF
            assert texts(sampler.chat(ASK[:1], Settings(n=2))) == [[f"q0:{seed}", f"q0:{seed + 1}"]]

    def test_greedy_samples_are_one_request_and_copies(self):
        with FakeServer() as server, connect(server) as sampler:
            replies = sampler.chat(ASK[:1], Settings(n=3, temperature=0))
        assert [body["n"] for body in server.bodies] == [1]
        assert len(replies[0]) == 3 and len(set(texts(replies)[0])) == 1

    def test_ids_and_logprobs_are_kept_and_counted(self):
        with FakeServer() as server, connect(server) as sampler:
            completion = sampler.chat(ASK[:1])[0][0]
            assert (completion.token_ids, completion.logprob) == ((11, 12), -2.0)
            assert vars(sampler.usage.snapshot()) == {
                "calls": 1,
                "prompt_tokens": 5,
                "cached_tokens": 0,
                "completion_tokens": 2,
                "retries": 0,
                "errors": 0,
            }

    @pytest.mark.parametrize(("refused", "sent"), [("top_k", [2, 2]), ("logprobs", [2, 2, 2])])
    def test_a_server_that_refuses_extras_is_asked_without_them_from_then_on(self, refused, sent):
        def strict(body, number):
            if refused in body:
                return 400, {"error": {"message": f"unknown field {refused}"}}
            return reply(body)

        with FakeServer(strict) as server, connect(server, max_parallel=1) as sampler:
            first, second = sampler.chat(ASK[:1])[0][0], sampler.chat(ASK[:1])[0][0]
            assert first.text and not second.is_error
            assert sampler.usage.retries == 0
            assert len(server.bodies) == len(sent) + 1  # the second call knows what to leave out
            assert math.isnan(second.logprob) == (refused == "logprobs")
            assert second.token_ids == ()

    def test_a_prompt_beyond_the_context_is_a_users_mistake(self):
        error = 400, {"error": {"message": "This model's maximum context length is 1000 tokens."}}
        with FakeServer(lambda body, number: error) as server, connect(server) as sampler:
            with pytest.raises(UserError, match="does not fit the context.*1000 tokens"):
                sampler.chat(ASK)

    def test_a_reply_that_the_server_shortened_for_lack_of_room_is_a_users_mistake(self):
        """The fake server serves 1000 tokens, and every prompt has 5."""
        with FakeServer() as server, connect(server) as sampler:
            assert not sampler.chat(ASK, Settings(max_tokens=995))[0][0].is_error
            with pytest.raises(UserError, match="has 5 tokens and asks for up to 996.*context is 1000"):
                sampler.chat(ASK, Settings(max_tokens=996))


FAULTS = {
    "a 500": lambda body: (500, {"error": {"message": "out of luck"}}),
    "a 429": lambda body: (429, {"error": {"message": "slow down"}}),
    "a connection dropped at once": lambda body: Drop(),
    "a connection dropped in the middle": lambda body: Drop(sent=20),
    "half a JSON": lambda body: b'{"choices": [{"index": 0, "mess',
    "no choices": lambda body: {"choices": []},
    "no choices at all": lambda body: {"error": "busy"},
    "another type": lambda body: [1, 2],
    "null content": lambda body: {
        "choices": [{"index": 0, "message": {"content": None}, "finish_reason": "stop"}]
    },
    "no message": lambda body: {"choices": [{"index": 0, "finish_reason": "stop"}]},
    "no finish reason": lambda body: {"choices": [{"index": 0, "message": {"content": "cut off in"}}]},
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_that_passes_is_tried_again_and_counted(self, fault):
        def once(body, number):
            return FAULTS[fault](body) if number == 0 else reply(body)

        with FakeServer(once) as server, connect(server) as sampler:
            replies = sampler.chat(ASK[:1], Settings(n=2))
            assert (sampler.usage.retries, sampler.usage.errors) == (1, 0)
            with FakeServer() as sound, connect(sound) as other:
                assert replies == other.chat(ASK[:1], Settings(n=2))

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_that_stays_costs_its_own_conversation_alone(self, fault):
        def poisoned(body, number):
            return FAULTS[fault](body) if body["messages"][-1]["content"] == "q2" else reply(body)

        with FakeServer(poisoned) as server, connect(server, retries=2) as sampler:
            replies = sampler.chat(ASK, Settings(n=2))
            assert [r[0].is_error for r in replies] == [False, False, True, False, False, False]
            assert [c.finish_reason for c in replies[2]] == ["error", "error"]
            assert replies[2][0].error and "\n" not in replies[2][0].error
            assert (sampler.usage.retries, sampler.usage.errors) == (2, 2)

    def test_a_timeout_is_tried_again(self):
        with FakeServer(lambda body, number: Late(0.6) if number == 0 else reply(body)) as server:
            with connect(server, timeout_s=0.2) as sampler:
                assert not sampler.chat(ASK[:1])[0][0].is_error
                assert sampler.usage.retries == 1

    def test_a_timeout_that_stays_says_how_long_it_waited(self):
        with FakeServer(lambda body, number: Late(0.5)) as server:
            with connect(server, timeout_s=0.1, retries=1) as sampler:
                assert sampler.chat(ASK[:1])[0][0].error == "no answer within 0.1 s"

    def test_an_unusable_choice_is_asked_for_again_with_its_own_seed(self):
        """Choice 1 of 3 is null once: 0 is kept, and 1 and 2 come from a second request."""

        def holed(body, number):
            data = reply(body)
            if number == 0:
                data["choices"][1]["message"]["content"] = None
            return data

        with FakeServer(holed) as server, connect(server) as sampler:
            replies = sampler.chat(ASK[:1], Settings(n=3))
        assert [(body["n"], body["seed"] - server.bodies[0]["seed"]) for body in server.bodies] == [
            (3, 0),
            (2, 1),
        ]
        assert [int(text.split(":")[1]) - server.bodies[0]["seed"] for text in texts(replies)[0]] == [0, 1, 2]

    def test_what_a_conversation_had_before_the_server_died_is_kept(self):
        def dying(body, number):
            return reply(body | {"n": 1}) if number == 0 else (503, {})

        with FakeServer(dying) as server, connect(server, retries=1) as sampler:
            (completions,) = sampler.chat(ASK[:1], Settings(n=3))
        assert [c.is_error for c in completions] == [False, True, True]

    def test_a_refused_conversation_is_an_error_of_its_own_without_retries(self):
        def picky(body, number):
            is_bad = body["messages"][-1]["content"] == "q1"
            return (400, {"error": {"message": "no such role"}}) if is_bad else reply(body)

        with FakeServer(picky) as server, connect(server, max_parallel=1) as sampler:
            replies = sampler.chat(ASK)
            assert [r[0].is_error for r in replies] == [False, True, False, False, False, False]
            assert "no such role" in replies[1][0].error
            assert sampler.usage.retries == 0
            assert replies[2][0].token_ids == (11, 12)  # extras were not to blame, and are still asked for

    def test_waits_double_with_jitter_and_heed_the_server(self, monkeypatch):
        waits = []

        class Event:
            def wait(self, seconds):
                waits.append(seconds)
                return False

            def set(self):
                pass

        with FakeServer(lambda body, number: (500, {})) as server, connect(server, retries=4) as sampler:
            monkeypatch.setattr(server_client, "FIRST_WAIT_S", 1.0)
            sampler._client._closed = Event()
            sampler.chat(ASK[:1])
        assert len(waits) == 4
        assert all(0.5 * 2**i <= wait <= 1.5 * 2**i for i, wait in enumerate(waits))

    def test_closing_ends_the_waiting(self, monkeypatch):
        first_wait_s = 240.0  # seconds: longer than the test may take, had closing not ended it
        monkeypatch.setattr(server_client, "FIRST_WAIT_S", first_wait_s)
        with FakeServer(lambda body, number: (500, {})) as server:
            sampler = connect(server)
            future = sampler._pool.submit(sampler.chat, ASK[:1])
            while not server.bodies:
                time.sleep(0.01)
            sampler.close()
            assert future.result(timeout=first_wait_s / 4)[0][0].is_error


def scored(body, names):
    entries = [{"token": name, "logprob": value} for name, value in names.items()]
    content = [{"token": "z", "logprob": -9.0, "top_logprobs": entries}]
    choice = {
        "index": 0,
        "message": {"content": "z"},
        "finish_reason": "length",
        "logprobs": {"content": content},
    }
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}


class TestNextTokenLogprobs:
    def test_a_server_that_scores_ids_is_asked_for_exactly_these(self):
        def answer(body, number):
            return scored(body, {f"token_id:{i}": -i / 10 for i in body["logprob_token_ids"]})

        ids = {"yes": 7, "no": 8}
        with FakeServer(answer, tokenize=lambda body: {"tokens": [ids[body["prompt"]]]}) as server:
            with connect(server) as sampler:
                assert sampler.next_token_logprobs(ASK[:2], ["no", "yes", "no"]) == [[-0.8, -0.7, -0.8]] * 2
                assert sampler.usage.prompt_tokens == 10
        assert [body["max_tokens"] for body in server.bodies] == [1, 1]

    def test_a_string_of_several_tokens_is_refused(self):
        with FakeServer(tokenize=lambda body: {"tokens": [1, 2]}) as server, connect(server) as sampler:
            with pytest.raises(UserError, match="'yes' is 2 tokens"):
                sampler.next_token_logprobs(ASK, ["yes"])

    @pytest.mark.parametrize("tokenize", [None, lambda body: {"tokens": [7]}])
    def test_another_server_is_read_from_its_likeliest_tokens(self, tokenize):
        def answer(body, number):
            return scored(body, {"yes": -0.1, "no": -2.5} if body.get("top_logprobs") == 20 else {})

        with FakeServer(answer, tokenize=tokenize) as server, connect(server) as sampler:
            assert sampler.next_token_logprobs(ASK[:2], ["no", "yes"]) == [[-2.5, -0.1]] * 2

    def test_a_token_that_is_not_among_the_likeliest_is_an_error_that_says_so(self):
        with (
            FakeServer(lambda body, number: scored(body, {"yes": -0.1})) as server,
            connect(server) as sampler,
        ):
            with pytest.raises(EngineError, match="only its 20 likeliest tokens, and 'no' is not among them"):
                sampler.next_token_logprobs(ASK[:1], ["yes", "no"])

    def test_a_server_without_logprobs_is_an_error_that_says_so(self):
        refusal = 400, {"error": {"message": "logprobs are not supported"}}
        with FakeServer(lambda body, number: refusal) as server, connect(server) as sampler:
            with pytest.raises(EngineError, match="conversation 0 .*logprobs are not supported"):
                sampler.next_token_logprobs(ASK[:1], ["yes"])

    def test_a_fault_that_passes_is_tried_again(self):
        def answer(body, number):
            return scored(body, {"yes": -0.1}) if number else {"choices": [{}]}

        with FakeServer(answer) as server, connect(server) as sampler:
            assert sampler.next_token_logprobs(ASK[:1], ["yes"]) == [[-0.1]]
            assert sampler.usage.retries == 1


def test_a_picture_goes_to_a_server_inside_its_address():
    import base64
    import io

    from PIL import Image

    picture = Image.new("RGB", (3, 2), "red")
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "what?"}]
    with FakeServer() as server, connect(server) as sampler:
        sampler.chat([[{"role": "user", "content": parts}]], Settings(max_tokens=3))
    (sent,) = server.bodies[0]["messages"]
    head, data = sent["content"][0]["image_url"]["url"].split(",")
    assert head == "data:image/png;base64" and sent["content"][1] == parts[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()
