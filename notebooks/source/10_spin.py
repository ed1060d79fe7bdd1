# %% [markdown]
# # 10 · SPIN: a model that plays against itself
# **Goal:** improve a model with nothing but responses that people have written already: let it tell them from its own,
# round after round. Find out where such a game ends, write its loop, play some rounds, and compare them with the
# plainest alternative, more supervised fine-tuning on the same responses.
#
# **Time:** 35 minutes; once chapter 02 has trained its model, under two minutes to run in `tiny` on two cores and nine in
# `laptop`. **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("10_spin")
tiny = course.profile.name == "tiny"
world = course.profile.instructions == "world"

# %% [markdown]
# ## The game
# DPO needs pairs, and pairs need somebody who compares. Self-play fine-tuning (SPIN; Chen et al. 2024, arXiv 2401.01335)
# takes its pairs from what an SFT model was trained on, prompts with responses by people:
#
# 1. the model answers every prompt; as it stands, it is the **opponent**;
# 2. each pair has people's response as chosen and the opponent's as rejected;
# 3. train with DPO's loss, with the opponent as the reference;
# 4. the trained model is the next opponent. Begin again.
#
# So the model learns to tell people's responses from its own, and since in DPO the policy is its own reward model
# (chapter 06), to tell them apart is to become more like people.
#
# ## Where one round leads
# Suppose a round could train without limits. People answer a prompt with probabilities $p(y)$, the opponent with
# $q(y)$. A pair is one draw from each. Shown two responses, the best guess of which is by people has the odds
# $\frac{p(y)\, q(y')}{q(y)\, p(y')}$, and DPO's margin has to be their logarithm:
#
# $$\beta \log \frac{\pi(y)}{q(y)} - \beta \log \frac{\pi(y')}{q(y')} = \log \frac{p(y)}{q(y)} - \log \frac{p(y')}{q(y')}$$
#
# This holds for all responses at once if (and, with probabilities that sum to 1, only if)
#
# $$\pi(y) \;\propto\; q(y) \left(\frac{p(y)}{q(y)}\right)^{1/\beta}$$
#
# By hand, three responses: the opponent gives them 0.5, 0.3, 0.2, people 0.2, 0.3, 0.5, and $\beta = 2$, so the power is a
# square root. The ratios are 0.4, 1, 2.5, their roots 0.632, 1, 1.581; times $q$: 0.316, 0.3, 0.316. Divided by their sum,
# 0.932: $\pi = (0.339, 0.322, 0.339)$, about half-way. With $\beta = 1$ the opponent drops out and $\pi = p$.


# %% exercise="best_round"
import torch


def best_round(opponent: torch.Tensor, people: torch.Tensor, beta: float) -> torch.Tensor:
    """Where a round of SPIN leads without limits, (N,): probabilities, which sum to 1.

    opponent, people: (N,), probabilities of the same N responses.
    """
    ### BEGIN SOLUTION
    weights = opponent * (people / opponent) ** (1 / beta)
    return weights / weights.sum()
    ### END SOLUTION


# %% test="best_round"
from course_utils import check

check("best_round", best_round)
### BEGIN HIDDEN TESTS
check("best_round", best_round, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Where the rounds lead
# If opponent and people agree, the ratio is 1 and the round changes nothing: **people's own distribution is where the
# game rests**. It can be reached, and never passed: the best that SPIN can do is to answer like those who wrote the data.
#
# Whether it is reached depends on $\beta$. In logarithms a round multiplies the distance to people by $1 - 1/\beta$. For
# $\beta$ above 1/2 that is smaller than 1 in size, and the rounds close in; below, each round overshoots further than the
# last one missed. (The cell uses the package's reference solutions, as do all that follow, so it runs in any case.)

# %%
import matplotlib.pyplot as plt

from course_utils import plotting
from course_utils.exercises import get_exercise

best = get_exercise("best_round").solution
people, start = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.5, 0.3, 0.2])
print("by hand:", [round(p, 3) for p in best(start, people, 2.0).tolist()])
ax = plotting.axes(7.5, 3.8)
for beta, colour in zip((3.0, 1.0, 0.6, 0.45), plotting.CYCLE):
    models = [start]
    for _ in range(8):
        models.append(best(models[-1], people, beta))
    ax.plot([m[2].item() for m in models], "o-", color=colour, label=f"β {beta:g}")
ax.axhline(0.5, color=plotting.COLOURS["text"], linestyle="--", linewidth=1, label="people")
ax.set(
    title="The third response, rounds without limits",
    xlabel="round",
    ylabel="probability",
    ylim=(-0.03, 1.03),
)
_ = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# The usual $\beta$ is 0.1, far on the wrong side. A real round is saved by being short: a few steps with a small learning
# rate end long before the optimum. That is a reason to keep the learning rate of SPIN small, and we shall see one more.
#
# ## One round, written out
# First the pairs. A response of the model's that equals people's teaches nothing, so it makes no pair.


# %% exercise="spin_pairs"
def spin_pairs(prompts: list[str], real: list[str], generated: list[str]) -> list[dict[str, str]]:
    """Rows with prompt, chosen and rejected, in the order of the prompts."""
    ### BEGIN SOLUTION
    return [
        {"prompt": prompt, "chosen": people, "rejected": own}
        for prompt, people, own in zip(prompts, real, generated)
        if people != own
    ]
    ### END SOLUTION


# %% test="spin_pairs"
check("spin_pairs", spin_pairs)
### BEGIN HIDDEN TESTS
check("spin_pairs", spin_pairs, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Now the loop. To keep it clear of models and GPUs, it is given two functions: `sample(opponent)` returns the
# opponent's responses, `learn(model, opponent, responses)` returns the trained model.


# %% exercise="self_play"
from collections.abc import Callable
from typing import Any


def self_play(
    model: Any,
    rounds: int,
    sample: Callable[[Any], Any],
    learn: Callable[[Any, Any, Any], Any],
) -> list[Any]:
    """The model after each round; each round's opponent is the model so far."""
    ### BEGIN SOLUTION
    models = []
    for _ in range(rounds):
        opponent = model
        model = learn(model, opponent, sample(opponent))
        models.append(model)
    return models
    ### END SOLUTION


# %% test="self_play"
check("self_play", self_play)
### BEGIN HIDDEN TESTS
check("self_play", self_play, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Whose responses?
# Two sets of people are at hand in the closed world:
#
# - `own`: the demonstrations that the SFT model was trained on in chapter 02. Half of those people are careless and most are
#   curt.
# - `careful`: new responses by careful, friendly people, to prompts that appear in no test.
#
# The mean gold of what they wrote is where the game would rest. (Elsewhere only `own` exists, and nobody knows gold.)

# %%
from course_utils import data, evaluation, models, runs, spin

source = "careful" if world else "own"
dataset = spin.demonstrations(course, source)
sft, tokenizer = models.load_merged(runs.ensure("sft", course), course)
print(f"{source}: {len(dataset)} prompts with people's responses, for example")
plotting.side_by_side(
    [
        {
            "instruction": f"{row['instruction']} {row['context']}",
            "people's response": row["response"],
        }
        for row in dataset.select(range(3))
    ]
)

# %%
people_gold = {name: spin.gold_of_people(course, name) for name in spin.SOURCES if world}
ceilings = {}
for name, scores in people_gold.items():
    totals = [score.total for score in scores]
    low, high = evaluation.mean_interval(totals)
    ceilings[name] = sum(totals) / len(totals)
    print(f"{name:8} mean gold of people's responses {ceilings[name]:.2f} [{low:.2f}, {high:.2f}]")

# %% [markdown]
# ## Some rounds
# `spin.spin_iteration(model, dataset)` is one round: sample, pair, train. The training is that of chapter 06,
# `preference.train`, in smaller steps (in `tiny`, a third of its learning rate). Watch `told apart`: how often the model
# gave people's response the higher implicit reward, in pairs it was about to learn from. At 0.5 it can no longer tell them
# apart. It is a share of half a round's pairs: of 240, anything from 0.44 to 0.56 is as good as 0.5; of 32 (a round in
# `laptop`), from 0.34 to 0.66.

# %%
from tqdm.auto import tqdm

test = data.load_prompts(course, "test")
test = test[: course.pick(full=150 if tiny else len(test), small=16)]
rounds = course.pick(full=3, small=1)
count = course.pick(full=course.profile.spin_examples, small=24)
before = evaluation.evaluate(course, sft, tokenizer, test)
print(f"round 0: {before.metric} {before.mean:.2f}")
model, first_round, results = sft, None, [before]
for number in range(1, rounds + 1):
    rows = spin.draw(dataset, count, course.seed, number)
    with tqdm(desc=f"round {number}", unit="step") as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        model, played = spin.spin_iteration(
            model, rows, course=course, tokenizer=tokenizer, seed=number, on_step=on_step
        )
    first_round = first_round or (rows, played)
    results.append(evaluation.evaluate(course, model, tokenizer, test))
    print(
        f"round {number}: {before.metric} {results[-1].mean:.2f}; {played.pairs} pairs, "
        f"{played.same} left out; told apart {played.told_apart:.2f}"
    )

# %% [markdown]
# These are the first round's pairs, and what the model says after the last one:

# %%
rows, played = first_round
plotting.side_by_side(
    [
        {
            "instruction": row["instruction"],
            "people (chosen)": row["response"],
            "the model (rejected)": own,
        }
        for row, own in list(zip(rows, played.generated))[:4]
    ]
)

# %%
plotting.side_by_side(
    [
        {
            "instruction": f"{c.instruction} {c.context}",
            "SFT": b.text,
            f"after {rounds} rounds": a.text,
        }
        for c, b, a in list(zip(test, before.responses, results[-1].responses))[:5]
    ]
)

# %% [markdown]
# And the parts of gold, beside those of the people (see chapter 01 for what they mean):

# %%
parts = {"SFT": before.parts(), f"after {rounds} rounds": results[-1].parts()}
for name, scores in people_gold.items():
    each = [score.parts for score in scores]
    parts[f"people: {name}"] = {part: sum(s[part] for s in each) / len(each) for part in each[0]}
plotting.side_by_side(
    [
        {"": name} | {part: f"{value:+.2f}" for part, value in values.items()}
        for name, values in parts.items()
    ]
)

# %% [markdown]
# One seed and few prompts: an impression. For a claim see the record.
#
# ## Three seeds, and a control
# `python -m course_utils sweep spin` (made in `tiny`) has recorded four rounds with three seeds on both sets of
# responses. Beside them stands the obvious control: **more SFT** on the same prompts and people's responses, for as many
# steps of as many examples. It needs no sampling, and no reference.

# %%
import numpy as np

from course_utils import report_metric, sweeps

header, record = sweeps.load_record("spin")
config = header["config"]


def recorded(key: str, source: str, method: str, number: int) -> np.ndarray:
    """That number, or list of numbers, after a round, seed by seed."""
    keep = [r for r in record if (r["data"], r["method"], r["round"]) == (source, method, number)]
    return np.array([r[key] for r in sorted(keep, key=lambda r: r["seed"])])


numbers = range(config["rounds"] + 1)
curves = {
    (source, method): [recorded("test", source, method, n).mean() for n in numbers]
    for source in spin.SOURCES
    for method in ("spin", "sft")
}
report_metric("gold_spin_rounds", [float(v) for v in curves["careful", "spin"]])
report_metric("gold_more_sft", [float(v) for v in curves["careful", "sft"]])
report_metric("gold_spin_rounds_own", [float(v) for v in curves["own", "spin"]])
report_metric("gold_more_sft_own", [float(v) for v in curves["own", "sft"]])

# %%
plotting.style()
figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
names = {"spin": "SPIN", "sft": "more SFT"}
for panel, source in zip(panels, spin.SOURCES):
    for method, colour in (("spin", plotting.COLOURS["dpo"]), ("sft", plotting.COLOURS["sft"])):
        seeds = np.array([recorded("test", source, method, n).mean(1) for n in numbers])
        panel.plot(numbers, seeds, color=colour, alpha=0.3, linewidth=1)
        panel.plot(numbers, seeds.mean(1), "o-", color=colour, label=names[method])
    if source in ceilings:
        panel.axhline(
            ceilings[source],
            color=plotting.COLOURS["text"],
            linestyle="--",
            linewidth=1,
            label="people's own responses",
        )
    panel.set(title=f"people: {source}", xlabel="round", xticks=list(numbers))
    panel.legend(loc="best")
_ = panels[0].set_ylabel("mean gold on test prompts")

# %% [markdown]
# (Thin lines: single seeds. Round 0 is the SFT model.)

# %%
table = []
for source in spin.SOURCES:
    last = config["rounds"]
    start = recorded("test", source, "spin", 0)
    ends = {method: recorded("test", source, method, last) for method in names}
    told = [recorded("told_apart", source, "spin", n).mean() for n in numbers if n]
    table.append(
        {
            "people": source,
            f"SPIN, round {last}, minus SFT": str(
                evaluation.paired_difference(ends["spin"], start)
            ),
            "more SFT minus SFT": str(evaluation.paired_difference(ends["sft"], start)),
            "SPIN minus more SFT": str(evaluation.paired_difference(ends["spin"], ends["sft"])),
            "told apart, round by round": " ".join(f"{share:.2f}" for share in told),
        }
    )
plotting.side_by_side(table)

# %% [markdown]
# ## When it stops helping, and why
# Read `told apart` together with the curves.
#
# - On its `own` data the game is over before it begins. SFT has made the model write like these people, unfriendliness
#   included, and the shares stay near 0.5. These people do have a higher gold, as the dashed line says, but compare the
#   parts above: not in tone, which is easy to see. They answer to the point and get the facts right, and a policy that
#   cannot tell a right fact from a wrong one, or it would write the right one, cannot learn this from pairs.
# - On the `careful` responses the first round is easy to win, since friendliness gives people away at once. As the model
#   takes that on, pairs become harder to tell apart, and the later rounds add far less than the first.
# - More SFT on the same careful responses does better than the game, and needs no sampling and no reference. SPIN's loss
#   says only that people's response is the better one of two; SFT's says, token by token, what to write. On new and better
#   responses it is a control to take seriously: train it before you play rounds.
#
# The paper reports gains with a 7B model on a part of the very data it had been fine-tuned on, where more epochs of SFT
# no longer helped. Here there are none. A model that can still be told from its data has something to gain from the game.
# Whether yours can, `told apart` says after one round, before anything else is spent.
#
# ## In your own words
# After five rounds of SPIN a team finds `told apart` at 0.52 and wants to play ten more. What do you tell them? And what would
# you need in order to get past the people who wrote the data?

# %% [markdown] answer="game_over" points=2
# At 0.52 the model cannot tell people's responses from its own, so the pairs are close to coin flips, and the gradient is
# mostly noise: ten more rounds will move the model about, and with a small beta it may overshoot, but it has nothing to
# learn. The game rests where the model answers like the people in the data, flaws included. To get past them one needs a
# signal that is not "be like them": comparisons (a reward model, DPO on preferences), AI feedback, a checker of facts, or
# better responses to begin with.
