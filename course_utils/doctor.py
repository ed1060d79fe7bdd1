"""``python -m course_utils doctor``: what this machine is, what it can run, and why not."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError
from course_utils.paths import PACKAGE, data_dir, runs_dir
from course_utils.profiles import (
    COLAB,
    PROFILES,
    TINY,
    Profile,
    choose_profile,
    gpu_memory_gb,
    hub_problem,
    is_installed,
    main_memory_gb,
    missing,
    named_profile,
    with_sources,
)

# The versions that explain most surprises; --json lists every one that differs.
SHOWN = ("torch", "transformers", "trl", "datasets", "peft", "accelerate", "openai", "ipywidgets")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", metavar="NAME", help=f"only one of: {', '.join(PROFILES)}")
    parser.add_argument(
        "--model",
        metavar="ID",
        nargs="?",
        const="",
        help="estimate the memory of each stage with this base model (a hub id or a folder; "
        "without ID the profile's own)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the report; 0 when the named profile, or at least one, can run here, else 1."""
    named = named_profile(args.profile) if args.profile is not None else None
    if args.model is None:
        report = examine([named] if named else list(PROFILES.values()))
    else:
        chosen = with_sources(named or choose_profile(), args.model or None)
        report = examine([chosen])
        report["estimate"] = estimate_memory(chosen)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0 if any(profile["can_run"] for profile in report["profiles"].values()) else 1


def examine(chosen: list[Profile]) -> dict[str, Any]:
    """Everything the doctor knows, ready for JSON. Sizes are in GiB."""
    profiles = {}
    for profile in chosen:
        lacking = missing(profile)
        profiles[profile.name] = {"can_run": not lacking, "missing": lacking}
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gb": round(main_memory_gb(), 1),
        "disk_free_gb": round(disk_free_gb(runs_dir()), 1),
        "gpu": gpu_name(),
        "hub": hub_state(),
        "versions": versions_against(tested_versions()),
        "profiles": profiles,
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"python    {report['python']} ({report['executable']})",
        f"platform  {report['platform']}",
        f"machine   {report['cores']} cores · {report['memory_gb']} GiB memory · "
        f"{report['disk_free_gb']} GiB free on disk",
        f"gpu       {report['gpu'] or 'none'}",
        f"hub       {report['hub']}",
        "versions",
    ]
    for name, row in report["versions"].items():
        if name in SHOWN:
            lines.append(f"  {name:<13} {row['installed'] or 'not installed':<14} {_state(row)}")
    lines.append("profiles")
    for name, row in report["profiles"].items():
        lines.append(f"  {name:<8}{'can run' if row['can_run'] else 'cannot run'}")
        lines += [f"          {sentence}" for sentence in row["missing"]]
    if "estimate" in report:
        lines += report["estimate"]["text"]
    return "\n".join(lines)


def estimate_memory(profile: Profile) -> dict[str, Any]:
    """The estimated peak of each stage, before anything is loaded.

    For a profile that needs a GPU it is made for one with bfloat16 where none is here.
    """
    if not is_installed("torch"):
        return {"text": ["memory    not estimated: torch is not installed"]}
    from course_utils import memory
    from course_utils._setup import choose_device, choose_dtype
    from course_utils.models import TINY_BASE

    have = gpu_memory_gb()
    if profile.gpu_memory_gb and not have:
        device, dtype = "cuda", "bfloat16"
    else:
        device = choose_device(profile)
        dtype = choose_dtype(profile, device)
    tiny = profile.base_model == TINY.base_model
    try:
        shape = memory.read_shape(str(data_dir() / TINY_BASE) if tiny else profile.base_model)
    except CourseError as error:
        return {"text": [f"memory    {error}"]}
    rows = memory.estimates(shape, profile, dtype, device)
    bits = ", layers in 4 bits" if profile.load_in_4bit else ""
    title = (
        f"memory    estimated peak of {profile.base_model} ({shape.parameters / 1e9:.2f}e9 "
        f"parameters) on {device}, {dtype}{bits}, {profile.adapter}"
    )
    fits = have if device == "cuda" else 0.0
    return {"stages": memory.as_json(rows), "text": [title, *memory.as_table(rows, fits)]}


def _state(row: dict[str, str | None]) -> str:
    if row["tested"] is None:
        return ""
    return "as tested" if row["installed"] == row["tested"] else f"tested with {row['tested']}"


def tested_versions() -> dict[str, str]:
    """The clone's constraints.txt: name -> version. Empty in a wheel, which has none."""
    path = PACKAGE.parent / "constraints.txt"
    return parse_constraints(path.read_text(encoding="utf-8")) if path.is_file() else {}


def parse_constraints(text: str) -> dict[str, str]:
    """``name==version`` lines; comments and blank lines are skipped."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {name.strip(): version.strip() for name, _, version in pairs}


def versions_against(tested: dict[str, str]) -> dict[str, dict[str, str | None]]:
    """name -> installed and tested version; torch's build label (``+cpu``) does not count."""
    rows: dict[str, dict[str, str | None]] = {}
    for name in sorted({*SHOWN, *tested}):
        try:
            installed: str | None = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            installed = None
        rows[name] = {"installed": installed, "tested": tested.get(name)}
    return rows


def disk_free_gb(folder: Path) -> float:
    """Free space where ``folder`` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 2**30


def gpu_name() -> str | None:
    """The first CUDA GPU and its memory, Apple's GPU, or None."""
    if not is_installed("torch"):
        return None
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
    return "Apple GPU (MPS)" if torch.backends.mps.is_available() else None


def hub_state() -> str:
    """``reachable``, or why not."""
    if not is_installed("huggingface_hub"):
        return "huggingface_hub is not installed"
    return hub_problem(COLAB.hub_models[0]) or "reachable"
