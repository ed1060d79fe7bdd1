"""Exports: only what passed the gate, whole or not at all, and the prompt a server builds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import models  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.deploy import exporting  # noqa: E402
from course_utils.deploy.exporting import (  # noqa: E402
    MANIFEST,
    export,
    load_export,
    served_tokens,
    serving_tokenizer,
)
from course_utils.deploy.gating import RULES, Check, GateResult, waive  # noqa: E402
from course_utils.deploy.probes import Probe, weights_hash  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.evaluation import Difference  # noqa: E402
from course_utils.generation import generate  # noqa: E402
from course_utils.templates import CHAT_TEMPLATE, format_prompt  # noqa: E402


def result(model: Any, worse: float = 0.0) -> GateResult:
    """A gate's result for this model: by how much it is more harmful, give or take a point."""
    check = Check(RULES[0], 0.1, 0.1 + worse, Difference(worse, worse - 0.01, worse + 0.01))
    return GateResult("toy", "old", weights_hash(model), (check,))


@pytest.fixture
def model(new_model: Callable[..., Any]) -> Any:
    return new_model()


def test_the_folder_holds_the_model_and_where_it_comes_from(
    course: Course, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    run = tmp_path / "dpo-seed0-1234"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"recipe": {"stage": "dpo"}, "files": {}}))
    made = export(course, model, tokenizer, gate=result(model), source=run, folder=tmp_path)
    manifest = json.loads((made.folder / MANIFEST).read_text())
    assert made.name == manifest["name"] == f"toy-{weights_hash(model)[:10]}"
    assert (manifest["source"], manifest["recipe"]) == ("dpo-seed0-1234", {"stage": "dpo"})
    assert manifest["gate"]["passed"] and manifest["gate"]["checks"][0]["outcome"] == "kept"
    assert set(manifest["files"]) == {p.name for p in made.folder.iterdir()} - {MANIFEST}
    assert str(tmp_path) not in (made.folder / MANIFEST).read_text()
    again, its_tokenizer = models.load(made.folder, course)
    assert weights_hash(again) == weights_hash(model)
    prompt = [format_prompt("Where?")]
    assert generate(again, its_tokenizer, prompt) == generate(model, tokenizer, prompt)
    # sampled as in the course by whoever reads these settings, a server for example
    assert (again.generation_config.do_sample, again.generation_config.top_k) == (True, 0)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_adapter_is_merged(course: Course, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from peft import get_peft_model

    policy = get_peft_model(model, models.lora_config(2))
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        want = policy.eval()(ids).logits
    whole = models.merged(policy)
    assert all(weight.requires_grad for weight in whole.parameters())  # it starts the next stage
    made = export(course, whole, tokenizer, gate=result(whole), source="test", folder=tmp_path)
    assert not (made.folder / "adapter_config.json").exists()
    with torch.no_grad():
        got = models.load(made.folder, course)[0](ids).logits
    assert torch.allclose(got, want, atol=1e-4)


def test_no_way_around_the_gate(
    course: Course, model: Any, new_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"source": "test", "folder": tmp_path / "exports"}
    with pytest.raises(CourseError, match="has not been through the gate"):
        export(course, model, tokenizer, gate=None, **options)
    with pytest.raises(CourseError, match=r"refuses toy: gives in .* \+30.0 \[\+29.0, .*regressed"):
        export(course, model, tokenizer, gate=result(model, worse=0.3), **options)
    with pytest.raises(CourseError, match="other weights than these"):
        export(course, model, tokenizer, gate=result(new_model(seed=1)), **options)
    with pytest.raises(CourseError, match="applied no rule"):
        empty = GateResult("toy", "old", weights_hash(model), ())
        export(course, model, tokenizer, gate=empty, **options)
    with pytest.raises(CourseError, match="refuses toy"):
        both = replace(result(model), checks=(*result(model).checks, *result(model, 0.3).checks))
        export(course, model, tokenizer, gate=both, **options)
    assert not (tmp_path / "exports").exists()


def test_a_result_for_one_model_lets_no_trained_one_through(
    course: Course, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """The gate was asked before the last training step."""
    before = result(model)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    with pytest.raises(CourseError, match="other weights"):
        export(course, model, tokenizer, gate=before, source="test", folder=tmp_path)


def test_a_waiver_goes_into_the_manifest(
    course: Course, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    first = waive(Probe("first", {}, "p", weights_hash(model)), "nothing was in service")
    made = export(course, model, tokenizer, gate=first, source="test", folder=tmp_path)
    assert made.manifest["gate"]["waived"] == "nothing was in service"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").write_text("{}"), "config.json was changed"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "extra.py").write_text(""), "extra.py was added"),
        (lambda f: (f / MANIFEST).write_text("{"), "no readable export.json"),
        (lambda f: (f / MANIFEST).unlink(), "no readable export.json"),
    ],
)
def test_damage_is_named(
    damage: Callable[[Path], Any],
    message: str,
    course: Course,
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    made = export(course, model, tokenizer, gate=result(model), source="test", folder=tmp_path)
    assert load_export(made.folder).manifest == made.manifest
    damage(made.folder)
    with pytest.raises(CourseError, match=message):
        load_export(made.folder)


def test_a_failed_export_leaves_nothing(
    course: Course, model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.models, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(course, model, tokenizer, gate=result(model), source="test", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("context", ["", "A note.\n\nIn two parts. "])
@pytest.mark.parametrize("instruction", ["Where does it live?", " odd  spacing\n", "### Response:"])
def test_the_served_prompt_is_the_training_prompt(
    instruction: str, context: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = "{{ messages }}"  # somebody else's
    served = serving_tokenizer(tokenizer)
    assert (
        served_tokens(served, instruction, context)
        == tokenizer(format_prompt(instruction, context))["input_ids"]
    )
    assert tokenizer.chat_template == "{{ messages }}"  # the one in use is left alone
    tokenizer.chat_template = CHAT_TEMPLATE


def test_a_tokenizer_that_begins_with_a_bos(tokenizer: Any) -> None:
    """Llama-2's does; a chat template has to write it."""
    import copy

    from tokenizers.processors import TemplateProcessing

    with_bos = copy.deepcopy(tokenizer)
    with_bos.add_special_tokens({"bos_token": "<s>"})
    with_bos._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", with_bos.bos_token_id)]
    )
    want = with_bos(format_prompt("Where?"))["input_ids"]
    assert want[0] == with_bos.bos_token_id
    assert served_tokens(serving_tokenizer(with_bos), "Where?") == want


def test_a_tokenizer_that_cannot_be_served_is_refused(tokenizer: Any) -> None:
    """One that ends every text with an EOS, which a generation prompt must not have."""
    import copy

    from tokenizers.processors import TemplateProcessing

    odd = copy.deepcopy(tokenizer)
    odd._tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", odd.eos_token_id)]
    )
    with pytest.raises(CourseError, match="otherwise than the same text in training"):
        serving_tokenizer(odd)


def test_the_laptops_own_template_would_be_another_prompt(tokenizer: Any) -> None:
    """Why the course's is written: an instruct model's tokenizer brings its own."""
    tokenizer.chat_template = "<|user|>{{ messages[0]['content'] }}"
    assert served_tokens(tokenizer, "Where?") != tokenizer(format_prompt("Where?"))["input_ids"]
    tokenizer.chat_template = CHAT_TEMPLATE
