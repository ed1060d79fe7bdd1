"""Choosing a profile, saying what it lacks, and the one call at the top of a chapter."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from course_utils import _setup, profiles
from course_utils._setup import Course, choose_device, choose_dtype, set_threads, setup
from course_utils.errors import CourseError
from course_utils.profiles import COLAB, FULL, LAPTOP, PROFILES, TINY, choose_profile, missing

VARIABLES = ("COURSE_PROFILE", "COURSE_SIZE", "COURSE_DEVICE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the caller's settings, and none leaves its own behind."""
    before, threads = dict(os.environ), torch.get_num_threads()
    offline = constants.HF_HUB_OFFLINE
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(threads)
    for name in set(os.environ) - set(before):
        del os.environ[name]
    constants.HF_HUB_OFFLINE = offline


@pytest.fixture
def big_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an 80 GiB GPU, much memory, every package, and a reachable hub."""
    monkeypatch.setattr(profiles, "gpu_memory_gb", lambda: 80.0)
    monkeypatch.setattr(profiles, "main_memory_gb", lambda: 128.0)
    monkeypatch.setattr(profiles, "is_installed", lambda name: True)
    monkeypatch.setattr(profiles, "is_cached", lambda name, kind="model": False)
    monkeypatch.setattr(profiles, "hub_problem", lambda name, kind="model", timeout=2.0: None)


def no_hub(name: str, kind: str = "model", timeout: float = 2.0) -> str:
    return profiles._unreachable(name, "ConnectError")


# Choosing


def test_argument_beats_variable_beats_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "gpu_memory_gb", lambda: 0.0)
    assert choose_profile() is TINY
    monkeypatch.setattr(profiles, "gpu_memory_gb", lambda: 15.0)
    assert choose_profile() is COLAB
    monkeypatch.setenv("COURSE_PROFILE", "laptop")
    assert choose_profile() is LAPTOP
    assert choose_profile("full") is FULL
    monkeypatch.setenv("COURSE_PROFILE", "")
    assert choose_profile() is COLAB


@pytest.mark.parametrize("name", ["lpatop", "TINY", ""])
def test_unknown_profile_names_the_legal_ones(name: str) -> None:
    with pytest.raises(CourseError, match="tiny, laptop, colab, full"):
        choose_profile(name)


def test_unknown_profile_in_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_PROFILE", "collab")
    with pytest.raises(CourseError, match="Did you mean 'colab'"):
        choose_profile()


def test_profiles_are_what_the_design_says() -> None:
    assert list(PROFILES) == ["tiny", "laptop", "colab", "full"]
    assert all(name == profile.name for name, profile in PROFILES.items())
    assert COLAB.base_model == "Qwen/Qwen3-0.6B-Base"
    assert FULL.base_model == "meta-llama/Llama-2-7b-hf" and FULL.load_in_4bit
    assert LAPTOP.base_is_instruct and not COLAB.base_is_instruct
    assert (TINY.max_length, TINY.max_new_tokens, TINY.sft_learning_rate) == (192, 64, 2e-3)
    assert not TINY.hub_models and not TINY.hub_datasets
    for profile in (COLAB, FULL):  # what a chapter will load is what `missing` looks for
        assert profile.hub_models == (profile.base_model,)
        assert set(profile.hub_datasets) == {profile.instructions, profile.preferences}
    for profile in PROFILES.values():
        assert 0 < profile.max_new_tokens < profile.max_length
        assert profile.adapter in ("full", "lora") and profile.dtype in ("auto", "float32")


def test_every_field_is_documented() -> None:
    for cls in (profiles.Profile, Course):
        assert cls.__doc__ is not None
        for field in dataclasses.fields(cls):
            assert f"{field.name}" in cls.__doc__.partition("Attributes:")[2], field.name


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.max_length = 1  # type: ignore[misc]


# What is missing


def test_nothing_is_missing_on_a_big_machine(big_gpu: None) -> None:
    assert profiles.runnable() == list(PROFILES)


def test_tiny_needs_neither_gpu_nor_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("tiny asked for the hub or the GPU")

    for name in ("gpu_memory_gb", "is_cached", "hub_problem"):
        monkeypatch.setattr(profiles, name, refuse)
    assert missing(TINY) == []


@pytest.mark.parametrize(
    ("attribute", "value", "profile", "sentence"),
    [
        ("gpu_memory_gb", lambda: 0.0, COLAB, "needs a CUDA GPU with 14 GiB and none was found"),
        ("gpu_memory_gb", lambda: 8.0, COLAB, "the GPU here has 8 GiB"),
        ("gpu_memory_gb", lambda: 15.0, FULL, "needs a CUDA GPU with 22 GiB"),
        ("main_memory_gb", lambda: 3.0, LAPTOP, "needs 8 GiB of main memory and this machine has"),
        ("is_installed", lambda name: name != "gguf", LAPTOP, r"pip install -e '\.\[laptop\]'"),
        ("is_installed", lambda name: name != "bitsandbytes", FULL, r"pip install -e '\.\[gpu\]'"),
        ("is_installed", lambda name: name != "trl", TINY, r"packages trl: run `pip install -e '"),
        ("hub_problem", no_hub, COLAB, "cannot be reached for Qwen/Qwen3-0.6B-Base"),
    ],
)
def test_each_lack_is_one_sentence_with_a_next_step(
    big_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    attribute: str,
    value: object,
    profile: profiles.Profile,
    sentence: str,
) -> None:
    monkeypatch.setattr(profiles, attribute, value)
    lacking = missing(profile)
    assert len(lacking) == 1

    assert re.search(sentence, lacking[0])
    assert ": " in lacking[0] and lacking[0].endswith(".")


def test_cached_models_need_no_hub(big_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "hub_problem", no_hub)
    assert missing(COLAB)
    monkeypatch.setattr(profiles, "is_cached", lambda name, kind="model": True)
    assert missing(COLAB) == []


def test_cache_is_read_from_the_hubs_own_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not profiles.is_cached("some/model")
    repo = tmp_path / "models--some--model"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    assert not profiles.is_cached("some/model"), "a configuration without weights is no model"
    (snapshot / "model.safetensors").write_bytes(b"")
    assert profiles.is_cached("some/model")
    assert not profiles.is_cached("some/model", "dataset")


HUB_PROBE = """
import time
from course_utils.profiles import hub_problem
start = time.perf_counter()
print(hub_problem("some/model", timeout=0.5))
print(time.perf_counter() - start)
"""


def probe_hub(endpoint: str, **env: str) -> tuple[str, float]:
    """A fresh process, because huggingface_hub reads its settings when it is imported."""
    result = subprocess.run(
        [sys.executable, "-c", HUB_PROBE],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": endpoint, **env},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    sentence, seconds = result.stdout.strip().splitlines()
    return sentence, float(seconds)


def test_a_hub_that_refuses_or_never_answers_is_unreachable_within_seconds() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        refused, seconds = probe_hub(endpoint)  # bound, not listening
        assert "cannot be reached for some/model" in refused and seconds < 10
        server.listen()  # accepts, and never says a word
        silent, seconds = probe_hub(endpoint)
        assert "cannot be reached for some/model" in silent and seconds < 10


def test_a_hub_switched_off_is_named_as_such() -> None:
    sentence, _ = probe_hub("http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in sentence


# setup


def test_tiny_course(capsys: pytest.CaptureFixture[str]) -> None:
    course = setup("02_sft", profile="tiny", seed=3)
    assert (course.chapter, course.profile, course.seed) == ("02_sft", TINY, 3)
    assert (course.size, course.device, course.dtype) == ("full", "cpu", "float32")
    assert course.torch_dtype is torch.float32
    assert course.versions["torch"] == torch.__version__
    assert course.pick(full=300, small=30) == 300
    assert os.environ["HF_HUB_OFFLINE"] == "1" and constants.HF_HUB_OFFLINE
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) <= 3
    assert "tiny" in lines[0] and "cpu" in lines[1] and torch.__version__ in lines[2]


def test_small_size(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COURSE_SIZE", "small")
    assert setup("scratch", profile="tiny").pick(full=300, small=30) == 30
    assert "small size" in capsys.readouterr().out


def test_the_seed_decides_all_three_generators() -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        setup("scratch", profile="tiny", seed=seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw(1) == draw(1)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("COURSE_SIZE", "smal", "Unknown size 'smal'. Did you mean 'small'.*full, small"),
        ("COURSE_PROFILE", "giant", "Unknown profile 'giant'.*tiny, laptop, colab, full"),
        ("COURSE_DEVICE", "gpu", "Unknown device 'gpu'.*cpu, cuda, mps"),
    ],
)
def test_illegal_variables(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CourseError, match=message):
        setup("scratch")


@pytest.mark.parametrize("chapter", ["", "two words", None, "a/b"])
def test_illegal_chapter(chapter: object) -> None:
    with pytest.raises(CourseError, match="the chapter's name, such as '02_sft'"):
        setup(chapter)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, "0", 2**32, True])
def test_illegal_seed(seed: object) -> None:
    with pytest.raises(CourseError, match="whole number"):
        setup("scratch", profile="tiny", seed=seed)  # type: ignore[arg-type]


def test_a_profile_that_cannot_run_says_why_and_which_can(
    big_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "gpu_memory_gb", lambda: 0.0)
    with pytest.raises(CourseError) as caught:
        setup("scratch", profile="colab")
    message = str(caught.value)
    assert "'colab' cannot run here" in message and "CUDA GPU" in message
    assert message.endswith("These can run here: tiny, laptop.")


def test_a_profile_nobody_asked_for_gives_way_to_tiny_and_says_so(
    big_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profiles, "hub_problem", no_hub)
    assert setup("scratch").profile is TINY
    shown = capsys.readouterr().out
    assert "suggests 'colab'" in shown and "cannot be reached" in shown
    with pytest.raises(CourseError):
        setup("scratch", profile="colab")


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(LAPTOP) == "cuda"
    assert choose_device(TINY) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(LAPTOP) == "mps"
    monkeypatch.setenv("COURSE_DEVICE", "mps")
    assert choose_device(TINY) == "mps"
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    with pytest.raises(CourseError, match="has only: cpu, mps"):
        choose_device(LAPTOP)


def test_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    native = {"value": True}
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native["value"],
    )
    assert choose_dtype(COLAB, "cuda") == "bfloat16"
    native["value"] = False  # a T4 only emulates it
    assert choose_dtype(COLAB, "cuda") == "float16"
    assert choose_dtype(TINY, "cuda") == "float32"
    assert choose_dtype(LAPTOP, "mps") == "float32"
    monkeypatch.setattr(_setup, "cpu_has_bfloat16", lambda: True)
    assert choose_dtype(LAPTOP, "cpu") == "bfloat16"
    monkeypatch.setattr(_setup, "cpu_has_bfloat16", lambda: False)
    assert choose_dtype(LAPTOP, "cpu") == "float32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)],
)
def test_processor(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert _setup.cpu_has_bfloat16() is expected


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux has it")
def test_processor_by_cpuinfo_agrees_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this torch does not say")
    by_torch = _setup.cpu_has_bfloat16()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert _setup.cpu_has_bfloat16() is by_torch


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert set_threads(LAPTOP) == 8 == torch.get_num_threads()
    assert set_threads(TINY) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert set_threads(LAPTOP) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set_threads(LAPTOP) == 1


def test_a_cold_setup_leaves_the_trainers_unimported() -> None:
    code = (
        "from course_utils import setup\nsetup('02_sft', profile='tiny')\nimport sys\n"
        "print([m for m in ('transformers', 'trl', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
