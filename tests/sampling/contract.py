"""What every engine owes, as one class of tests; a module for each engine subclasses it.

The reference is plain transformers on the same folder, so that "log-probability" means one thing. A
sampled text is compared with another only within one engine: float rounding differs between engines.
"""

import pytest
import torch

from llmctl.errors import EngineError, UserError
from llmctl.models.tiny import make_tiny_model
from llmctl.sampling import Completion, Sampler, ScoringSampler, Settings, TokenSampler

CONTEXT = 256
STOP_ID = 2  # <|im_end|> of the tiny tokenizer


def user(text):
    return [{"role": "user", "content": text}]


CONVERSATIONS = [
    user("one"),
    user("a longer question, so that lengths differ"),
    [*user("one"), {"role": "assistant", "content": "no"}, *user("try again")],
]


def make_model(folder):
    """A tiny llama with heads of 32, the least that vLLM's CPU attention takes, and peaked logits."""
    return make_tiny_model(
        folder,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        max_position_embeddings=CONTEXT,
    )


def make_adapter(model_folder, folder, *, rank=8, seed=1):
    """A random LoRA adapter whose effect is large enough to see."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    config = LoraConfig(
        r=rank, lora_alpha=4 * rank, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    get_peft_model(base, config).save_pretrained(folder)
    return folder


class Reference:
    """Plain transformers, without a cache and without batches."""

    def __init__(self, folder, adapter=None):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        if adapter is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter).eval()

    def prompt(self, conversation):
        text = self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def logprobs(self, ids):
        """Log-probabilities of the next token after every prefix: (T, V)."""
        return torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), -1)

    def logprob_sum(self, conversation, token_ids):
        prompt = self.prompt(conversation)
        rows = self.logprobs([*prompt, *token_ids])[len(prompt) - 1 : -1]
        return float(rows.gather(1, torch.tensor(token_ids)[:, None]).sum())

    def greedy(self, conversation, max_tokens):
        ids = self.prompt(conversation)
        start = len(ids)
        while len(ids) - start < max_tokens and (len(ids) == start or ids[-1] != STOP_ID):
            ids.append(int(self.logprobs(ids)[-1].argmax()))
        return tuple(ids[start:])

    def continuation(self, prompt, max_tokens):
        """Greedy ids that no end token ends."""
        ids = list(prompt)
        for _ in range(max_tokens):
            ids.append(int(self.logprobs(ids)[-1].argmax()))
        return ids[len(prompt) :]


class SamplerContract:
    """Subclasses give the class-scoped fixtures `sampler` and `reference`, both on `make_model`'s folder."""

    can_sample_n_greedily = True
    takes_token_ids = True

    @pytest.fixture(scope="class")
    def sampler(self):
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def reference(self, contract_model):
        return Reference(contract_model)

    @pytest.fixture(scope="class")
    def adapted(self, sampler, contract_adapter):
        """The sampler with the adapter on, for the length of a `with`."""
        raise NotImplementedError

    def test_it_is_a_sampler(self, sampler):
        assert isinstance(sampler, Sampler)
        assert sampler.info.context_length == CONTEXT

    def test_an_empty_list_gives_an_empty_list(self, sampler):
        assert sampler.chat([]) == []
        assert sampler.next_token_logprobs([], ["a"]) == []

    def test_replies_keep_the_order_of_the_conversations(self, sampler, reference):
        replies = sampler.chat(CONVERSATIONS, Settings(temperature=0, max_tokens=6))
        assert [reply[0].token_ids for reply in replies] == [reference.greedy(c, 6) for c in CONVERSATIONS]

    def test_every_conversation_gets_n_completions_that_differ(self, sampler):
        replies = sampler.chat(CONVERSATIONS, Settings(n=4, max_tokens=8))
        assert [len(reply) for reply in replies] == [4, 4, 4]
        assert all(isinstance(c, Completion) and not c.is_error for reply in replies for c in reply)
        assert all(len({c.token_ids for c in reply}) > 1 for reply in replies)

    def test_greedy_samples_are_all_the_greedy_reply(self, sampler, reference):
        (reply,) = sampler.chat(CONVERSATIONS[:1], Settings(n=3, temperature=0, max_tokens=6))
        assert [c.token_ids for c in reply] == [reference.greedy(CONVERSATIONS[0], 6)] * 3

    def test_the_same_seed_gives_the_same_samples_and_another_seed_others(self, sampler):
        first = sampler.chat(CONVERSATIONS, Settings(n=2, max_tokens=8, seed=7))
        again = sampler.chat(CONVERSATIONS, Settings(n=2, max_tokens=8, seed=7))
        other = sampler.chat(CONVERSATIONS, Settings(n=2, max_tokens=8, seed=8))
        assert ids_of(first) == ids_of(again)
        assert ids_of(first) != ids_of(other)

    def test_without_a_seed_every_call_differs(self, sampler):
        settings = Settings(n=2, max_tokens=8, seed=None)
        assert ids_of(sampler.chat(CONVERSATIONS, settings)) != ids_of(sampler.chat(CONVERSATIONS, settings))

    def test_another_order_or_a_cut_batch_gives_the_same_samples(self, sampler):
        settings = Settings(n=2, max_tokens=8, seed=3)
        whole = ids_of(sampler.chat(CONVERSATIONS, settings))
        turned = ids_of(sampler.chat(CONVERSATIONS[::-1], settings))
        parts = [ids_of(sampler.chat([conversation], settings))[0] for conversation in CONVERSATIONS]
        assert turned[::-1] == whole
        assert parts == whole

    def test_fewer_samples_are_the_first_of_more(self, sampler):
        two, four = (ids_of(sampler.chat(CONVERSATIONS[:1], Settings(n=n, max_tokens=8)))[0] for n in (2, 4))
        assert four[:2] == two

    def test_equal_conversations_in_a_call_get_samples_of_their_own(self, sampler):
        first, second = ids_of(sampler.chat(CONVERSATIONS[:1] * 2, Settings(n=2, max_tokens=8)))
        assert first != second

    def test_logprob_is_the_raw_models_sum_over_all_tokens_at_any_temperature(self, sampler, reference):
        for settings in (
            Settings(n=6, max_tokens=12, seed=1),
            Settings(n=2, max_tokens=12, temperature=0.5, top_p=0.6, seed=2),
        ):
            for conversation, reply in zip(CONVERSATIONS, sampler.chat(CONVERSATIONS, settings), strict=True):
                for completion in reply:
                    expected = reference.logprob_sum(conversation, completion.token_ids)
                    assert completion.logprob <= 0
                    assert completion.logprob == pytest.approx(expected, abs=2e-3)

    def test_a_reply_ends_at_the_stop_token_which_its_ids_hold(self, sampler):
        replies = sampler.chat([user(f"question {i}") for i in range(16)], Settings(n=4, max_tokens=32))
        stopped = [c for reply in replies for c in reply if c.finish_reason == "stop"]
        assert stopped
        assert all(c.token_ids[-1] == STOP_ID and STOP_ID not in c.token_ids[:-1] for c in stopped)
        assert all("<|im_end|>" not in c.text for c in stopped)

    def test_max_tokens_is_honoured_and_named(self, sampler):
        replies = sampler.chat(CONVERSATIONS, Settings(n=4, max_tokens=3, seed=5))
        for completion in (c for reply in replies for c in reply):
            assert len(completion.token_ids) <= 3
            if completion.token_ids[-1] != STOP_ID:
                assert (completion.finish_reason, len(completion.token_ids)) == ("length", 3)

    def test_a_stop_string_ends_the_reply_and_is_cut(self, sampler, reference):
        conversation, stop, expected = self.stop_case(reference)
        (reply,) = sampler.chat([conversation], Settings(temperature=0, max_tokens=12, stop=(stop,)))
        assert (reply[0].text, reply[0].finish_reason) == (expected, "stop")

    def stop_case(self, reference):
        """A conversation whose greedy reply holds an ASCII character, and the text before it."""
        for number in range(200):
            conversation = user(f"say {number}")
            text = reference.tokenizer.decode(reference.greedy(conversation, 12), skip_special_tokens=True)
            for place, letter in enumerate(text[:8]):
                if place and letter.isascii() and letter.isprintable() and letter not in text[:place]:
                    return conversation, letter, text[:place]
        raise RuntimeError("no greedy reply of the tiny model holds a printable character")

    def test_next_token_logprobs_are_the_log_softmax_of_the_prompt(self, sampler, reference):
        tokens = list("aZ0 yn")
        ids = [reference.tokenizer(t, add_special_tokens=False).input_ids[0] for t in tokens]
        found = sampler.next_token_logprobs(CONVERSATIONS, tokens)
        for conversation, row in zip(CONVERSATIONS, found, strict=True):
            expected = reference.logprobs(reference.prompt(conversation))[-1][ids]
            assert row == pytest.approx(expected.tolist(), abs=1e-3)

    def test_next_token_logprobs_tell_the_whole_vocabulary(self, sampler):
        """More tokens than an engine scores in one request, however unlikely they are."""
        printable = [chr(code) for code in range(33, 127)] + [chr(code) for code in range(1, 32)] + list(" ")
        tokens = [*printable, *printable[::-1]]
        row = sampler.next_token_logprobs(CONVERSATIONS[:1], tokens)[0]
        assert len(row) == 2 * len(printable)
        assert row[: len(printable)] == pytest.approx(row[: len(printable) - 1 : -1], abs=1e-4)
        assert sum(torch.tensor(row[: len(printable)]).exp().tolist()) < 1

    def test_a_string_of_several_tokens_is_refused(self, sampler):
        with pytest.raises(UserError, match="'yes' is 3 tokens.*exactly one"):
            sampler.next_token_logprobs(CONVERSATIONS[:1], ["a", "yes"])

    def test_a_prompt_longer_than_the_context_is_refused(self, sampler):
        with pytest.raises(UserError, match="context"):
            sampler.chat([*CONVERSATIONS, user("x" * CONTEXT)], Settings(max_tokens=4))

    def test_a_prompt_that_leaves_no_room_for_the_reply_is_refused(self, sampler):
        with pytest.raises(UserError, match="context"):
            sampler.chat([user("x" * 100)], Settings(max_tokens=CONTEXT - 50))

    def test_zero_samples_are_refused(self, sampler):
        with pytest.raises(UserError, match="n is 0"):
            sampler.chat(CONVERSATIONS, Settings(n=0))

    def test_a_malformed_conversation_is_refused_with_its_number(self, sampler):
        with pytest.raises(UserError, match="conversation 1"):
            sampler.chat([CONVERSATIONS[0], "hello"])

    def test_token_ids_are_continued_greedily_past_an_end_token(self, sampler, reference):
        prompts = [list(range(10 + i, 10 + i + length)) for i, length in enumerate((1, 7, 30, 2))]
        prompts += [next(p for i in range(259) if STOP_ID in reference.continuation(p := [i, 9], 4)[:3])]
        if not self.takes_token_ids:
            with pytest.raises(EngineError, match="asked by messages, not by token ids"):
                sampler.continue_ids(prompts, 4)
            return
        assert isinstance(sampler, TokenSampler)
        before = sampler.usage.snapshot()
        assert sampler.continue_ids(prompts, 4) == [reference.continuation(p, 4) for p in prompts]
        used = sampler.usage.since(before)
        assert (used.calls, used.prompt_tokens, used.completion_tokens) == (1, 42, 20)
        assert sampler.continue_ids([], 4) == []

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ([], "prompt 1 is empty"),
            ([5, 259], "prompt 1 holds token 259, but the vocabulary is 0 to 258"),
            ([5] * CONTEXT, f"prompt 1 has {CONTEXT} tokens.*the context is {CONTEXT}"),
        ],
    )
    def test_token_ids_that_can_not_be_continued_are_refused(self, sampler, prompt, message):
        if self.takes_token_ids:
            with pytest.raises(UserError, match=message):
                sampler.continue_ids([[5], prompt], 4)

    def test_scores_of_given_tokens_are_the_models(self, sampler, reference):
        if not isinstance(sampler, ScoringSampler):
            return
        prompts, wanted = [[40], [7, 8, 9, 10], [11, 12]], [[20, 21, 22], [23], [24, 25]]
        greedy = reference.continuation([5, 6], 3)
        found = sampler.continuation_logprobs([*prompts, [5, 6]], [*wanted, greedy])
        for prompt, ids, (logprobs, is_greedy) in zip(prompts, wanted, found, strict=False):
            rows = reference.logprobs([*prompt, *ids])[len(prompt) - 1 : -1]
            assert logprobs == pytest.approx(rows[range(len(ids)), ids].tolist(), abs=1e-3)
            assert is_greedy == (rows.argmax(-1).tolist() == ids)
        assert found[-1][1]
        with pytest.raises(UserError, match="prompt 0 is empty"):
            sampler.continuation_logprobs([[]], [[5]])
        with pytest.raises(UserError, match=f"the context is {CONTEXT}"):
            sampler.continuation_logprobs([[5] * CONTEXT], [[5, 6]])

    def test_usage_counts_calls_and_tokens(self, sampler, reference):
        before = sampler.usage.snapshot()
        replies = sampler.chat(CONVERSATIONS, Settings(n=2, max_tokens=5))
        used = sampler.usage.since(before)
        assert used.calls == 1
        assert used.prompt_tokens == sum(len(reference.prompt(c)) for c in CONVERSATIONS)
        assert used.completion_tokens == sum(len(c.token_ids) for reply in replies for c in reply)
        assert (used.retries, used.errors) == (0, 0)

    def test_an_adapter_changes_the_model_and_leaves_no_trace(
        self, sampler, adapted, reference, contract_model, contract_adapter
    ):
        tuned = Reference(contract_model, contract_adapter)
        settings = Settings(temperature=0, max_tokens=6)
        base = ids_of(sampler.chat(CONVERSATIONS, settings))
        with adapted(sampler) as other:
            with_adapter = ids_of(other.chat(CONVERSATIONS, settings))
            row = other.next_token_logprobs(CONVERSATIONS[:1], ["a", "b"])[0]
            continued = other.continue_ids([[40, 41, 42]], 5) if self.takes_token_ids else None
        assert with_adapter == [[tuned.greedy(c, 6)] for c in CONVERSATIONS]
        assert with_adapter != base
        assert continued in (None, [tuned.continuation([40, 41, 42], 5)])
        ids = [tuned.tokenizer(t, add_special_tokens=False).input_ids[0] for t in "ab"]
        assert row == pytest.approx(
            tuned.logprobs(tuned.prompt(CONVERSATIONS[0]))[-1][ids].tolist(), abs=1e-3
        )
        assert ids_of(sampler.chat(CONVERSATIONS, settings)) == base


def ids_of(replies):
    return [[completion.token_ids for completion in reply] for reply in replies]
