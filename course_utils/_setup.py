"""One call at the top of a chapter: profile, device, dtype, seed, threads, versions.

The module is not called ``setup``, so ``from course_utils import setup`` is always the function.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import random
import re
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from course_utils import colab, processes
from course_utils._python import require_python, require_torch
from course_utils.errors import CourseError, unknown_name
from course_utils.profiles import (
    PROFILES,
    TINY,
    Profile,
    choose_profile,
    missing,
    named_profile,
    require_runnable,
    with_sources,
)
from course_utils.report import set_chapter

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SIZES = ("full", "small")
DEVICES = ("cpu", "cuda", "mps")
VERSIONS_THAT_MATTER = ("torch", "transformers", "trl", "datasets", "peft", "accelerate")


@dataclass(frozen=True)
class Course:
    """What a chapter needs to know about where it runs.

    Attributes:
        chapter: such as ``"02_sft"``; names the chapter's metrics.
        profile: models, data and sizes.
        size: ``"full"``, or ``"small"`` for quick tests (COURSE_SIZE).
        seed: what random, numpy and torch were seeded with.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        versions: of Python and of the libraries that matter.
    """

    chapter: str
    profile: Profile
    size: str = "full"
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    versions: dict[str, str] = field(default_factory=dict)

    def pick(self, *, full: T, small: T) -> T:
        """The value for this run's size: ``course.pick(full=300, small=30)``."""
        return full if self.size == "full" else small

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch's own object."""
        import torch

        return getattr(torch, self.dtype)


def setup(
    chapter: str,
    profile: str | None = None,
    seed: int = 0,
    *,
    model: str | None = None,
    instructions: str | None = None,
    preferences: str | None = None,
) -> Course:
    """Prepare this kernel for a chapter, print what was chosen, and return it.

    The profile is the argument, else COURSE_PROFILE, else the hardware's. COURSE_SIZE is ``full``
    or ``small``; COURSE_DEVICE overrides the device. `model`, `instructions` and `preferences`,
    each a hub id or a path, take the place of the profile's own.

    Raises:
        CourseError: for an unknown name, and for a profile that cannot run here: the message says
            what is missing and which profiles can run.
    """
    require_python()
    _require_chapter(chapter)
    _require_seed(seed)
    size = _size()
    wanted = named_profile(profile)
    _quiet()
    require_torch()
    processes.take_own_gpu()
    chosen, note = _runnable_profile(wanted, (model, instructions, preferences))
    if not chosen.hub_models and not chosen.hub_datasets and chosen.name == TINY.name:
        _go_offline()
    device = choose_device(chosen)
    course = Course(
        chapter=chapter,
        profile=chosen,
        size=size,
        seed=seed,
        device=device,
        dtype=choose_dtype(chosen, device),
        versions=versions(),
    )
    threads = set_threads(chosen)
    seed_everything(seed)
    set_chapter(chapter)
    if processes.is_main():
        _announce(course, threads, note)
    return course


def choose_device(profile: Profile) -> str:
    """COURSE_DEVICE, else the profile's own, else CUDA, Apple's MPS or the CPU, what is there."""
    import torch

    wanted = os.environ.get("COURSE_DEVICE", "")
    if wanted and wanted not in DEVICES:
        raise unknown_name("device", wanted, DEVICES)
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted and not present[wanted]:
        have = ", ".join(name for name in DEVICES if present[name])
        raise CourseError(f"COURSE_DEVICE is {wanted!r}, but this machine has only: {have}.")
    if wanted:
        return wanted
    if profile.device == "cpu":
        return "cpu"
    return next(name for name in ("cuda", "mps", "cpu") if present[name])


def choose_dtype(profile: Profile, device: str) -> str:
    """The dtype of the model's weights: half precision only where the hardware computes in it."""
    import torch

    if profile.dtype != "auto":
        return profile.dtype
    if device == "cuda":
        # Emulated bfloat16, as on a T4, is slower than float16.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float16"
    if device == "cpu" and cpu_has_bfloat16():
        return "bfloat16"
    return "float32"


def cpu_has_bfloat16() -> bool:
    """True when the processor multiplies bfloat16 itself (AVX512-BF16 or AMX)."""
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in every torch
    if capabilities is not None:
        have = capabilities()
        return bool(have.get("avx512_bf16") or have.get("amx_bf16"))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def set_threads(profile: Profile) -> int:
    """Give torch one thread per physical core, at most the profile's number and OMP_NUM_THREADS."""
    import psutil
    import torch

    threads = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # a container may own fewer cores than the machine has
        threads = min(threads, len(os.sched_getaffinity(0)))
    if profile.threads is not None:
        threads = min(threads, profile.threads)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        threads = min(threads, int(asked))
    torch.set_num_threads(threads)
    return threads


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch (every device)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_THAT_MATTER:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _runnable_profile(
    wanted: Profile | None, sources: tuple[str | None, str | None, str | None]
) -> tuple[Profile, str]:
    """The profile to run and a note; only a profile nobody asked for by name is ever replaced."""
    chosen = wanted or choose_profile()
    if any(sources):
        chosen = with_sources(chosen, *sources)
    elif wanted is None and chosen is not TINY:
        lacking = missing(chosen)
        if lacking:
            return TINY, f"This machine suggests {chosen.name!r}, but: {lacking[0]}"
    require_runnable(chosen)
    return chosen, ""


def _require_chapter(chapter: object) -> None:
    if not isinstance(chapter, str) or not re.fullmatch(r"[\w-]+", chapter):
        raise CourseError(
            f"setup's first argument is the chapter's name, such as '02_sft', not {chapter!r}."
        )


def _require_seed(seed: object) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise CourseError(f"seed must be a whole number from 0 to 4294967295, not {seed!r}.")


def _size() -> str:
    size = os.environ.get("COURSE_SIZE") or "full"
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    return size


def _go_offline() -> None:
    """``tiny`` never asks the hub, so that it runs the same with and without a network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # weights load in a blink
    constants = sys.modules.get("huggingface_hub.constants")  # read the environment at its import
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def _quiet() -> None:
    """Keep library chatter out of the pages. Before transformers is imported these suffice."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("WANDB_DISABLED", "true")
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # tqdm's note that ipywidgets would look nicer, and torch's that a CPU cannot pin memory.
    warnings.filterwarnings("ignore", message=".*IProgress not found.*")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def _announce(course: Course, threads: int, note: str) -> None:
    profile, have = course.profile, course.versions
    libraries = " · ".join(f"{name} {have[name]}" for name in ("torch", "transformers", "trl")
                           if name in have)  # fmt: skip
    if note:
        print(f"{note} So this runs in 'tiny'.")
    small = " · small size, for tests" if course.size == "small" else ""
    print(f"profile {profile.name} (of {', '.join(PROFILES)}): {profile.description}{small}")
    usual = PROFILES[profile.name]
    for what in ("base_model", "instructions", "preferences"):
        if getattr(profile, what) != getattr(usual, what):
            print(f"{what.replace('_', ' ')} {getattr(profile, what)}")
    print(f"device {course.device} · {course.dtype} · threads {threads} · seed {course.seed}")
    print(f"python {have['python']} · {libraries}")
    if offered := colab.offer():
        print(offered)
