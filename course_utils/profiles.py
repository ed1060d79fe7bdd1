"""The four profiles: what model, data and sizes a chapter uses on a given machine.

A chapter's text and code are the same in all of them; only what the profile returns differs.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from course_utils.errors import CourseError, unknown_name
from course_utils.readers import is_path

# What every profile imports.
CORE_PACKAGES = ("accelerate", "datasets", "peft", "safetensors", "torch", "transformers", "trl")
HUB_TIMEOUT = 2.0  # seconds the hub may stay silent before it counts as unreachable


@dataclass(frozen=True)
class Profile:
    """One column of the course's settings. Lengths are in tokens, memory in GiB.

    Attributes:
        name: what COURSE_PROFILE and ``setup(profile=…)`` call it.
        description: one line for people.
        base_model: what SFT starts from: ``"tiny"`` (shipped with the course) or the path of a
            folder, or a hub id.
        base_is_instruct: True when that model has been instruction-tuned already, so that
            chapter 01's three problems show less.
        adapter: ``"full"`` trains every weight, ``"lora"`` only low-rank adapters.
        load_in_4bit: quantise the frozen weights (QLoRA).
        dtype: ``"float32"`` always, or ``"auto"``: what the device is good at, see ``setup``.
        device: ``"cpu"`` always, or ``"auto"``: CUDA, else Apple's MPS, else the CPU.
        threads: at most so many torch threads; None means one per physical core.
        instructions: where instruction data comes from: ``"world"``, ``"english"``, the path of
            a file or folder, or a hub id.
        preferences: the same for preference pairs.
        max_examples: rows taken from a data set; None takes all.
        max_length: prompt and response together.
        max_new_tokens: the longest response that is generated.
        temperature: of the answers that are measured and shown; 0 takes the likeliest token.
            (What learns from its own samples, as PPO does, takes them at 1.)
        generation_batch_size: prompts generated at once.
        batch_size: sequences on the device in one training step.
        gradient_accumulation: training steps added up before one update.
        gradient_checkpointing: recompute activations to save memory.
        sft_epochs, sft_learning_rate: supervised fine-tuning (chapter 02).
        reward_epochs, reward_learning_rate: the reward model (chapter 04).
        ppo_learning_rate, ppo_value_learning_rate, ppo_batch_size, ppo_mini_batch_size,
            ppo_accumulation, ppo_epochs, ppo_steps, ppo_lam, kl_coef: PPO (chapter 05); a step
            collects one batch of responses.
        dpo_epochs, dpo_learning_rate, dpo_beta: DPO and its relatives (chapters 06 and 07).
        dpo_batch_size, dpo_pairs: how many pairs in one of their steps (None: batch_size) and in a
            run (None: all there are).
        variant_pairs: how many pairs each method of chapter 07's comparison takes there.
        spin_examples, spin_batch_size, spin_rate: a round of SPIN (chapter 10): its prompts, the
            pairs in a step (None: dpo_batch_size) and its learning rate, in dpo_learning_rate.
        few_answers: True where a hundred answers take a minute or more, so that chapters 11 and 12
            ask for fewer.
        lora_rank: rank of the adapters; LoRA's alpha is twice that.
        hub_models, hub_datasets: hub ids that must be cached or downloadable.
        packages: imports needed beside the core ones.
        gpu_memory_gb: memory of one CUDA GPU; 0 when none is needed.
        memory_gb: main memory of the machine.
    """

    name: str
    description: str
    base_model: str
    base_is_instruct: bool = False
    adapter: str = "full"
    load_in_4bit: bool = False
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    instructions: str = "world"
    preferences: str = "world"
    max_examples: int | None = None
    max_length: int = 512
    max_new_tokens: int = 128
    temperature: float = 0.7
    generation_batch_size: int = 16
    batch_size: int = 4
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    sft_epochs: int = 1
    sft_learning_rate: float = 2e-4
    reward_epochs: int = 1
    reward_learning_rate: float = 1e-4
    ppo_learning_rate: float = 1e-5
    ppo_value_learning_rate: float | None = None
    ppo_batch_size: int = 32
    ppo_mini_batch_size: int = 4
    ppo_accumulation: int = 2
    ppo_epochs: int = 2
    ppo_steps: int = 50
    ppo_lam: float = 0.95
    kl_coef: float = 0.05
    dpo_epochs: int = 1
    dpo_learning_rate: float = 5e-6
    dpo_beta: float = 0.1
    dpo_batch_size: int | None = None
    dpo_pairs: int | None = None
    variant_pairs: int = 320
    spin_examples: int = 480
    spin_batch_size: int | None = None
    spin_rate: float = 1 / 3  # the rounds add up
    few_answers: bool = False
    lora_rank: int = 16
    hub_models: tuple[str, ...] = ()
    hub_datasets: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    gpu_memory_gb: float = 0.0
    memory_gb: float = 2.0


DOLLY = "databricks/databricks-dolly-15k"
HH_RLHF = "Anthropic/hh-rlhf"

TINY = Profile(
    name="tiny",
    description="a shipped model of a few million parameters in a closed world; any CPU, offline",
    base_model="tiny",
    dtype="float32",
    device="cpu",  # the same figures on every machine, and a GPU is no faster at this size
    threads=2,
    max_length=192,
    max_new_tokens=64,
    temperature=1.0,
    generation_batch_size=64,
    batch_size=32,
    sft_epochs=2,
    sft_learning_rate=2e-3,
    reward_learning_rate=1e-3,
    ppo_learning_rate=1.5e-4,
    ppo_value_learning_rate=4e-3,
    ppo_batch_size=64,
    ppo_mini_batch_size=16,
    ppo_accumulation=2,
    ppo_steps=45,
    ppo_lam=1.0,
    kl_coef=0.25,
    dpo_learning_rate=3e-4,
    dpo_batch_size=16,
    dpo_pairs=1600,
)

LAPTOP = Profile(
    name="laptop",
    description="SmolLM2-135M-Instruct with LoRA on 287 English instructions and 332 pairs; "
    "CPU or Apple GPU",
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    base_is_instruct=True,
    adapter="lora",
    instructions="english",
    preferences="english",
    max_length=256,
    max_new_tokens=64,
    temperature=0.0,  # at 1, a model of this size strays into nonsense
    generation_batch_size=16,
    batch_size=8,
    sft_epochs=1,
    sft_learning_rate=1e-3,
    reward_learning_rate=5e-4,
    ppo_learning_rate=1e-3,
    ppo_value_learning_rate=2e-3,
    ppo_batch_size=16,
    ppo_mini_batch_size=8,
    ppo_accumulation=1,
    ppo_steps=12,
    lora_rank=8,
    dpo_learning_rate=1e-3,
    dpo_pairs=208,
    variant_pairs=64,
    spin_examples=64,
    spin_batch_size=4,
    spin_rate=1.0,  # sixteen steps in a round
    few_answers=True,
    # No hub_models: without the hub the weights come from a package, see smollm.py.
    packages=("gguf",),
    memory_gb=8.0,
)

COLAB = Profile(
    name="colab",
    description="Qwen3-0.6B-Base with LoRA on slices of dolly and hh-rlhf; one 16 GB GPU",
    base_model="Qwen/Qwen3-0.6B-Base",
    adapter="lora",
    instructions=DOLLY,
    preferences=HH_RLHF,
    max_examples=2000,
    max_length=512,
    max_new_tokens=128,
    generation_batch_size=32,
    batch_size=4,
    gradient_accumulation=4,
    gradient_checkpointing=True,
    hub_models=("Qwen/Qwen3-0.6B-Base",),
    hub_datasets=(DOLLY, HH_RLHF),
    gpu_memory_gb=14.0,  # a T4 sold as 16 GB reports 14.7 GiB
    memory_gb=8.0,
)

FULL = Profile(
    name="full",
    description="Llama-2-7b with QLoRA on the whole of dolly and hh-rlhf; GPUs of 24 GB or more",
    base_model="meta-llama/Llama-2-7b-hf",
    adapter="lora",
    load_in_4bit=True,
    instructions=DOLLY,
    preferences=HH_RLHF,
    max_length=1024,
    max_new_tokens=256,
    generation_batch_size=32,
    batch_size=4,
    gradient_accumulation=4,
    gradient_checkpointing=True,
    lora_rank=64,
    hub_models=("meta-llama/Llama-2-7b-hf",),
    hub_datasets=(DOLLY, HH_RLHF),
    packages=("bitsandbytes",),
    gpu_memory_gb=22.0,  # a card sold as 24 GB reports a little less
    memory_gb=20.0,
)

PROFILES: dict[str, Profile] = {p.name: p for p in (TINY, LAPTOP, COLAB, FULL)}


def named_profile(name: str | None = None) -> Profile | None:
    """The profile asked for by ``name``, else by COURSE_PROFILE, else None.

    Raises CourseError, naming the legal ones, for a name that is no profile.
    """
    wanted = name if name is not None else os.environ.get("COURSE_PROFILE") or None
    if wanted is None:
        return None
    if wanted not in PROFILES:
        raise unknown_name("profile", wanted, PROFILES)
    return PROFILES[wanted]


def with_sources(
    profile: Profile,
    model: str | None = None,
    instructions: str | None = None,
    preferences: str | None = None,
) -> Profile:
    """The profile with another base model or other data, each a hub id or a path; None keeps it.

    Of those only what has to come from the hub counts as missing where the hub cannot be reached.
    """
    changed = replace(
        profile,
        base_model=model or profile.base_model,
        base_is_instruct=profile.base_is_instruct and model is None,
        instructions=instructions or profile.instructions,
        preferences=preferences or profile.preferences,
    )
    models = profile.hub_models
    if model is not None:
        models = () if is_path(model) else (model,)
    data = (changed.instructions, changed.preferences)
    sets = tuple(name for name in data if name not in ("world", "english") and not is_path(name))
    return replace(changed, hub_models=models, hub_datasets=sets)


def choose_profile(name: str | None = None) -> Profile:
    """The profile asked for, else the hardware's: ``colab`` with a CUDA GPU, ``tiny`` without."""
    return named_profile(name) or (COLAB if gpu_memory_gb() > 0 else TINY)


def missing(profile: Profile) -> list[str]:
    """What this machine lacks for ``profile``: one sentence each, with the next step."""
    return [
        *_missing_packages(profile),
        *_missing_hardware(profile),
        *_missing_downloads(profile),
    ]


def runnable(names: Iterable[str] = tuple(PROFILES)) -> list[str]:
    """Those of ``names`` that can run on this machine."""
    return [name for name in names if not missing(PROFILES[name])]


def require_runnable(profile: Profile) -> None:
    """Raise CourseError saying what ``profile`` lacks here and which profiles can run."""
    lacking = missing(profile)
    if not lacking:
        return
    can = runnable(name for name in PROFILES if name != profile.name)
    advice = f"These can run here: {', '.join(can)}." if can else "No profile can run here yet."
    raise CourseError(f"Profile {profile.name!r} cannot run here. {' '.join(lacking)} {advice}")


def gpu_memory_gb() -> float:
    """Memory of the first CUDA GPU in GiB; 0 without a GPU or without torch."""
    if not is_installed("torch"):
        return 0.0
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.get_device_properties(0).total_memory / 2**30


def main_memory_gb() -> float:
    """The machine's main memory in GiB."""
    import psutil

    return psutil.virtual_memory().total / 2**30


def is_installed(package: str) -> bool:
    """True when ``package`` can be imported; imports nothing."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # sys.modules holds something that is no module
        return False


def _missing_packages(profile: Profile) -> list[str]:
    absent = [p for p in (*CORE_PACKAGES, *profile.packages) if not is_installed(p)]
    if not absent:
        return []
    extra = {"laptop": "[laptop]", "full": "[gpu]"}.get(profile.name, "")
    return [
        f"It needs the Python packages {', '.join(absent)}: "
        f"run `pip install -e '.{extra}'` in the course's folder."
    ]


def _missing_hardware(profile: Profile) -> list[str]:
    lacking = []
    have = gpu_memory_gb() if profile.gpu_memory_gb else 0.0
    if have < profile.gpu_memory_gb:
        found = f"the GPU here has {have:.0f} GiB" if have else "none was found here"
        lacking.append(
            f"It needs a CUDA GPU with {profile.gpu_memory_gb:.0f} GiB and {found}: "
            "choose a GPU runtime or another profile."
        )
    memory = main_memory_gb()
    if memory < profile.memory_gb:
        lacking.append(
            f"It needs {profile.memory_gb:.0f} GiB of main memory and this machine has "
            f"{memory:.1f} GiB: use a larger machine or another profile."
        )
    return lacking


def _missing_downloads(profile: Profile) -> list[str]:
    wanted = [(name, "model") for name in profile.hub_models]
    wanted += [(name, "dataset") for name in profile.hub_datasets]
    if not wanted:
        return []
    if not is_installed("huggingface_hub"):
        return ["It needs the Python package huggingface_hub: run `pip install huggingface_hub`."]
    lacking = []
    for name, kind in wanted:
        if is_cached(name, kind):
            continue
        problem = hub_problem(name, kind)
        if problem is None:
            continue
        lacking.append(problem)
        if "cannot be reached" in problem:  # the others would say the same, after the same wait
            break
    return lacking


def is_cached(name: str, kind: str = "model") -> bool:
    """True when the local hub cache holds the model's weights or the data set's files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, repo_type=kind, local_files_only=True))
    except LocalEntryNotFoundError:
        return False
    suffixes = {".safetensors", ".bin"} if kind == "model" else {".jsonl", ".gz", ".parquet"}
    return any(path.suffix in suffixes for path in folder.rglob("*"))


def hub_problem(name: str, kind: str = "model", timeout: float = HUB_TIMEOUT) -> str | None:
    """Why ``name`` cannot be downloaded now, in one sentence; None when it can."""
    from huggingface_hub import HfApi  # noqa: F401  # or its import counts as the hub's silence

    answer: list[str | None] = []
    # A thread, because looking up a host name has no timeout of its own.
    worker = threading.Thread(
        target=lambda: answer.append(_ask_hub(name, kind, timeout)), daemon=True
    )
    worker.start()
    worker.join(2 * timeout)
    return answer[0] if answer else _unreachable(name, "no answer")


def _ask_hub(name: str, kind: str, timeout: float) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        api = HfApi()
        if kind == "model":
            api.model_info(name, timeout=timeout)
            api.auth_check(name)  # the info of a gated model is public, its files are not
        else:
            api.dataset_info(name, timeout=timeout)
    except OfflineModeIsEnabled:
        return (
            f"The hub cannot be reached for {name} because HF_HUB_OFFLINE is set: "
            "unset it and restart the kernel."
        )
    except GatedRepoError:
        return (
            f"The hub gives {name} only to accounts that accepted its licence: do so at "
            f"https://huggingface.co/{name}, make a token at "
            "https://huggingface.co/settings/tokens and run `hf auth login`."
        )
    except RepositoryNotFoundError:
        return f"The hub has no {kind} {name} for this account: run `hf auth login` or check it."
    except Exception as error:  # whatever the network layer of the day raises
        return _unreachable(name, type(error).__name__)
    return None


def _unreachable(name: str, why: str) -> str:
    return (
        f"The Hugging Face hub cannot be reached for {name} ({why}) and it is not cached here: "
        "connect to the internet."
    )
