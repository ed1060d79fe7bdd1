"""A killed run goes on as if nothing had happened; two processes do what one does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ppo_toys import PROMPTS, make_trainer, share_of  # noqa: E402

HERE = Path(__file__).parent
WORKER = str(HERE / "ppo_worker.py")
TWO = HERE.parent / "configs" / "accelerate" / "cpu.yaml"
STEPS = 30


@pytest.fixture(scope="module")
def folder(new_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: Any) -> str:
    path = tmp_path_factory.mktemp("policy")
    new_model().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }


def numbers(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return json.loads(json.dumps(history))  # type: ignore[no-any-return]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_run_equals_the_whole_one(
    new_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, stop: int
) -> None:
    settings: dict[str, Any] = {
        "batch_size": 8,
        "mini_batch_size": 4,
        "adap_kl_ctrl": True,
        "init_kl_coef": 0.1,
    }
    whole = make_trainer(new_model(), tokenizer, **settings)
    whole.train(PROMPTS, share_of("e"), 6)
    first = make_trainer(new_model(), tokenizer, **settings)
    first.train(PROMPTS, share_of("e"), stop, checkpoint=tmp_path / "run")
    second = make_trainer(new_model(seed=9), tokenizer, **settings)  # weights come from the file
    second.ref_model = first.ref_model
    second.train(PROMPTS, share_of("e"), 6, checkpoint=tmp_path / "run")
    assert numbers(second.history) == numbers(whole.history)
    for a, b in zip(second.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def newer(path: Path, than: float) -> bool:
    """A checkpoint was written after that moment."""
    try:
        return path.stat().st_mtime > than
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes(folder: str, tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        out = [str(tmp_path / name), str(tmp_path / f"{name}.json"), str(STEPS)]
        return [sys.executable, WORKER, "train", folder, *out]

    subprocess.run(command("whole"), env=environment(), check=True, capture_output=True)
    rng = random.Random(0)
    for _ in range(2):
        began = time.time()
        process = subprocess.Popen(
            command("killed"),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not newer(tmp_path / "killed", began):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))  # in the middle of a step, or of writing
        assert process.poll() is None, "the run was over before it could be killed: more STEPS"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command("killed"), env=environment(), check=True, capture_output=True)
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert json.loads((tmp_path / "killed.json").read_text()) == whole
    assert len(whole) == STEPS


@pytest.mark.slow
def test_two_processes_equal_one(folder: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    subprocess.run(
        [sys.executable, WORKER, "step", folder, str(one)],
        env=environment(),
        check=True,
        capture_output=True,
    )
    # `accelerate launch --cpu --num_processes 2` would start a single process.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(TWO)]
    result = subprocess.run(
        [*launch, "--main_process_port", "0", WORKER, "step", folder, str(two)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    a, b = json.loads(one.read_text()), json.loads(two.read_text())
    assert (a["processes"], b["processes"]) == (1, 2)
    assert a["stats"].keys() == b["stats"].keys()
    for name, value in a["stats"].items():
        assert b["stats"][name] == pytest.approx(value, abs=1e-5), name
    for name, values in a["weights"].items():
        torch.testing.assert_close(
            torch.tensor(b["weights"][name]), torch.tensor(values), atol=1e-4, rtol=0
        )
