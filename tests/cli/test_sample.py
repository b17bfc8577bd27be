import io
import json

import pytest

from llmctl.sampling.types import Completion, SamplerInfo, Settings, Usage


class FakeSampler:
    def __init__(self, model, engine, adapter, options):
        self.info = SamplerInfo(model, engine, str(adapter) if adapter else None)
        self.opened_with = options
        self.usage = Usage()
        self.closed = 0
        self.error = None

    def chat(self, conversations, settings):
        self.asked, self.settings = conversations, settings
        self.usage.prompt_tokens = 10 * len(conversations)
        self.usage.completion_tokens = 5 * len(conversations) * settings.n
        return [[self.reply(asked, number) for number in range(settings.n)] for asked in conversations]

    def reply(self, asked, number):
        if self.error:
            return Completion("", finish_reason="error", error=self.error)
        return Completion(f"re: {asked[-1]['content']} ({number})", (1, 2, 3, 4, 5), -2.5)

    def close(self):
        self.closed += 1


@pytest.fixture
def sampler(monkeypatch):
    """What the command opened; its error can be set beforehand."""
    opened = []
    state = {"error": None}

    def open_sampler(model, *, engine="auto", adapter=None, **options):
        opened.append(FakeSampler(model, engine, adapter, options))
        opened[-1].error = state["error"]
        return opened[-1]

    monkeypatch.setattr("llmctl.sampling.open_sampler", open_sampler)
    monkeypatch.setattr("llmctl.sampling.open.choose_engine", lambda engine: ("transformers", "no GPU"))
    opened_state = type("Opened", (), {"all": opened, "state": state})
    return opened_state


def test_one_prompt_gives_its_reply_alone_on_stdout(llmctl, sampler):
    done = llmctl("sample", "Hello?")
    assert (done.code, done.out) == (0, "re: Hello? (0)\n")
    assert "10 prompt tokens, 5 new tokens in" in done.err and "tokens/s" in done.err
    assert "smollm2-135m on transformers (no GPU)" in done.err
    assert sampler.all[0].settings == Settings()
    assert sampler.all[0].closed == 1


def test_options_reach_the_engine(llmctl, sampler):
    done = llmctl(
        "sample", "a", "b", "--model", "m", "--engine", "vllm", "--adapter", "dir", "--system", "Be brief.",
        "--n", "2", "--temperature", "0.5", "--top-p", "0.9", "--max-tokens", "7", "--seed", "3",
    )  # fmt: skip
    opened = sampler.all[0]
    assert (opened.info.model, opened.info.engine, opened.info.adapter) == ("m", "vllm", "dir")
    assert opened.settings == Settings(n=2, temperature=0.5, top_p=0.9, max_tokens=7, seed=3)
    assert opened.asked[1] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "b"}]
    assert done.out.splitlines()[:4] == [
        "== prompt 1, reply 1",
        "re: a (0)",
        "== prompt 1, reply 2",
        "re: a (1)",
    ]


def test_a_base_url_means_a_server(llmctl, sampler):
    assert llmctl("sample", "a", "--base-url", "http://127.0.0.1:1/v1").code == 0
    assert sampler.all[0].info.engine == "server"
    assert sampler.all[0].opened_with == {"base_url": "http://127.0.0.1:1/v1"}
    done = llmctl("sample", "a", "--base-url", "http://127.0.0.1:1/v1", "--engine", "vllm")
    assert done.code == 2 and "--base-url is for engine server, but the engine is vllm" in done.err


def test_json_is_one_document_with_what_was_used(llmctl, sampler):
    done = llmctl("sample", "a", "--json", "--n", "2")
    document = json.loads(done.out)
    assert document["engine"] == "transformers" and document["engine_reason"] == "no GPU"
    assert document["settings"]["n"] == 2 and document["usage"]["completion_tokens"] == 10
    assert document["answers"][0]["conversation"] == [{"role": "user", "content": "a"}]
    assert document["answers"][0]["replies"][1] == {
        "text": "re: a (1)", "tokens": 5, "logprob": -2.5, "finish_reason": "stop", "error": None,
    }  # fmt: skip


def test_a_reply_that_failed_is_told_on_stderr_and_ends_with_1(llmctl, sampler):
    sampler.state["error"] = "timed out"
    done = llmctl("sample", "a")
    assert (done.code, done.out) == (1, "")
    assert "error: prompt 1, reply 1: timed out\n" in done.err
    assert sampler.all[0].closed == 1


def test_settings_out_of_range_are_refused_before_a_model_is_opened(llmctl, sampler):
    done = llmctl("sample", "a", "--top-p", "0")
    assert done.code == 2 and "top_p is 0.0" in done.err
    assert sampler.all == []


def test_prompts_from_a_text_file_one_a_line(llmctl, sampler, tmp_path):
    (tmp_path / "p.txt").write_text("first\r\n\nsecond é\u2028x\n", encoding="utf-8")
    llmctl("sample", "zero", "--file", str(tmp_path / "p.txt"))
    assert [asked[-1]["content"] for asked in sampler.all[0].asked] == ["zero", "first", "second é\u2028x"]


def test_conversations_from_a_jsonl_file(llmctl, sampler, tmp_path):
    whole = [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}]
    lines = [whole, {"messages": whole[1:]}, {"prompt": "b"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    llmctl("sample", "--file", str(tmp_path / "p.jsonl"), "--system", "Mine")
    mine = {"role": "system", "content": "Mine"}
    assert sampler.all[0].asked == [whole, [mine, whole[1]], [mine, {"role": "user", "content": "b"}]]


def test_prompts_from_stdin(llmctl, sampler, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    llmctl("sample", "--file", "-")
    assert len(sampler.all[0].asked) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is no conversation"),
        ('{"messages": [{"role": "user"}]}', "line 2 is no conversation"),
        ("3", "line 2 is no conversation"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(llmctl, sampler, tmp_path, line, message):
    (tmp_path / "p.jsonl").write_text('{"prompt": "fine"}\n' + line + "\n")
    done = llmctl("sample", "--file", str(tmp_path / "p.jsonl"))
    assert done.code == 2 and message in done.err and sampler.all == []


def test_no_prompt_and_no_such_file_are_mistakes(llmctl, sampler, tmp_path):
    assert "there is no prompt" in llmctl("sample").err
    done = llmctl("sample", "--file", str(tmp_path / "gone.txt"))
    assert done.code == 2 and "there is no such file" in done.err
