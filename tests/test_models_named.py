"""What can be wrong with a model that somebody names: one sentence each, with the next step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import models, profiles  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.preference import prepare_pairs  # noqa: E402


def refused(course: Course, path: str | Path) -> set[str]:
    """What the tokenizer's and the model's loading say."""
    said = set()
    for load in (models.load_tokenizer, lambda path: models.load_model(path, course)):
        with pytest.raises(CourseError) as caught:
            load(path)
        said.add(str(caught.value))
    return said


def test_without_the_hub(course: Course, offline: None) -> None:
    (said,) = refused(course, "some/model")
    assert said == profiles.hub_problem("some/model")
    assert "HF_HUB_OFFLINE is set: unset it" in said


@pytest.mark.parametrize(
    "problem",
    ["The hub gives it only to accounts that accepted its licence: run `hf auth login`.", None],
)
def test_a_model_that_the_hub_does_not_give(
    course: Course, offline: None, monkeypatch: pytest.MonkeyPatch, problem: str | None
) -> None:
    monkeypatch.setattr(models, "hub_problem", lambda name: problem)
    (said,) = refused(course, "some/model")
    assert said == (problem or "some/model on the hub holds no model of this kind: name another.")


def test_a_gated_model_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers 401 with its code for gated repositories."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError

    def no(self: HfApi, name: str, **options: Any) -> None:
        answer: Any = SimpleNamespace(headers={}, request=None, status_code=401)
        raise GatedRepoError("gated", response=answer)

    monkeypatch.setattr(HfApi, "model_info", lambda *args, **options: None)
    monkeypatch.setattr(HfApi, "auth_check", no)
    said = profiles.hub_problem("meta-llama/Llama-2-7b-hf", timeout=30)
    assert said is not None and "accepted its licence" in said and "hf auth login" in said


def test_a_folder_that_is_not_there(course: Course, tmp_path: Path) -> None:
    (said,) = refused(course, tmp_path / "runs" / "sft")
    assert said.startswith("There is no model folder") and said.endswith("check the path.")


def test_a_damaged_folder_keeps_its_own_error(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path
) -> None:
    models.save(new_model(), tokenizer, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        models.load_model(tmp_path, course)


def test_a_model_too_large_for_the_card(
    course: Course,
    tokenizer: Any,
    new_model: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = new_model()
    models.save(model, tokenizer, tmp_path)

    def full(self: Any, device: str) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(type(model), "to", full)
    with pytest.raises(CourseError, match="does not fit into the memory that is free: restart"):
        models.load_model(tmp_path, replace(course, device="cuda"))


def test_chats_without_a_chat_template(tokenizer: Any) -> None:
    from copy import deepcopy

    plain = deepcopy(tokenizer)
    plain.chat_template = None
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    row = {"chosen": chat, "rejected": [chat[0], {"role": "assistant", "content": "B"}]}
    with pytest.raises(CourseError, match="pass a tokenizer that has a chat template"):
        prepare_pairs([row], plain)


def test_a_tokenizer_without_a_pad_token_pads_with_the_eos(tokenizer: Any, tmp_path: Path) -> None:
    from copy import deepcopy

    plain = deepcopy(tokenizer)
    plain.pad_token = None
    plain.save_pretrained(tmp_path)
    assert models.load_tokenizer(tmp_path).pad_token == tokenizer.eos_token
