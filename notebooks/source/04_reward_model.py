# %% [markdown]
# # 04 · The reward model
# **Goal:** turn "people preferred this answer to that one" into a number for every answer. Derive and code the
# loss, train the model with TRL's `RewardTrainer`, and find out how right it is, how sure of itself, and which
# of its annotators' habits it has picked up.
#
# **Time:** 50 minutes; about a minute and a half to run in `tiny` on two cores, seven minutes in `laptop`.
# **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("04_reward_model")

# %% [markdown]
# ## The pairs
# A **preference pair** is a prompt with two answers, `chosen` and `rejected`. In the closed world the
# annotators are simulated: five of them, with known habits. Each is noisy, likes long and cheerful answers
# more than it should, and overlooks some false facts. Three of the five vote on each pair and the majority decides.
# (In other profiles the pairs are hh-rlhf's, one vote each, and nobody knows the annotators' habits or the truth.)

# %%
from course_utils import data, plotting

world = course.profile.preferences == "world"
pairs = data.load_preferences(course, "train")
test = data.load_preferences(course, "test")
test = test.select(range(min(len(test), 300)))
print(f"{len(pairs)} pairs to learn from, {len(test)} held out")
shown = ("prompt", "chosen", "rejected", "votes", "margin", "gold_chosen", "gold_rejected")
plotting.side_by_side([{key: pairs[0][key] for key in shown}])

# %% [markdown]
# `votes` is the share of votes for `chosen`. The two `gold` columns are for measuring only; training never sees them.

# %%
if world:
    from dataclasses import asdict

    from IPython.display import display

    from course_utils.world.preferences import ANNOTATORS

    display(plotting.side_by_side([asdict(annotator) for annotator in ANNOTATORS]))

# %% [markdown]
# ## From choices to a loss
# Bradley and Terry (1952) give every answer a score $r$, and let the odds of a choice be the ratio of $e^r$:
#
# $$P(\text{chosen preferred}) = \frac{e^{r_c}}{e^{r_c} + e^{r_r}} = \frac{1}{1 + e^{-(r_c - r_r)}} = \sigma(r_c - r_r)$$
#
# The scores that make the observed choices most likely minimise the mean negative log of that:
#
# $$\mathcal{L} = -\log \sigma(r_c - r_r)$$
#
# By hand: scores 1.2 and 0.2 differ by 1, so $P = \sigma(1) = 0.731$ and the loss is $-\log 0.731 = 0.313$. With scores
# 101.2 and 100.2 nothing changes: only differences within a prompt mean anything.
#
# Where annotators also say *how clearly* they prefer, the difference can be asked to reach a **margin** $m$:
# $-\log \sigma(r_c - r_r - m)$ (Llama 2, Touvron et al. 2023, arXiv 2307.09288).


# %% exercise="bradley_terry_loss"
import torch


def bradley_terry_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Mean over pairs of -log sigmoid(chosen - rejected - margin); finite however large they are.

    chosen, rejected: (N,); margin: (N,) or one number.
    """
    ### BEGIN SOLUTION
    return -torch.nn.functional.logsigmoid(chosen - rejected - margin).mean()
    ### END SOLUTION


# %% test="bradley_terry_loss"
from course_utils import check

check("bradley_terry_loss", bradley_terry_loss)
### BEGIN HIDDEN TESTS
check("bradley_terry_loss", bradley_terry_loss, hidden=True)
### END HIDDEN TESTS

# %%
from course_utils import reward

by_hand = reward.bradley_terry_loss(torch.tensor([1.2]), torch.tensor([0.2])).item()
print(f"{by_hand:.3f} by hand 0.313")
assert abs(by_hand - 0.313) < 5e-4

# %% [markdown]
# ## A pair as the model sees it
# Two sequences, each prompt + answer + EOS. The shorter one is padded, and an **attention mask** says which
# places are real.


# %% exercise="pair_ids"
def pair_ids(
    prompt_ids: list[int],
    chosen_ids: list[int],
    rejected_ids: list[int],
    eos_id: int,
    pad_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(input_ids, attention_mask), both (2, T): chosen in row 0, padding on the right.

    pad_id may be the same number as eos_id.
    """
    ### BEGIN SOLUTION
    rows = [[*prompt_ids, *answer, eos_id] for answer in (chosen_ids, rejected_ids)]
    longest = max(len(row) for row in rows)
    input_ids = [row + [pad_id] * (longest - len(row)) for row in rows]
    attention_mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(input_ids), torch.tensor(attention_mask)
    ### END SOLUTION


# %% test="pair_ids"
check("pair_ids", pair_ids)
### BEGIN HIDDEN TESTS
check("pair_ids", pair_ids, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## The model
# A language model with its last layer replaced by one output: `AutoModelForSequenceClassification` with
# `num_labels=1`. The body comes from the SFT model, so it can already read; only the new output is random.

# %%
from course_utils import models, runs

sft_folder = runs.ensure("sft", course)
model, tokenizer = reward.new_reward_model(sft_folder, course)
print(type(model).__name__, f"{models.count_parameters(model):,} weights, new:", model.score)

# %% [markdown]
# TRL does the tokenising of pairs by itself, from the columns `prompt`, `chosen` and `rejected`. For
# a real pair it makes what the course's own `reward.pair_ids` makes:

# %%
from tempfile import mkdtemp

from trl import RewardTrainer

settings = reward.RewardSettings.of(course)
arguments = reward.training_arguments(course, settings, mkdtemp(), seed=0)
texts = pairs.select([0, 1]).select_columns(["prompt", "chosen", "rejected"])
trainer = RewardTrainer(
    model=model, args=arguments, train_dataset=texts, processing_class=tokenizer
)
for mine, theirs in zip(texts, trainer.train_dataset):
    chosen_ids, rejected_ids = reward.pair_ids(mine, tokenizer, settings.max_length)
    assert chosen_ids == list(theirs["chosen_ids"])
    assert rejected_ids == list(theirs["rejected_ids"])
    print(f"{len(chosen_ids)} and {len(rejected_ids)} tokens: TRL agrees")
del trainer

# %% [markdown]
# The output gives a number at *every* token. A causal model's token has seen only what stands before
# it, so the score of an answer is the number at its last token, the EOS.


# %% exercise="last_scores"
def last_scores(scores: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The score at each row's last kept token, wherever the padding is.

    scores: (B, T), one per token; attention_mask: (B, T). Returns (B,).
    """
    ### BEGIN SOLUTION
    places = torch.arange(scores.shape[1], device=scores.device)
    last = (places * attention_mask).argmax(-1, keepdim=True)
    return scores.gather(1, last).squeeze(1)
    ### END SOLUTION


# %% test="last_scores"
check("last_scores", last_scores)
### BEGIN HIDDEN TESTS
check("last_scores", last_scores, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# `transformers` does not use the mask for this: it looks for the last token that is not the *padding token*. Where
# padding and EOS are the same token, as much older code sets them, it reads the score one token too early. The
# course keeps the two apart.

# %%
model, tokenizer = reward.new_reward_model(sft_folder, course)
ids = torch.tensor([reward.pair_ids(texts[0], tokenizer, settings.max_length)[0]])
ids = ids.to(model.device)
with torch.no_grad():
    per_token = model.score(model.base_model(input_ids=ids).last_hidden_state)[0, :, 0]
    at_eos = model(input_ids=ids).logits.item()
    pad_id, model.config.pad_token_id = model.config.pad_token_id, tokenizer.eos_token_id
    confused = model(input_ids=ids).logits.item()
    model.config.pad_token_id = pad_id
print(f"per token, the last three: {[round(x, 3) for x in per_token[-3:].tolist()]}")
print(f"transformers: {at_eos:.3f}; with the EOS as padding: {confused:.3f}")

# %% [markdown]
# ## Training, written out
# Score both answers, take the loss, step. A few steps, to see that nothing is hidden:

# %%
student = model.float().train()
optimiser = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate)
size = course.profile.batch_size // 2
losses = []
for step in range(course.pick(full=4, small=3)):
    batch = pairs.select(range(size * step, size * (step + 1)))
    ids = [reward.pair_ids(row, tokenizer, settings.max_length) for row in batch]
    rows = [chosen for chosen, _ in ids] + [rejected for _, rejected in ids]
    padded = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
    scores = student(**padded.to(student.device)).logits[:, 0]
    loss = reward.bradley_terry_loss(*scores.chunk(2))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
print(" ".join(f"{x:.2f}" for x in losses), "(knowing nothing gives ln 2 = 0.69 on average)")
del student, model, optimiser

# %% [markdown]
# ## Training with TRL
# `RewardTrainer` does the same with everything a real run needs. Few passes over the pairs: a reward model soon
# knows them by heart. The curve of held-out pairs shows whether it does.
#
# The pairs you labelled in chapter 03 are trained on, too. (Where nobody did, and a simulated annotator labelled in your
# place, these are.) Set the environment variable `COURSE_LABELS=none` to go without.

# %%
from course_utils import labeling

print(f"{len(pairs)} voted pairs and {labeling.own_labels(course)}")
print(settings)
folder = runs.ensure("reward", course)
history = runs.history(folder)

# %%
import math

ax = plotting.learning_curve(
    {"training pairs": [row for row in history if "loss" in row]},
    title="Reward model: Bradley–Terry loss",
    ylabel="loss per pair",
    floor=("ln 2, knowing nothing", math.log(2)),
)
looks = [row for row in history if "eval_loss" in row]
held_out = [row["eval_loss"] for row in looks]
ax.plot([row["step"] for row in looks], held_out, marker="o", label="held-out pairs")
_ = ax.legend()

# %% [markdown]
# ## Asking for a score
# `get_reward(model, tokenizer, prompt, response)` gives one number. By itself it means nothing; beside that of
# another answer to the same prompt it does.

# %%
model, tokenizer = reward.load_reward_model(folder, course)
show = data.showcase(course)
prompt = data.format_prompt(show.question)
for name, answer in (("good", show.statement), ("bad", "Go and look it up yourself.")):
    score = reward.get_reward(model, tokenizer, prompt, answer)
    print(f"{name} answer: {score:+.3f}  {answer}")

# %% [markdown]
# One at a time is slow. `get_rewards` takes many, puts texts of like length into one batch, and gives the same
# numbers:

# %%
import time

prompts = [row["prompt"] for row in test][:100]
answers = [row["chosen"] for row in test][:100]
began = time.perf_counter()
single = [reward.get_reward(model, tokenizer, p, a) for p, a in zip(prompts, answers)]
middle = time.perf_counter()
batched = reward.get_rewards(model, tokenizer, prompts, answers)
ended = time.perf_counter()
apart = max(abs(a - b) for a, b in zip(single, batched))
print(f"one at a time {middle - began:.2f} s, batched {ended - middle:.2f} s; apart {apart:.1e}")
spread = max(single) - min(single)  # 16-bit numbers have two or three digits
assert apart < (1e-4 if course.dtype == "float32" else 0.05 * spread)

# %% [markdown]
# ## How often is it right?
# **Accuracy** is the share of held-out pairs whose chosen answer gets the higher score. But what is right? The
# voted labels are noisy: no model can agree with all of them, and none should. Since the annotators are
# simulated, what is possible is known exactly:
#
# - **gold**: somebody who knows the truth and always names the better answer;
# - **repeat**: another panel of the same annotators, voting afresh;
# - **habits**: somebody who also knows every annotator's habits and names what a panel will most likely choose. Nobody
#   can expect to do better on such labels; this is the ceiling.
#
# Some of that is prediction of mistakes. What we want is agreement with **gold**: accuracy on the **clean** labels,
# where gold decides and pairs too close to call are left out.

# %%
from course_utils import evaluation, report_metric

margins = reward.pair_margins(model, tokenizer, test)
noisy = reward.accuracy(margins)
report_metric("rm_accuracy_noisy", noisy)
low, high = evaluation.rate_interval(round(noisy * len(test)), len(test))
print(f"on {len(test)} voted pairs, 95% interval {low:.3f} to {high:.3f}")

# %%
if world:
    ceiling = reward.noise_ceiling(test, data.load_prompts(course, "test"))
    report_metric("rm_noise_ceiling", ceiling.habits)
    print(f"gold {ceiling.gold:.3f}, repeat {ceiling.repeat:.3f}, habits {ceiling.habits:.3f}")
    clean = data.load_preferences(course, "test", labels="clean")
    agrees = reward.accuracy(reward.pair_margins(model, tokenizer, clean))
    report_metric("rm_gold_agreement", agrees)
    low, high = evaluation.rate_interval(round(agrees * len(clean)), len(clean))
    print(f"on {len(clean)} clean pairs, 95% interval {low:.3f} to {high:.3f}")
    right = sum(row["votes"] > 0.5 for row in clean)
    print(f"the votes themselves agree with gold on {right / len(clean):.3f} of them")

# %% [markdown]
# ## More pairs, better labels
# The record below (made by `python -m course_utils sweep reward` in `tiny`) has reward models trained on 300, 1200
# and 4800 pairs, three seeds each; a seed draws its own pairs. `clean` was trained on gold's own choices, with fewer
# than 4800 pairs, since ties are left out; `votes` as above; `margin` on votes with margins, 1 where all three
# agreed and 1/3 where two did. The recipe is the same for all, so fewer pairs also mean fewer steps.

# %%
import numpy as np

from course_utils import sweeps

header, record = sweeps.load_record("reward")
sizes = sorted({row["pairs"] for row in record})
print(f"recorded {header['date']} with torch {header['versions']['torch']}")


def recorded(labels: str, count: int, column: str) -> np.ndarray:
    """One number per seed."""
    rows = [row for row in record if (row["labels"], row["pairs"]) == (labels, count)]
    return np.array([row[column] for row in sorted(rows, key=lambda row: row["seed"])])


ax = plotting.axes()
kinds = ("clean", "votes", "margin")
for labels, colour in zip(kinds, plotting.colours(kinds)):
    used = [recorded(labels, count, "used")[0] for count in sizes]
    seeds = np.array([recorded(labels, count, "clean") for count in sizes])
    ax.plot(used, seeds.mean(1), marker="o", color=colour, label=labels)
    ax.fill_between(used, seeds.min(1), seeds.max(1), color=colour, alpha=0.15)
ax.set(
    xscale="log",
    xlabel="training pairs",
    ylabel="accuracy on clean pairs",
    title="Accuracy by training labels: mean and range of 3 seeds",
)
ax.set_xticks(sizes, [str(count) for count in sizes])
ax.minorticks_off()
_ = ax.legend(title="trained on")

# %%
for labels in kinds:
    for count in sizes:
        on_clean, on_votes = recorded(labels, count, "clean"), recorded(labels, count, "votes")
        print(
            f"{labels:6} {recorded(labels, count, 'used')[0]:5} pairs: "
            f"clean {on_clean.mean():.3f} ({on_clean.min():.3f} to {on_clean.max():.3f}), "
            f"votes {on_votes.mean():.3f} ({on_votes.min():.3f} to {on_votes.max():.3f})"
        )
best = recorded("clean", sizes[-1], "clean")
if world:
    report_metric("rm_accuracy_clean", best.mean())
    print(f"(recorded, all clean pairs, mean of {len(best)} seeds)")

# %% [markdown]
# Do the margins help? Seed by seed, the same pairs with margins and without. Three seeds can show a large
# effect, not a small one; where the signs differ, read it as inconclusive.

# %%
for count in sizes:
    gains = recorded("margin", count, "clean") - recorded("votes", count, "clean")
    print(f"{count:5} pairs: margin minus votes", " ".join(f"{gain:+.3f}" for gain in gains))

# %% [markdown]
# One row of the record, trained again here:

# %%
if world:
    again = sweeps.reward_row(course, "clean", sizes[0], seed=0)
    kept = next(
        row
        for row in record
        if [row[k] for k in ("labels", "pairs", "seed")] == ["clean", sizes[0], 0]
    )
    print(f"clean labels, {sizes[0]} pairs, seed 0")
    print(f"recorded {kept['clean']:.3f}, here {again['clean']:.3f}")

# %% [markdown]
# ## How sure, and how right?
# $\sigma(r_c - r_r)$ is a claim: the probability of this choice. A model is **calibrated** when of all pairs where it
# claims 80%, 80% come out that way. Since which answer is *called* chosen is known only afterwards, we ask about the side
# the model prefers: it claims $\sigma(|r_c - r_r|)$, and it is right when the annotators chose that side.

# %%
curve = reward.calibration(margins)
_ = plotting.calibration_curve(
    {"reward model": (curve.predicted, curve.observed, curve.count)},
    title=f"Calibration on {len(test)} voted pairs",
    xlabel="claimed: σ(|difference of scores|)",
    ylabel="share the annotators chose",
)

# %% [markdown]
# Points below the diagonal: surer than it should be. As one number, the **expected calibration error** (Guo et al.
# 2017, arXiv 1706.04599): cut the claims into bins and average the gap, |share of wins − mean claim|, over the bins, each
# weighted by its share of the pairs.
#
# By hand: four pairs claimed at 0.6 of which two win, and one claimed at 0.9 that wins:
# 4/5 · |0.5 − 0.6| + 1/5 · |1 − 0.9| = 0.1.


# %% exercise="calibration_error"
def calibration_error(margins: torch.Tensor, wins: torch.Tensor, bins: int = 10) -> float:
    """Expected calibration error of p = sigmoid(margin), with `bins` equal bins over [0, 1].

    margins: (N,), score of the first answer less that of the second; wins: (N,), 1 where the
    first was preferred, else 0. Empty bins count nothing; p = 1 belongs to the last bin.
    """
    ### BEGIN SOLUTION
    p = margins.double().sigmoid()
    place = (p * bins).long().clamp(max=bins - 1)
    total = 0.0
    for index in place.unique():
        inside = place == index
        gap = wins[inside].double().mean() - p[inside].mean()
        total += float(inside.double().mean() * gap.abs())
    return total
    ### END SOLUTION


# %% test="calibration_error"
check("calibration_error", calibration_error)
### BEGIN HIDDEN TESTS
check("calibration_error", calibration_error, hidden=True)
### END HIDDEN TESTS

# %%
gaps = np.abs(curve.observed - curve.predicted)
print(f"calibration error {float((gaps * curve.count).sum() / curve.count.sum()):.3f}")
print(f"claims {curve.predicted @ curve.count / curve.count.sum():.3f}, right {noisy:.3f}")

# %% [markdown]
# ## What it learnt from its annotators
# Now an experiment that needs no labels. Take held-out answers, change *one thing*, and look at the score: add
# an empty sentence, add a cheerful one, add a rude one, or make one of the facts false. (In the training pairs
# a rude sentence behind an answer always comes with one in front.) Beside it stand what a panel of the annotators
# would say (exact, since they are simulated) and what gold says.

# %%
if world:
    import random

    from course_utils.world import gold
    from course_utils.world import vocabulary as voc
    from course_utils.world.facts import make_world
    from course_utils.world.preferences import majority_probability

    things = make_world().by_name
    cases = {
        case.case_id: case
        for split in ("test", "validation")
        for case in data.load_prompts(course, split)
    }
    rng = random.Random(0)

    def made_false(case, answer: str) -> str | None:
        """The answer with one true fact about its topic replaced by a false one, if it has any."""
        for attribute, value in things[case.topics[0]].facts.items():
            if value in answer:
                others = [v for v in voc.VALUES[case.category][attribute] if v != value]
                return answer.replace(value, rng.choice(others))
        return None

    plain = []  # answers with a fact in them, and nothing cheerful, empty or rude
    for row in [*test, *data.load_preferences(course, "validation")]:
        case = cases[row["case_id"]]
        for answer in (row["chosen"], row["rejected"]):
            if case.task not in ("attribute", "explain", "compare", "alarming"):  # about things
                continue
            if any(phrase in answer for phrase in (*voc.CHEERS, *voc.PADDING, *voc.RUDE)):
                continue
            false = made_false(case, answer)
            if false is not None:
                plain.append((row["prompt"], case, answer, false))
    plain = plain[: course.pick(full=len(plain), small=100)]
    print(f"{len(plain)} answers")
    print("the first:", plain[0][2])
    print("made false:", plain[0][3])

# %%
if world:
    changed = {
        "an empty sentence": [f"{a} {rng.choice(voc.PADDING)}" for _, _, a, _ in plain],
        "a cheerful sentence": [f"{a} {rng.choice(voc.CHEERS)}" for _, _, a, _ in plain],
        "a rude sentence in front": [f"{rng.choice(voc.RUDE)} {a}" for _, _, a, _ in plain],
        "a rude sentence behind": [f"{a} {rng.choice(voc.RUDE)}" for _, _, a, _ in plain],
        "a false fact": [false for *_, false in plain],
    }
    asked = [prompt for prompt, *_ in plain]
    before = np.array(reward.get_rewards(model, tokenizer, asked, [a for _, _, a, _ in plain]))
    golds = np.array([gold.score(case, a).total for _, case, a, _ in plain])
    table = []
    for name, edited in changed.items():
        change = np.array(reward.get_rewards(model, tokenizer, asked, edited)) - before
        low, high = evaluation.mean_interval(change)
        panel = [majority_probability(c, e, a) for (_, c, a, _), e in zip(plain, edited)]
        judged = [gold.score(c, e).total for (_, c, _, _), e in zip(plain, edited)]
        table.append(
            {
                "changed": name,
                "score changes by": f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                "score rises in": f"{(change > 0).mean():.0%}",
                "a panel prefers it in": f"{np.mean(panel):.0%}",
                "gold changes by": f"{(np.array(judged) - golds).mean():+.2f}",
            }
        )
    print(
        f"spread of the scores of the unchanged answers (one standard deviation): {before.std():.2f}"
    )
    display(plotting.side_by_side(table))

# %% [markdown]
# (95% bootstrap intervals over answers, for the one model trained here.) Where the score and the panel go one way and gold
# does not, the model has not failed at its task: it learnt what the votes taught it. A policy trained on this score will
# be paid for it, which is chapter 05's trouble. Where the panel objects and the score does not move, the model sees
# nothing to object to.
#
# ## What it cannot see
# The gold score has parts. Sorting the clean held-out pairs by the part in which the two answers differ most shows
# what the model judges well and what it does not. Whether a fact is true is nowhere in the text; the model
# would have to know the world by heart.

# %%
if world:
    groups: dict[str, list[bool]] = {}
    clean = [
        row
        for split in ("test", "validation")
        for row in data.load_preferences(course, split, labels="clean")
    ]
    for row, margin in zip(clean, reward.pair_margins(model, tokenizer, clean)):
        case = cases[row["case_id"]]
        first, second = (gold.score(case, row[side]).parts for side in ("chosen", "rejected"))
        most = max(first, key=lambda part: abs(first[part] - second[part]))
        groups.setdefault(most, []).append(margin > 0)
    groups = {part: right for part, right in groups.items() if len(right) >= 10}
    names = {part: f"{part}\n{len(right)} pairs" for part, right in groups.items()}
    ax = plotting.bars(
        {names[part]: float(np.mean(right)) for part, right in groups.items()},
        {names[p]: evaluation.rate_interval(sum(r), len(r)) for p, r in groups.items()},
        title="Accuracy by the part of gold that differs most",
        ylabel="agrees with gold",
        limits=(0, 1.15),
        percent=True,
    )
    _ = ax.axhline(0.5, color=plotting.COLOURS["text"], linestyle="--", linewidth=1)

# %% [markdown]
# ## Then and now
# Older code for reward models stops with these errors in the TRL installed here:

# %%
from datasets import Dataset
from transformers import TrainingArguments

fresh, _ = reward.new_reward_model(sft_folder, course)
sides = (
    "input_ids_chosen",
    "attention_mask_chosen",
    "input_ids_rejected",
    "attention_mask_rejected",
)
tokenised = Dataset.from_list([{name: [1, 2] for name in sides}] * 2)
usual = {"model": fresh, "args": arguments, "train_dataset": texts, "processing_class": tokenizer}
without = {name: usual[name] for name in ("model", "args", "train_dataset")}
old_arguments = TrainingArguments(mkdtemp(), report_to="none", use_cpu=course.device == "cpu")
older = {
    "tokenizer=": {**without, "tokenizer": tokenizer},
    "max_length=": {**usual, "max_length": 512},
    "TrainingArguments": {**usual, "args": old_arguments},
    "input_ids_chosen ...": {**usual, "train_dataset": tokenised},
}
for name, options in older.items():
    try:
        RewardTrainer(**options)
        print(f"{name:21} works")
    except Exception as error:
        print(f"{name:21} {type(error).__name__}: {error}")
del fresh

# %% [markdown]
# | then | now |
# |---|---|
# | `RewardTrainer(tokenizer=tok)` | `RewardTrainer(processing_class=tok)` |
# | `RewardTrainer(max_length=512)` | `RewardConfig(max_length=512)` |
# | `TrainingArguments(...)` | `RewardConfig(...)` |
# | columns `input_ids_chosen`, `attention_mask_chosen`, ... made by hand | columns `prompt`, `chosen`, `rejected` as text |
#
# ## In your own words
# The next chapter trains a policy to raise this score. Which changes would you expect in its answers
# first, and why would ten times as many pairs from the same annotators not prevent them?

# %% [markdown] answer="what_the_score_pays_for" points=2
# Longer and more cheerful answers: both raise the score whatever they say, and are easier to learn than true
# facts, which the score hardly sees. More pairs from the same annotators reduce chance errors; a bias that all of
# them share is in every pair and is only learnt more exactly. It takes other labels, or a check from outside.
