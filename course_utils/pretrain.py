"""Pre-train the tiny base model on raw text: ``python -m course_utils pretrain``.

A Llama of about 1.6 million parameters with its own byte-level BPE tokenizer, trained from scratch
on generated text. Deliberate simplifications:

1. pages are packed one after another with an EOS between them; attention may look across it;
2. one pass over text that is generated once, no validation split: the world is its own test;
3. float32 and a plain loop, so that any machine gives nearly the same model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from .models import TINY_BASE, count_parameters
from .paths import data_dir
from .templates import CHAT_TEMPLATE, format_prompt

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HELP = "pre-train the tiny base model from scratch"
EOS, PAD = "<eos>", "<pad>"
DOCUMENTS_PER_PAGE = (3, 8)


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe of the shipped base model.

    Attributes:
        hidden, layers, heads, intermediate: the Llama architecture.
        vocabulary: size of the tokenizer, special tokens included.
        sequence: tokens per training row.
        batch: rows per step.
        steps: optimiser steps.
        learning_rate: peak, after `warmup` steps; cosine decay to a tenth.
    """

    seed: int = 14
    hidden: int = 160
    layers: int = 4
    heads: int = 5
    intermediate: int = 448
    vocabulary: int = 2048
    sequence: int = 128
    batch: int = 32
    steps: int = 2000
    warmup: int = 60
    learning_rate: float = 3e-3
    weight_decay: float = 0.1


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: it can write any text, and the world's words are one or two tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=PAD)
    tokenizer.padding_side = "left"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama with tied embeddings; weights depend on torch's seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            attention_dropout=0.0,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _corpus(config: PretrainConfig) -> list[str]:
    """Pages of several documents each: as on the web, one thing follows another."""
    from .world.text import documents

    rng = random.Random(f"{config.seed}-pages")
    source = (text for _, text in documents(config.seed))
    # About 38 tokens a document; a tenth more than needed.
    count = int(1.1 * config.steps * config.batch * config.sequence / 38)
    pages: list[str] = []
    while count > 0:
        size = rng.randint(*DOCUMENTS_PER_PAGE)
        pages.append("\n\n".join(islice(source, size)))
        count -= size
    return pages


def pack(texts: list[str], tokenizer: PreTrainedTokenizerFast, sequence: int) -> torch.Tensor:
    """Token rows (rows, sequence), pages separated by EOS, the ragged end dropped."""
    import torch

    stream: list[int] = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        stream += [*ids, tokenizer.eos_token_id]
    rows = len(stream) // sequence
    return torch.tensor(stream[: rows * sequence]).view(rows, sequence)


def train(config: PretrainConfig, out: Path, progress: bool = True) -> list[dict[str, float]]:
    """Train and save model, tokenizer and log under `out` (replaced only when all is written)."""
    import torch
    from tqdm.auto import tqdm
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    random.seed(config.seed)
    torch.manual_seed(config.seed)
    began = time.time()
    texts = _corpus(config)
    # The template's own words are in the vocabulary, but the base model never reads them.
    tokenizer = train_tokenizer(
        [*texts[:4_000], *[format_prompt("a", "b")] * 200], config.vocabulary
    )
    rows = pack(texts, tokenizer, config.sequence)
    if len(rows) < config.steps * config.batch:
        raise RuntimeError(
            f"the corpus has {len(rows)} rows, {config.steps * config.batch} are needed"
        )
    model = make_model(config, tokenizer)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimiser, config.warmup, config.steps, min_lr_rate=0.1
    )
    log: list[dict[str, float]] = []
    for step in tqdm(range(config.steps), desc="pre-training", disable=not progress, mininterval=5):
        batch = rows[step * config.batch : (step + 1) * config.batch]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0 or step == config.steps - 1:
            log.append(
                {
                    "step": step,
                    "loss": round(loss.item(), 4),
                    "tokens": (step + 1) * config.batch * config.sequence,
                    "seconds": round(time.time() - began, 1),
                }
            )
    _save(model, tokenizer, config, log, out)
    return log


def _save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    config: PretrainConfig,
    log: list[dict[str, float]],
    out: Path,
) -> None:
    from ._setup import versions

    out.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(dir=out.parent))
    model.generation_config.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    record = {
        "config": asdict(config),
        "versions": versions(),
        "parameters": count_parameters(model),
        "log": log,
    }
    try:
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
        (tmp / "training_log.json").write_text(json.dumps(record, indent=1) + "\n")
        if out.exists():
            shutil.rmtree(out)
        os.replace(tmp, out)
    except BaseException:  # Ctrl-C included: nothing half-written beside the shipped model
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    out.chmod(0o755)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=None, help="folder (default: the shipped model)"
    )
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)


def main(args: argparse.Namespace) -> int:
    out = args.out or data_dir() / TINY_BASE
    log = train(PretrainConfig(steps=args.steps, seed=args.seed), out)
    first, last = log[0]["loss"], log[-1]["loss"]
    print(f"loss {first:.2f} -> {last:.2f} in {log[-1]['seconds']:.0f} s; saved {out}")
    return 0
