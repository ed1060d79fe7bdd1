"""Chapter 02's table "Then and now": the old form does what the table says, the new form works."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import trl  # noqa: E402
from transformers import AutoModelForCausalLM, TrainingArguments  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

from course_utils.paths import notebooks_dir  # noqa: E402

SOURCE = notebooks_dir() / "source" / "02_sft.py"


def table() -> dict[str, tuple[str, str]]:
    """Old form -> (what becomes of it, new form), as printed in the chapter."""
    section = SOURCE.read_text(encoding="utf-8").split("## Then and now")[1]
    lines = [line[2:].strip() for line in section.splitlines() if line.startswith("# |")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert rows[0] == ("then", "what becomes of it", "now")
    return {old: (fate, new) for old, fate, new in rows[2:]}


class Bench:
    """A model, a tokenizer and four rows, to build configurations and trainers with."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path) -> None:
        from datasets import Dataset

        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        rows = [{"prompt": "Where does it live?", "completion": " In the reeds."}] * 4
        self.rows = Dataset.from_list(rows)
        self.texts = Dataset.from_list([{"text": r["prompt"] + r["completion"]} for r in rows])

    def plain(self, **changes: Any) -> dict[str, Any]:
        return {"output_dir": str(self.folder), "report_to": "none", "use_cpu": True, **changes}

    def config(self, **changes: Any) -> SFTConfig:
        # TRL's own default would call the deprecated gradient_checkpointing by name.
        return SFTConfig(**self.plain(bf16=False, **{"activation_checkpointing": False, **changes}))

    def trainer(self, args: Any = None, rows: Any = None, **changes: Any) -> SFTTrainer:
        options = {"processing_class": self.tokenizer, **changes}
        return SFTTrainer(
            model=self.model,
            args=args or self.config(),
            train_dataset=self.rows if rows is None else rows,
            **options,
        )


@pytest.fixture
def bench(new_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Bench:
    return Bench(new_model(), tokenizer, tmp_path)


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def refuses(name: str, call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{name}'"):
        call()


def training_arguments(bench: Bench, fate: str) -> None:
    """Old `TrainingArguments` are converted; SFT's settings then have TRL's defaults."""
    assert fate.startswith("converted")
    trainer = bench.trainer(TrainingArguments(**bench.plain(learning_rate=3e-4)))
    assert isinstance(trainer.args, SFTConfig) and trainer.args.learning_rate == 3e-4
    assert trainer.args.max_length == 1024
    refuses("max_length", lambda: TrainingArguments(**bench.plain(max_length=64)))
    assert bench.trainer(bench.config(max_length=64)).args.max_length == 64


def tokenizer_argument(bench: Bench, fate: str) -> None:
    assert fate == "`TypeError`"
    refuses(
        "tokenizer",
        lambda: SFTTrainer(
            model=bench.model,
            args=bench.config(),
            train_dataset=bench.rows,
            tokenizer=bench.tokenizer,
        ),
    )
    trainer = bench.trainer(processing_class=bench.tokenizer)
    assert trainer.processing_class is bench.tokenizer


def max_seq_length(bench: Bench, fate: str) -> None:
    assert fate == "`TypeError`"
    refuses("max_seq_length", lambda: bench.trainer(max_seq_length=1024))
    refuses("max_seq_length", lambda: bench.config(max_seq_length=1024))
    whole = bench.trainer(bench.config(max_length=1024)).train_dataset[0]["input_ids"]
    cut = bench.trainer(bench.config(max_length=len(whole) - 2)).train_dataset[0]["input_ids"]
    assert list(cut) == list(whole)[:-2]


def packing(bench: Bench, fate: str) -> None:
    assert fate == "`TypeError`"
    refuses("packing", lambda: bench.trainer(packing=True))
    assert len(bench.trainer(bench.config(max_length=256)).train_dataset) == 4
    packed = bench.trainer(bench.config(packing=True, max_length=256)).train_dataset
    assert len(packed) == 1, "four short examples fit into one row"


def completion_only_collator(bench: Bench, fate: str) -> None:
    assert fate == "`ImportError`"
    with pytest.raises(ImportError, match="DataCollatorForCompletionOnlyLM"):
        exec("from trl import DataCollatorForCompletionOnlyLM")
    for module in ("trl.trainer", "trl.trainer.utils"):
        assert not hasattr(__import__(module, fromlist=["x"]), "DataCollatorForCompletionOnlyLM")
    prompt = len(bench.tokenizer("Where does it live?")["input_ids"])
    for asked in (True, None):  # None is the default: it looks at the columns
        row = bench.trainer(bench.config(completion_only_loss=asked)).train_dataset[0]
        assert set(row["labels"][:prompt]) == {-100}
        assert list(row["labels"][prompt:]) == list(row["input_ids"][prompt:])
    # The columns matter: from whole texts TRL cannot know where the response begins.
    row = bench.trainer(bench.config(), rows=bench.texts).train_dataset[0]
    assert -100 not in row.get("labels", row["input_ids"])


def warmup(bench: Bench, fate: str) -> None:
    assert fate == "`TypeError`"
    refuses("warmup_ratio", lambda: bench.config(warmup_ratio=0.03))
    assert bench.config(warmup_steps=0.03).get_warmup_steps(1000) == 30
    assert bench.config(warmup_steps=7).get_warmup_steps(1000) == 7


def torch_dtype(bench: Bench, fate: str) -> None:
    assert fate == "works, with a warning"
    bench.model.save_pretrained(bench.folder)
    from transformers.utils import logging as chatter

    def load(**options: Any) -> tuple[torch.dtype, bool]:
        logger, records = logging.getLogger("transformers"), Records()
        level = chatter.get_verbosity()
        chatter.warning_once.cache_clear()  # said once per process, and perhaps before
        chatter.set_verbosity_warning()
        logger.addHandler(records)
        try:
            model = AutoModelForCausalLM.from_pretrained(bench.folder, **options)
        finally:
            logger.removeHandler(records)
            chatter.set_verbosity(level)
        return model.dtype, any("`torch_dtype` is deprecated" in said for said in records.said)

    assert load(torch_dtype=torch.bfloat16) == (torch.bfloat16, True)
    assert load(dtype=torch.bfloat16) == (torch.bfloat16, False)


def checkpointing(bench: Bench, fate: str) -> None:
    assert fate == "works, with a warning"
    with pytest.warns(FutureWarning, match="Use `activation_checkpointing` instead"):
        old = TrainingArguments(**bench.plain(gradient_checkpointing=True))
    assert old.activation_checkpointing is True
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert bench.config(activation_checkpointing=True).activation_checkpointing is True
        assert bench.config(activation_checkpointing=False).activation_checkpointing is False


# The new form as printed, and the test of the row.
ROWS: dict[str, tuple[str, Callable[[Bench, str], None]]] = {
    "`TrainingArguments(...)` for `SFTTrainer`": ("`SFTConfig(...)`", training_arguments),
    "`SFTTrainer(tokenizer=tok)`": ("`SFTTrainer(processing_class=tok)`", tokenizer_argument),
    "`SFTTrainer(max_seq_length=1024)`": ("`SFTConfig(max_length=1024)`", max_seq_length),
    "`SFTTrainer(packing=True)`": ("`SFTConfig(packing=True)`", packing),
    '`DataCollatorForCompletionOnlyLM("### Response:")`': (
        "columns `prompt` and `completion`, with `SFTConfig(completion_only_loss=True)` "
        "(the default for them)",
        completion_only_collator,
    ),
    "`warmup_ratio=0.03`": ("`warmup_steps=0.03` (below 1 it is a share)", warmup),
    "`from_pretrained(..., torch_dtype=...)`": ("`from_pretrained(..., dtype=...)`", torch_dtype),
    "`gradient_checkpointing=True`": ("`activation_checkpointing=True`", checkpointing),
}


def test_every_row_of_the_table_has_a_test() -> None:
    assert {old: new for old, (_, new) in table().items()} == {
        old: new for old, (new, _) in ROWS.items()
    }


@pytest.mark.parametrize("old", ROWS, ids=lambda old: re.sub(r"\W+", "-", old).strip("-"))
def test_row(old: str, bench: Bench) -> None:
    ROWS[old][1](bench, table()[old][0])


def test_the_table_is_about_this_trl() -> None:
    assert trl.__version__.startswith("1.16"), "read the table again for another TRL"
