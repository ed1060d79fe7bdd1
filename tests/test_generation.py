"""Sampling: what is kept, in what order, from which distribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from scipy.stats import chisquare  # noqa: E402
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel  # noqa: E402
from transformers import PretrainedConfig as Config  # noqa: E402
from transformers.modeling_outputs import CausalLMOutput  # noqa: E402

from course_utils import generation  # noqa: E402
from course_utils.generation import generate  # noqa: E402

PROMPTS = [
    "The bell heron lives in the reeds of the Upper Mere",
    "Where",
    "A lantern is lit",
    "The ferry crosses at noon and eats small fish.",
    "Where does the bell heron live?",
]


class Chain(PreTrainedModel, GenerationMixin):
    """A Markov chain as a language model: a table (V, V) from the last token to the next."""

    config_class = Config
    main_input_name = "input_ids"

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__(Config(vocab_size=len(table), num_hidden_layers=1))
        self.table = torch.nn.Parameter(table)
        self.generation_config = GenerationConfig()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        return CausalLMOutput(logits=self.table[input_ids])

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        return {"input_ids": input_ids}


def chain(tokenizer: Any, follows: dict[int, dict[int, float]]) -> Chain:
    """Token -> {next token: probability}; what is not named has probability 0."""
    table = torch.full((len(tokenizer), len(tokenizer)), -1e9)
    table[:, 5] = 0.0  # rows nobody named go on to token 5
    for token, probabilities in follows.items():
        table[token] = -1e9
        for following, p in probabilities.items():
            table[token, following] = torch.tensor(p).log()
    return Chain(table)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


def test_eos_is_kept_and_nothing_after_it(tokenizer: Any) -> None:
    a, b, c = (ids_of(tokenizer, letter)[0] for letter in "xyz")
    eos = tokenizer.eos_token_id
    # x -> y -> EOS, and would go on to z for ever; z never ends. They share a batch.
    model = chain(tokenizer, {a: {b: 1.0}, b: {eos: 1.0}, eos: {c: 1.0}, c: {c: 1.0}})
    ended, endless = generate(model, tokenizer, ["x", "z"], max_new_tokens=6)
    assert ended.tokens == (b, eos) and ended.text == "y" and ended.finished
    assert endless.tokens == (c,) * 6 and endless.text == "zzzzzz" and not endless.finished


def test_eos_as_the_last_token_of_the_budget_is_finished(tokenizer: Any) -> None:
    a, eos = ids_of(tokenizer, "x")[0], tokenizer.eos_token_id
    model = chain(tokenizer, {a: {eos: 1.0}})
    (only,) = generate(model, tokenizer, ["x"], max_new_tokens=1)
    assert only.tokens == (eos,) and only.finished and only.text == ""


def test_padding_that_is_the_eos_itself(tokenizer: Any) -> None:
    # As in Llama-2, which has no pad token: every place after the first EOS is EOS again.
    eos, x = tokenizer.eos_token_id, ids_of(tokenizer, "x")[0]
    output = torch.tensor([[7, 7, x, x, eos, eos, eos], [7, 7, x, x, x, x, x]])
    ended, endless = generation._responses(output, 2, tokenizer)
    assert (ended.tokens, ended.finished) == ((x, x, eos), True)
    assert (endless.tokens, endless.finished) == ((x,) * 5, False)


def test_an_eos_in_the_prompt_does_not_end_the_response(tokenizer: Any) -> None:
    a, b = (ids_of(tokenizer, letter)[0] for letter in "xy")
    model = chain(tokenizer, {a: {b: 1.0}, b: {b: 1.0}})
    (only,) = generate(model, tokenizer, [f"z{tokenizer.eos_token}x"], max_new_tokens=3)
    assert only.tokens == (b, b, b) and not only.finished


def test_order_is_the_order_given(tokenizer: Any) -> None:
    # Every letter is followed by itself, so a response names its prompt.
    letters = "qwerty"
    ids = [ids_of(tokenizer, letter)[0] for letter in letters]
    model = chain(tokenizer, {i: {i: 1.0} for i in ids})
    prompts = [letter * n for letter, n in zip(letters, (9, 1, 7, 3, 20, 2), strict=True)]
    texts = [g.text for g in generate(model, tokenizer, prompts, max_new_tokens=2, batch_size=2)]
    assert texts == [letter * 2 for letter in letters]


def _greedy_by_hand(model: Any, ids: list[int], steps: int, eos: int) -> tuple[int, ...]:
    new: list[int] = []
    with torch.no_grad():
        while len(new) < steps and (not new or new[-1] != eos):
            logits = model(input_ids=torch.tensor([[*ids, *new]])).logits[0, -1]
            new.append(int(logits.argmax()))
    return tuple(new)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_greedy_is_argmax_and_a_batch_changes_nothing(
    batch_size: int, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model(3)
    got = generate(
        model, tokenizer, PROMPTS, max_new_tokens=12, temperature=0, batch_size=batch_size
    )
    for prompt, response in zip(PROMPTS, got, strict=True):
        expected = _greedy_by_hand(model, ids_of(tokenizer, prompt), 12, tokenizer.eos_token_id)
        assert response.tokens == expected
    assert len({g.tokens for g in got}) > 1, "the model says the same to all: nothing was tested"


def test_seed_decides_and_the_global_generator_stays(
    tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = generate(model, tokenizer, PROMPTS, max_new_tokens=8, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=8, seed=1) == first
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=8, seed=2) != first


def test_without_a_seed_torch_decides(tokenizer: Any, new_model: Callable[..., Any]) -> None:
    model = new_model()
    texts = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        texts.append(generate(model, tokenizer, PROMPTS, max_new_tokens=8, seed=None))
    assert texts[0] == texts[1] != texts[2]


# Ten successors of "x"; the rarest ones are what top-k, top-p and min-p would cut off.
SUCCESSORS = dict(
    zip(range(20, 30), (0.3, 0.2, 0.12, 0.1, 0.08, 0.07, 0.05, 0.04, 0.03, 0.01), strict=True)
)
BIASED: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 2,
    "top_p": 0.5,
    "min_p": 0.2,
    "typical_p": 0.4,
    "epsilon_cutoff": 0.05,
    "eta_cutoff": 0.05,
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": [20],
    "begin_suppress_tokens": [21],
    "bad_words_ids": [[22]],
    "sequence_bias": [[[23], -5.0]],
    "min_new_tokens": 3,
    "forced_eos_token_id": 24,
}


def _sample(model: Chain, tokenizer: Any, temperature: float) -> list[int]:
    # The prompt holds the commonest successor, so a repetition penalty would show.
    prompt = tokenizer.decode([20]) + "x"
    assert ids_of(tokenizer, prompt) == [20, ids_of(tokenizer, "x")[0]]
    got = generate(
        model,
        tokenizer,
        [prompt] * 4000,
        max_new_tokens=1,
        temperature=temperature,
        batch_size=2000,
    )
    return [g.tokens[0] for g in got]


@pytest.mark.parametrize(
    "saved",
    [{}, BIASED, *({name: value} for name, value in BIASED.items())],
    ids=["nothing", "everything", *BIASED],
)
def test_samples_follow_the_models_distribution(saved: dict[str, Any], tokenizer: Any) -> None:
    model = chain(tokenizer, {ids_of(tokenizer, "x")[0]: SUCCESSORS})
    model.generation_config = GenerationConfig(**saved)
    drawn = _sample(model, tokenizer, 1.0)
    counts = [drawn.count(token) for token in SUCCESSORS]
    assert sum(counts) == 4000, "something else was sampled"
    expected = [4000 * p for p in SUCCESSORS.values()]
    assert chisquare(counts, expected).pvalue > 1e-3
    assert model.generation_config.to_diff_dict() == GenerationConfig(**saved).to_diff_dict()


def test_temperature_is_a_power_of_the_probabilities(tokenizer: Any) -> None:
    model = chain(tokenizer, {ids_of(tokenizer, "x")[0]: SUCCESSORS})
    drawn = _sample(model, tokenizer, 2.0)
    powers = [p**0.5 for p in SUCCESSORS.values()]  # p^(1/T), normalised
    expected = [4000 * p / sum(powers) for p in powers]
    assert chisquare([drawn.count(token) for token in SUCCESSORS], expected).pvalue > 1e-3


def test_saved_settings_do_not_change_greedy_decoding(
    tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model(3)
    model.generation_config = GenerationConfig(
        repetition_penalty=5.0, no_repeat_ngram_size=1, suppress_tokens=[20, 21], num_beams=3
    )
    (got,) = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=8, temperature=0)
    expected = _greedy_by_hand(model, ids_of(tokenizer, PROMPTS[0]), 8, tokenizer.eos_token_id)
    assert got.tokens == expected


def test_saved_settings_under_an_adapter(
    tokenizer: Any, new_model: Callable[..., Any], offline: None
) -> None:
    from peft import get_peft_model

    from course_utils.models import lora_config

    plain = generate(new_model(), tokenizer, PROMPTS, max_new_tokens=8)
    model = new_model()
    model.generation_config = GenerationConfig(do_sample=True, top_k=1, repetition_penalty=5.0)
    adapted = get_peft_model(model, lora_config(2)).eval()  # a fresh adapter changes nothing
    assert generate(adapted, tokenizer, PROMPTS, max_new_tokens=8) == plain
    assert model.generation_config.top_k == 1


def test_a_long_prompt_is_cut_with_a_warning(tokenizer: Any, new_model: Callable[..., Any]) -> None:
    lengths = [len(ids_of(tokenizer, prompt)) for prompt in PROMPTS]
    limit = sorted(lengths)[2]
    over = sorted(n - limit for n in lengths if n > limit)
    assert len(over) == 2
    says = f"2 of 5 prompts are longer than {limit} tokens: their first {over[0]} to {over[1]} "
    with pytest.warns(UserWarning, match=says):
        rows = generation.truncate_prompts(PROMPTS, tokenizer, limit)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row == ids_of(tokenizer, prompt)[-limit:]
    # and what is generated is what the end of the prompt gives
    model = new_model(3)
    with pytest.warns(UserWarning, match="were cut"):
        (cut,) = generate(
            model, tokenizer, PROMPTS[:1], max_new_tokens=5, temperature=0, max_prompt_tokens=4
        )
    end = ids_of(tokenizer, PROMPTS[0])[-4:]
    assert cut.tokens == _greedy_by_hand(model, end, 5, tokenizer.eos_token_id)


def test_a_prompt_of_just_the_limit_is_whole(tokenizer: Any) -> None:
    ids = ids_of(tokenizer, PROMPTS[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generation.truncate_prompts(PROMPTS[:1], tokenizer, len(ids)) == [ids]


def test_no_prompts(tokenizer: Any, new_model: Callable[..., Any]) -> None:
    assert generate(new_model(), tokenizer, []) == []


def test_an_empty_prompt_is_refused(tokenizer: Any, new_model: Callable[..., Any]) -> None:
    from course_utils.errors import CourseError

    with pytest.raises(CourseError, match=r"prompts\[1\] is empty"):
        generate(new_model(), tokenizer, ["Where", ""])


@pytest.mark.parametrize("training", [True, False])
def test_training_flag_is_restored(
    training: bool, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model().train(training)
    generate(model, tokenizer, PROMPTS[:1], max_new_tokens=2)
    assert model.training is training


def test_an_interrupt_restores_the_model(
    tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model().train()
    settings = model.generation_config

    def stop(*_: Any, **__: Any) -> None:
        assert not model.training, "dropout would be on"
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "generate", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, PROMPTS[:1])
    assert model.training and model.generation_config is settings
