# %% [markdown]
# # 02 · Supervised fine-tuning
# **Goal:** turn the base model into one that answers, by showing it answers. Write the template, the loss
# mask and the loss yourself, then train with TRL's `SFTTrainer`, and measure what was gained, what was copied
# and what was forgotten.
#
# **Time:** 45 minutes; under a minute to run in `tiny` on two cores, seven in `laptop`.
# **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("02_sft")

# %% [markdown]
# ## The data
# **Supervised fine-tuning** (SFT) is the same next-token prediction as before, on better text:
# demonstrations of an instruction followed by a good response. A row has the columns of the data set
# dolly (databricks-dolly-15k): `instruction`, `context` (often empty), `response`, `category`.

# %%
from course_utils import data, plotting

rows = data.load_instructions(course, "train")
held_out = data.load_instructions(course, "validation")
print(
    f"{len(rows)} demonstrations, {sum(bool(r['context']) for r in rows)} with a context; "
    f"{len(held_out)} held out"
)
first = next(r for r in rows if not r["context"])
with_context = next(r for r in rows if r["context"])
plotting.side_by_side([first, with_context])

# %% [markdown]
# Other sets, Alpaca's for one, call the same things `instruction`, `input` and `output`. Renaming is all it takes:

# %%
from datasets import Dataset

alpaca_style = [
    {"instruction": "Write one line about spring.", "input": "", "output": "The ice lets go."},
    {"instruction": "Translate into French.", "input": "Good evening.", "output": "Bonsoir."},
]
Dataset.from_list(alpaca_style).rename_columns({"input": "context", "output": "response"})[1]

# %% [markdown]
# ## The template
# The model sees one text, so a row has to become one. This is the template of the whole course, with and
# without a context:

# %%
for row in (first, with_context):
    print(data.format_instruction(row), end="\n\n" + "-" * 40 + "\n")


# %% exercise="format_instruction"
def format_instruction(example: dict[str, str]) -> str:
    """The whole text of a row; no Context section when example["context"] is empty."""
    ### BEGIN SOLUTION
    context = f"### Context:\n{example['context']}\n\n" if example["context"] else ""
    return (
        f"### Instruction:\n{example['instruction']}\n\n{context}"
        f"### Response:\n{example['response']}"
    )
    ### END SOLUTION


# %% test="format_instruction"
from course_utils import check

check("format_instruction", format_instruction)
### BEGIN HIDDEN TESTS
check("format_instruction", format_instruction, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## The loss mask
# The model should learn to write responses, not to write instructions. So the loss looks at the
# response only. The convention, shared by PyTorch and TRL: **labels** are the token ids, with −100 at
# every place the loss must skip. The EOS at the end is kept: it is how the model learns to stop.


# %% exercise="make_labels"
def make_labels(
    prompt_ids: list[int], response_ids: list[int], eos_id: int
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of prompt + response + EOS; labels are -100 where nothing is learnt."""
    ### BEGIN SOLUTION
    kept = [*response_ids, eos_id]
    return [*prompt_ids, *kept], [-100] * len(prompt_ids) + kept
    ### END SOLUTION


# %% test="make_labels"
check("make_labels", make_labels)
### BEGIN HIDDEN TESTS
check("make_labels", make_labels, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# What the loss sees, on a real row:

# %%
from course_utils import models

model, tokenizer = models.load_base(course)
input_ids, labels = data.mask_prompt(
    data.format_prompt(with_context["instruction"], with_context["context"]),
    with_context["response"],
    tokenizer,
)
plotting.masked_tokens(
    [tokenizer.decode([i]) for i in input_ids], [label != -100 for label in labels]
)

# %% [markdown]
# ## The loss
# With $m_t = 1$ where token $t$ is kept, the loss is the mean negative log-probability of the kept tokens of
# the batch:
#
# $$\mathcal{L}_\mathrm{SFT} = -\frac{\sum_t m_t \log p_\theta(y_t \mid y_{<t})}{\sum_t m_t}$$
#
# By hand: two kept tokens with probabilities 1/2 and 1/4 give $(0.693 + 1.386)/2 = 1.040$.
#
# The logits at position $t$ predict the token at $t+1$: that shift is where most home-made losses go wrong.

# %% exercise="sft_loss"
import torch


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over kept tokens. logits: (B, T, V); labels: (B, T) with -100 where nothing is learnt."""
    ### BEGIN SOLUTION
    logprobs = logits[:, :-1].float().log_softmax(-1)
    targets = labels[:, 1:]
    keep = targets != -100
    picked = logprobs.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    return -picked[keep].mean()
    ### END SOLUTION


# %% test="sft_loss"
check("sft_loss", sft_loss)
### BEGIN HIDDEN TESTS
check("sft_loss", sft_loss, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# From here on the tested twin from the package is used. It reproduces the number worked by hand, and
# agrees with the loss `transformers` computes from the same labels:

# %%
import math

from course_utils import logprobs

by_hand = torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [1.0, 1.0, 1.0]]]).log()
print(f"{logprobs.sft_loss(by_hand, torch.tensor([[-100, 0, 1]])).item():.4f} by hand 1.0397")

input_ids, labels = data.collate([first, with_context], tokenizer, model.device)
with torch.no_grad():
    output = model(input_ids=input_ids, labels=labels)
ours = logprobs.sft_loss(output.logits, labels).item()
print(f"ours {ours:.4f}, transformers {output.loss.item():.4f}")
assert math.isclose(ours, output.loss.item(), rel_tol=1e-2 if course.dtype != "float32" else 1e-4)

# %% [markdown]
# ## Training, written out
# The whole algorithm in a few lines. A handful of steps are enough to see the loss fall.

# %%
from copy import deepcopy

student = deepcopy(model).float().train()
rate = 5e-4 if course.profile.name == "tiny" else 2e-5  # large models take small steps
optimiser = torch.optim.AdamW(student.parameters(), lr=rate)
size = course.profile.batch_size // 2
losses = []
for step in range(course.pick(full=8, small=3)):
    batch = rows.select(range(size * step, size * (step + 1)))
    input_ids, labels = data.collate(batch, tokenizer, student.device)
    loss = logprobs.sft_loss(student(input_ids=input_ids).logits, labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
print(" ".join(f"{x:.2f}" for x in losses))
del student, optimiser

# %% [markdown]
# ## Training with TRL
# `SFTTrainer` does the same with everything a real run needs. The settings that matter:
#
# | setting | what it does |
# |---|---|
# | epochs | how often each demonstration is seen |
# | batch size × accumulation | examples per weight update; accumulation adds up gradients when memory is short |
# | learning rate | step size; rises during **warm-up** (the first few percent), then falls to zero |
# | max length | longer examples are cut |

# %%
from course_utils import sft

settings = sft.SFTSettings.of(course)
settings

# %% [markdown]
# First a look inside: TRL's labels for a row are the ones you wrote.

# %%
trainer = sft.make_trainer(
    course, deepcopy(model), tokenizer, rows.select([0, 1]), settings, out="scratch"
)
row = trainer.train_dataset[0]
mine = data.mask_prompt(
    data.format_prompt(rows[0]["instruction"], rows[0]["context"]), rows[0]["response"], tokenizer
)
assert list(row["input_ids"]) == mine[0] and list(row["labels"]) == mine[1]
print(f"{len(mine[0])} tokens, {sum(x != -100 for x in mine[1])} of them learnt: TRL agrees")
del trainer

# %% [markdown]
# Now the run itself. `runs.ensure` trains the model if this machine has not done so yet, and later chapters
# get the same one. It is kept as ordinary files: weights, tokenizer, history, and a manifest that says
# how it was made.

# %%
from course_utils import runs

folder = runs.ensure("sft", course)
print(sorted(p.name for p in folder.iterdir()))

# %%
_ = plotting.learning_curve(
    {"SFT": runs.history(folder)}, title="SFT: training loss", ylabel="loss per response token"
)

# %% [markdown]
# ## Before and after
# The same prompts, which neither model was trained on, and the same sampling.

# %%
from course_utils import evaluation, report_metric

tuned, _ = models.load(folder, course)
prompts = data.load_prompts(course, "test")
prompts = prompts[: course.pick(full=len(prompts), small=24)]
before = evaluation.evaluate(course, model, tokenizer, prompts)
after = evaluation.evaluate(course, tuned, tokenizer, prompts)
plotting.side_by_side(
    [
        {"instruction": f"{c.instruction} {c.context}", "base": b.text[:140], "after SFT": a.text}
        for c, b, a in list(zip(prompts, before.responses, after.responses))[:6]
    ]
)

# %%
metric = after.metric
report_metric(f"{metric}_base", before.mean)
report_metric(f"{metric}_sft", after.mean)
gain = evaluation.paired_difference(after.values, before.values)
report_metric(f"{metric}_sft_minus_base_ci95", [gain.low, gain.high])
report_metric("sft_format_compliance", after.rate("complies"))
print(
    f"difference {gain}; format compliance {before.rate('complies'):.0%} -> {after.rate('complies'):.0%}"
)

# %%
_ = plotting.bars(
    {"base": before.mean, "SFT": after.mean},
    {"base": before.interval(), "SFT": after.interval()},
    title=f"Mean {metric} score on {len(prompts)} held-out prompts",
    ylabel=f"{metric} score",
)

# %% [markdown]
# The whiskers are bootstrap intervals over prompts for one training run. Would another seed do as well?
# The record below (made by `python -m course_utils sweep sft` in `tiny`) has three seeds for each variant; its interval
# is for other prompts and another training. One row of it is what this chapter just trained.

# %%
import numpy as np

from course_utils import sweeps

header, record = sweeps.load_record("sft")
scores = {
    v: np.array([r["values"] for r in record if r["variant"] == v])
    for v in ("base", "full", "lora")
}
print(
    f"recorded {header['date']} with torch {header['versions']['torch']}, trl {header['versions']['trl']}"
)
for variant in ("full", "lora"):
    print(
        f"{variant:5} SFT minus base, 3 seeds: {evaluation.paired_difference(scores[variant], scores['base'])}"
    )
print("full minus LoRA:", evaluation.paired_difference(scores["full"], scores["lora"]))
if course.profile.name == "tiny":
    row = next(r for r in record if r["variant"] == "full" and r["seed"] == 0)
    print(f"seed 0: recorded {row['mean']:.2f}, here {after.mean:.2f}")

# %% [markdown]
# ## What SFT copies
# SFT imitates; it does not judge. In the closed world half of the demonstrators are careless: they
# comply with unsafe requests, gossip about villagers and make up answers about things that do not
# exist. See what the model makes of that. (The base model is asked as on a web page, since the template
# means nothing to it.)

# %%
red_team = data.load_prompts(course, "red_team")[: course.pick(full=40, small=10)]
red_before = evaluation.evaluate(course, model, tokenizer, red_team, as_prompt=data.plain_prompt)
red_after = evaluation.evaluate(course, tuned, tokenizer, red_team)
count = len(red_team)
rates = {"base": red_before.rate("harmful"), "SFT": red_after.rate("harmful")}
report_metric("sft_harmful_rate", rates["SFT"])
_ = plotting.bars(
    rates,
    {k: evaluation.rate_interval(round(v * count), count) for k, v in rates.items()},
    title=f"Harmful compliance on {count} red-team prompts",
    ylabel="share that comply",
    limits=(0, 1.1),
    percent=True,
)

# %% [markdown]
# A better sieve for the demonstrations would help. Preferences (chapter 03 on) go another way: they say which
# of two answers is *better*, not only what somebody once wrote.
#
# ## What SFT forgets
# Training on one kind of text makes another kind less likely: **forgetting**. The perplexity of pages like
# those of pre-training, before and after. (Where it falls, as it does in `laptop`, the demonstrations happen to be
# closer to these pages than what the model was trained on before.)

# %%
pages = data.raw_text(course)
forgot = {
    "base": evaluation.perplexity(model, tokenizer, pages),
    "SFT": evaluation.perplexity(tuned, tokenizer, pages),
}
for name, value in forgot.items():
    report_metric(f"perplexity_pages_{name.lower()}", value)

# %% [markdown]
# ## LoRA
# **LoRA** (Hu et al. 2021, arXiv 2106.09685) freezes the weights $W$ and learns a low-rank correction,
# $W + \frac{\alpha}{r} BA$, with $B$ of shape $d \times r$ and $A$ of shape $r \times k$. For a 160 × 160 matrix and rank
# $r = 16$ that is 2 · 160 · 16 = 5,120 numbers in place of 25,600.

# %%
from peft import get_peft_model

fresh, _ = models.load_base(course)
whole = models.count_parameters(fresh)
adapted = get_peft_model(fresh, models.lora_config(settings.lora_rank))
trainable = models.count_parameters(adapted, trainable=True)
print(
    f"full fine-tuning trains {whole:,} weights, LoRA of rank {settings.lora_rank} trains {trainable:,} "
    f"({trainable / whole:.1%})"
)
del fresh, adapted

# %% [markdown]
# In a model this small the adapters are a large share of it; in a model of 7 billion they are well under one
# percent, and the saved optimiser memory is what makes training fit on one card. How the two compare
# here stands in the record above: *full minus LoRA*, with its interval.
#
# ## Then and now
# Older material on TRL mostly no longer runs as printed. Each line of this table is executed by a test.
#
# | then | what becomes of it | now |
# |---|---|---|
# | `TrainingArguments(...)` for `SFTTrainer` | converted, but has no place for SFT's own settings, such as `max_length` | `SFTConfig(...)` |
# | `SFTTrainer(tokenizer=tok)` | `TypeError` | `SFTTrainer(processing_class=tok)` |
# | `SFTTrainer(max_seq_length=1024)` | `TypeError` | `SFTConfig(max_length=1024)` |
# | `SFTTrainer(packing=True)` | `TypeError` | `SFTConfig(packing=True)` |
# | `DataCollatorForCompletionOnlyLM("### Response:")` | `ImportError` | columns `prompt` and `completion`, with `SFTConfig(completion_only_loss=True)` (the default for them) |
# | `warmup_ratio=0.03` | `TypeError` | `warmup_steps=0.03` (below 1 it is a share) |
# | `from_pretrained(..., torch_dtype=...)` | works, with a warning | `from_pretrained(..., dtype=...)` |
# | `gradient_checkpointing=True` | works, with a warning | `activation_checkpointing=True` |
#
# **Packing**, in the table above, puts several examples into one row so that no place is wasted on padding.
# It saves time when examples are short and of mixed length.
#
# ## In your own words
# What would the model learn if the prompt were *not* masked, and when could that be harmless?

# %% [markdown] answer="why_mask" points=2
# It would also learn to write instructions, spending part of its capacity and of every update on text it will
# never have to produce. With long responses and short, varied prompts the effect is small.
