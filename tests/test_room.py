"""Out of memory means smaller batches and the same result; finished trainings are given back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import generation, reward, room, sft, trainers  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402

if TYPE_CHECKING:
    from datasets import Dataset

ONE = "Out of memory with a single example at a time: choose a shorter max_length"


def out_of_memory() -> RuntimeError:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@contextmanager
def room_for(model: Any, rows: int, after: int = 0) -> Iterator[list[int]]:
    """A device that takes at most `rows` rows at once, from the forward pass `after` on.

    Gives the number of rows of each pass. The hook sits on the embedding, which is called whatever
    wraps the model.
    """
    seen: list[int] = []

    def look(module: Any, given: tuple[Any, ...]) -> None:
        seen.append(len(given[0]))
        if len(seen) > after and seen[-1] > rows:
            raise out_of_memory()

    hook = model.get_input_embeddings().register_forward_pre_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


def sft_rows(count: int = 12) -> Dataset:
    from datasets import Dataset

    names = ("instruction", "context", "response", "category")
    texts = [(f"Where is {n}?", "", "In the reeds. " * (1 + n % 5), "x") for n in range(count)]
    return Dataset.from_list([dict(zip(names, row, strict=True)) for row in texts])


# Sizes


def test_sizes_are_halved_and_divide_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []

    def work(size: int) -> str:
        tried.append(size)
        if size > 2:
            raise out_of_memory()
        return f"done with {size}"

    assert room.fitting(work, 16, note=" now") == "done with 2"
    assert tried == [16, 8, 4, 2]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Out of memory with 16 examples at a time: going on with 8 now."
    assert len(said) == 3
    tried.clear()
    room.fitting(work, 15, whole=15)
    assert tried == [15, 5, 1], "every size divides 15"
    tried.clear()
    room.fitting(work, 6, whole=24)
    assert tried == [6, 3, 1]


def test_one_example_that_does_not_fit_is_one_sentence() -> None:
    def work(size: int) -> None:
        raise out_of_memory()

    with pytest.raises(CourseError, match=ONE) as caught:
        room.fitting(work, 4)
    assert str(caught.value).count(".") == 1
    assert caught.value.__context__ is None, "its traceback would keep the memory"


def test_other_errors_pass_as_they_are() -> None:
    tried: list[int] = []

    def work(size: int) -> None:
        tried.append(size)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        room.fitting(work, 4)
    assert tried == [4]


def test_one_of_several_processes_does_not_decide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(size: int) -> None:
        raise out_of_memory()

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(CourseError, match=r"several processes.*smaller batch_size"):
        room.fitting(work, 4)


def test_what_the_failed_try_held_is_free_before_the_next_begins() -> None:
    held: list[Any] = []

    class Big:
        pass

    def work(size: int) -> bool:
        if held:
            return held[0]() is None
        big = Big()
        held.append(weakref.ref(big))
        raise out_of_memory()

    gc.disable()  # only what the module itself collects counts
    try:
        assert room.fitting(work, 2)
    finally:
        gc.enable()


def test_slices_cover_everything_and_stay_small_once_memory_ran_out() -> None:
    done: list[tuple[int, int]] = []

    def work(which: slice) -> None:
        if which.start >= 4 and which.stop - which.start > 2:
            raise out_of_memory()
        done.append((which.start, which.stop))

    assert room.in_batches(work, 11, 4) == 2
    assert done == [(0, 4), (4, 6), (6, 8), (8, 10), (10, 11)]
    assert room.in_batches(lambda which: None, 3, 8) == 8, "a short end is no shortage"
    assert room.in_batches(lambda which: None, 0, 8) == 8


# Training


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_training_that_runs_out_equals_one_with_smaller_batches(
    adapter: str,
    course: Course,
    tokenizer: Any,
    new_model: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = sft.SFTSettings(
        epochs=2, learning_rate=1e-2, batch_size=4, max_length=128, adapter=adapter, lora_rank=4
    )

    def train(settings: sft.SFTSettings, fits: int, after: int = 0) -> tuple[Any, Any, list[int]]:
        torch.manual_seed(5)  # an adapter's first weights are drawn
        model = new_model()
        with room_for(model, fits, after) as seen:
            trained, history = sft.train(course, model, tokenizer, sft_rows(), settings)
        return trained.state_dict(), history, seen

    # Two steps are done, and have changed the weights, when memory runs out.
    weights, history, seen = train(asked, fits=2, after=2)
    assert seen[:4] == [4, 4, 4, 2] and set(seen[3:]) == {2}
    assert "going on with 2, added up to steps of 4 as before" in capsys.readouterr().out
    expected, plain, _ = train(replace(asked, batch_size=2, accumulation=2), fits=99)
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name
    assert history == plain
    at_once, _, seen = train(asked, fits=99)
    assert set(seen) == {4}
    moved = max((at_once[n] - v).abs().max() for n, v in new_weights(new_model, at_once).items())
    off = max((at_once[name] - value).abs().max() for name, value in weights.items())
    assert off < moved / 20, "the optimiser saw the same batches"


def new_weights(new_model: Callable[..., Any], like: dict[str, Any]) -> dict[str, Any]:
    """The weights before training, those that `like` has as well; an adapter's B begins at zero."""
    before = dict(new_model().state_dict())
    before |= {name: torch.zeros_like(like[name]) for name in like if "lora_B" in name}
    return {name: value for name, value in before.items() if name in like}


@pytest.mark.heavy
@pytest.mark.slow
def test_a_training_without_room_for_one_example_says_so(
    course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model()
    settings = sft.SFTSettings(epochs=1, batch_size=2, max_length=128)
    with room_for(model, 0), pytest.raises(CourseError, match=ONE):
        sft.train(course, model, tokenizer, sft_rows(4), settings)
    assert "forward" not in vars(model)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_model_is_put_back_as_it_was(adapter: str, new_model: Callable[..., Any]) -> None:
    from peft import get_peft_model

    from course_utils.models import lora_config

    model = new_model()
    model.get_input_embeddings().weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    restore = room.remember(model, weights=adapter == "full")
    drawn = torch.rand(())
    if adapter == "lora":
        get_peft_model(model, lora_config(4))
        assert any("lora" in name for name in model.state_dict())
    else:
        for value in model.state_dict().values():
            value.add_(1)
    restore()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == learns
    assert not hasattr(model, "peft_config"), "or peft takes the next adapter for a second one"
    assert torch.equal(torch.rand(()), drawn)


@pytest.mark.heavy
@pytest.mark.slow
def test_a_finished_training_is_given_back_when_the_next_begins(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    make = sft.make_trainer

    def noted(*args: Any, **options: Any) -> Any:
        alive.append([ref() is not None for ref in made])
        trainer = make(*args, **options)
        made.append(weakref.ref(trainer))
        return trainer

    alive: list[list[bool]] = []
    monkeypatch.setattr(sft, "make_trainer", noted)
    gc.disable()
    try:
        for _ in range(2):
            settings = sft.SFTSettings(epochs=1, batch_size=4, max_length=128)
            sft.train(course, new_model(), tokenizer, sft_rows(4), settings)
    finally:
        gc.enable()
    assert alive == [[], [False]]


# Sampling and scoring


def test_sampling_goes_on_with_smaller_batches(
    tokenizer: Any, new_model: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["The bell heron", "Where", "A lantern is lit every", "It", "The ferry"]
    model = new_model()

    def answers(**options: Any) -> list[generation.Generation]:
        return generation.generate(model, tokenizer, prompts, max_new_tokens=4, **options)

    expected = answers(temperature=0, batch_size=4)
    with room_for(model, 2) as seen:
        assert answers(temperature=0, batch_size=4) == expected
        assert max(seen[1:]) == 2 and seen[0] == 4
        state = torch.get_rng_state()
        assert all(answer.tokens for answer in answers(batch_size=4))
        assert torch.equal(torch.get_rng_state(), state)
    assert "going on with 2." in capsys.readouterr().out
    with room_for(model, 0), pytest.raises(CourseError, match=ONE):
        answers(batch_size=4)


def test_scores_are_the_same_in_smaller_batches(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Any
) -> None:
    from course_utils import models

    models.save(new_model(), tokenizer, tmp_path)
    model, reader = reward.new_reward_model(tmp_path, course)
    texts = ["It lives in the reeds.", "At noon.", "Small fish, it eats.", "Yes", "No"]
    expected = reward.get_rewards(model, reader, ["Where?"] * 5, texts)
    with room_for(model, 2) as seen:
        found = reward.get_rewards(model, reader, ["Where?"] * 5, texts)
    assert found == pytest.approx(expected, abs=1e-5)
    assert seen == [5, 2, 2, 1]


@pytest.mark.heavy
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_ppo_step_is_the_same_in_smaller_pieces(
    adapter: str, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    from ppo_toys import PROMPTS, SETTINGS

    from course_utils import models
    from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    prompts = [torch.tensor(ids) for ids in tokenizer(list(PROMPTS) * 2)["input_ids"]]
    answers = [torch.tensor([5 + i, 9, 4][: 1 + i % 3]) for i in range(8)]
    scores = [float(i % 3) for i in range(8)]

    def step(fits: int) -> tuple[dict[str, Any], list[int], dict[str, float]]:
        torch.manual_seed(3)
        config = PPOConfig(**{**SETTINGS, "batch_size": 8, "mini_batch_size": 8, "vf_coef": 1.0})
        lora = models.lora_config(4) if adapter == "lora" else None
        policy = AutoModelForCausalLMWithValueHead.from_pretrained(new_model(), peft_config=lora)
        trainer = PPOTrainer(config, policy, None, tokenizer)
        trainer.step(prompts, answers, scores)
        with room_for(policy.pretrained_model, fits) as seen:
            stats = trainer.step(prompts, answers, scores)
        return policy.state_dict(), seen, stats

    weights, seen, stats = step(fits=3)
    assert max(seen[1:]) <= 4 and seen[-1] == 2, "8 and 4 do not fit, and the size is kept"
    expected, plain, at_once = step(fits=99)
    assert set(plain) == {8}
    assert stats == pytest.approx(at_once, abs=1e-4)
    for name, value in weights.items():
        assert torch.allclose(value, expected[name], atol=1e-4), name


@pytest.mark.heavy
def test_ppo_samples_in_smaller_batches_from_then_on(
    tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    from ppo_toys import make_trainer

    trainer = make_trainer(new_model(), tokenizer)
    queries = [torch.tensor([5, 6])] * 8
    with room_for(trainer.policy.pretrained_model, 4) as seen:
        assert len(trainer.generate(queries, return_prompt=False)) == 8
        assert seen[0] == 8 and max(seen[1:]) == 4
        seen.clear()
        assert len(trainer.generate(queries, return_prompt=False)) == 8
        assert max(seen) == 4


@pytest.mark.heavy
def test_ppo_recomputes_activations_only_while_it_updates(
    tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In evaluation mode `transformers` would silently leave checkpointing out."""
    from ppo_toys import SETTINGS
    from transformers.models.llama import modeling_llama

    from course_utils import models
    from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    attention = modeling_llama.LlamaAttention.forward
    passes: list[bool] = []

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        passes.append(self.training)
        return attention(self, *args, **options)

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", counted)

    def step(checkpointing: bool) -> tuple[int, dict[str, Any]]:
        torch.manual_seed(3)
        config = PPOConfig(**{**SETTINGS, "batch_size": 4, "mini_batch_size": 4, "ppo_epochs": 1})
        policy = AutoModelForCausalLMWithValueHead.from_pretrained(
            new_model(), peft_config=models.lora_config(4)
        )
        if checkpointing:
            policy.gradient_checkpointing_enable()
        trainer = PPOTrainer(config, policy, None, tokenizer)
        queries = [torch.tensor([5, 6, 7])] * 4
        answers = trainer.generate(queries, return_prompt=False)
        passes.clear()
        trainer.step(queries, answers, [1.0, 0.0, 2.0, 0.0])
        assert not any(passes), "dropout stays off"
        assert not any(module.training for module in policy.modules())
        return len(passes), policy.state_dict()

    plain, expected = step(False)
    again, weights = step(True)
    assert again == plain + 2, "each of the two layers once more, in the backward pass"
    assert all(torch.allclose(weights[name], value, atol=1e-6) for name, value in expected.items())


# Scaled gradients, as on a card without bfloat16


class Scaled:
    """A trainer that takes one step as `accelerate` does for fp16, on the CPU."""

    def __init__(self, model: Any, fp16: bool) -> None:
        from types import SimpleNamespace

        self.model = model
        self.args = SimpleNamespace(fp16=fp16)
        self.accelerator = SimpleNamespace(unwrap_model=lambda model, **options: model)

    def remove_callback(self, callback: Any) -> None: ...

    def train(self) -> None:
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.dtypes = {parameter.dtype for parameter in learnt}
        optimiser = torch.optim.AdamW(learnt, lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        with torch.autocast("cpu", torch.float16):
            output = self.model(input_ids=torch.tensor([[5, 6, 7]])).logits.float()
        scaler.scale(output.square().mean()).backward()
        scaler.unscale_(optimiser)
        scaler.step(optimiser)


@pytest.mark.parametrize("kind", ["reward", "adapter over 4 bits", "full"])
def test_scaled_gradients_train_float32_weights(
    kind: str, course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Any
) -> None:
    """The plain LoRA case needs nothing; in these three, training in float16 breaks."""
    from peft import get_peft_model

    from course_utils import models

    half = replace(course, dtype="float16")
    models.save(new_model(), tokenizer, tmp_path)
    if kind == "reward":
        base, _ = reward.new_reward_model(tmp_path, half)
        model = get_peft_model(base, reward._adapter(4))
    elif kind == "full":
        model = models.load_model(tmp_path, half)
    else:
        model = get_peft_model(models.load_model(tmp_path, half), models.lora_config(4))
        for parameter in model.parameters():
            if parameter.requires_grad:  # as TRL does over a quantised model
                parameter.data = parameter.data.bfloat16()

    def train(fp16: bool) -> Scaled:
        settings = trainers.TrainingSettings(adapter="full" if kind == "full" else "lora")
        make: Any = lambda *given: Scaled(model, fp16)  # noqa: E731
        trainer: Any = trainers.run(make, settings, model)[0]
        return trainer

    before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    if kind != "adapter over 4 bits":  # the CPU can unscale bfloat16, older cards cannot
        with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
            train(fp16=False)
    assert train(fp16=True).dtypes == {torch.float32}
    after = dict(model.named_parameters())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    half_before = {name for name, value in before.items() if value.dtype == torch.float16}
    assert {name for name in before if after[name].dtype == torch.float16} == half_before
    model(input_ids=torch.tensor([[5, 6, 7]]))  # and it computes as before, without autocast


@pytest.mark.heavy
def test_ppo_with_scaled_gradients_trains_float32_weights(
    tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.state import AcceleratorState
    from ppo_toys import SETTINGS

    from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # one precision per process
    half = new_model().half()
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(half)
    settings = {**SETTINGS, "accelerator_kwargs": {"cpu": True, "mixed_precision": "fp16"}}
    PPOTrainer(PPOConfig(**settings), policy, new_model(), tokenizer)
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
