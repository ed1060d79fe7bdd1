"""Random models of a few thousand weights: tests download nothing and train little."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

# Whatever somebody has labelled in this clone, tests and records are about the shipped pairs.
os.environ["COURSE_LABELS"] = "none"

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from course_utils._setup import Course

SENTENCES = (
    "The bell heron lives in the reeds of the Upper Mere and eats small fish.",
    "Where does the bell heron live? It lives in the reeds.",
    "A lantern is lit every evening, and the ferry crosses at noon.",
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 tokens; it pads on the left."""
    from course_utils.pretrain import train_tokenizer
    from course_utils.templates import format_prompt

    return train_tokenizer([*SENTENCES, format_prompt("Where?", "Here.")] * 20, 320)


@pytest.fixture(scope="session")
def new_model(tokenizer: PreTrainedTokenizerFast) -> Callable[..., LlamaForCausalLM]:
    """`new_model(seed=0)`: a random Llama of two layers and width 16, in evaluation mode."""
    import torch

    from course_utils.pretrain import PretrainConfig, make_model

    config = PretrainConfig(hidden=16, layers=2, heads=2, intermediate=32, vocabulary=320)

    def make(seed: int = 0) -> LlamaForCausalLM:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = make_model(config, tokenizer)
            # At the usual scale of 0.02 so small a model's distribution is nearly flat.
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.dim() == 2:
                        weight.mul_(10)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def course() -> Course:
    """The tiny profile at full size, without `setup`'s side effects."""
    from course_utils._setup import Course, versions
    from course_utils.profiles import TINY

    return Course("test", TINY, versions=versions())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No library asks the hub for anything."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, even where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """Progress bars of data sets and weights say nothing in a test."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
