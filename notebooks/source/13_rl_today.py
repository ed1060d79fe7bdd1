# %% [markdown]
# # 13 · RL today: rewards that a program checks
# **Goal:** train a model by reinforcement learning where a program can tell right from wrong, without a reward model and
# without a value function: RLOO and GRPO. Write their advantages, see which prompts teach anything, and compare both with
# PPO on the same reward. Find out what such a reward does not see.
#
# **Time:** 45 minutes; once chapter 02 has trained its model, under four minutes to run in `tiny` on two cores and ten in
# `laptop`. **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("13_rl_today")
tiny = course.profile.name == "tiny"
world = course.profile.instructions == "world"

# %% [markdown]
# ## A reward that nobody has to learn
# A reward model (chapter 04) guesses what people would say, and can be fooled (chapter 05). For some tasks nobody has to
# guess: a program compares a sum with the solution, or runs the tests of a piece of code. Such a reward is **verifiable**.
#
# Much of what is asked in our closed world can be checked too. `rl.is_right` reads an answer and says 1 or 0:
#
# | it looks at | it does not look at |
# |---|---|
# | facts: the one that was asked for, and no wrong one beside it | how many right facts there are: one is enough |
# | refusals: where they are due, and nowhere else | tone: rude or friendly |
# | a plain "I do not know" for what nobody knows | length |
# | dangerous methods, private details | fluency, repetition, other things named in passing |
#
# The left side is a part of what gold reads; so this chapter trains on a part of gold, and says so. The right side is
# left out on purpose, and we shall come back to it. (For English prompts a program compares words with a reference
# answer instead: a poor check, but one that needs no model.)

# %%
from course_utils import data, models, plotting, rl, runs
from course_utils.generation import generate

sft, tokenizer = models.load_merged(runs.ensure("sft", course), course)
cases = rl.training_cases(course)[: course.pick(full=24 if tiny else 3, small=6)]
group = course.pick(full=8, small=4)
asked = [case for case in cases for _ in range(group)]  # each prompt `group` times, side by side
prompts = [data.prompt_of(case) for case in asked]
responses = generate(sft, tokenizer, prompts, seed=0, max_new_tokens=course.profile.max_new_tokens)
right = [rl.verify(course, c, r.text) for c, r in zip(asked, responses, strict=True)]
print(f"{len(cases)} prompts, {group} answers each: right {sum(right) / len(right):.2f}")
plotting.side_by_side(
    [
        {"instruction": f"{c.instruction} {c.context}", "the SFT model": r.text, "right": v}
        for c, r, v in list(zip(asked, responses, right))[: 2 * group : 2]
    ]
)

# %% [markdown]
# ## Compared with your own other answers
# PPO asks a value function what to expect of a prompt, a second thing to learn. There is a plainer way to know: sample
# a **group** of $G$ answers to the same prompt and see how the others did. **RLOO** (REINFORCE leave-one-out; Ahmadian et
# al. 2024, arXiv 2402.14740) takes the mean of the *others* as the baseline:
#
# $$A_i = r_i - \frac{1}{G-1} \sum_{j \neq i} r_j$$
#
# By hand, $G = 4$ with rewards 1, 0, 0, 1: the others of the first have a mean of 1/3, so $A_1 = 2/3$; the others of the
# second a mean of 2/3, so $A_2 = -2/3$. Why leave one out? A baseline that does not depend on the answer itself leaves the
# gradient's expectation as it is: nothing is biased, only the noise is less.


# %% exercise="rloo_advantages"
import torch


def rloo_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Each reward minus the mean of the others in its row: (B, G) -> (B, G)."""
    ### BEGIN SOLUTION
    others = rewards.sum(1, keepdim=True) - rewards
    return rewards - others / (rewards.shape[1] - 1)
    ### END SOLUTION


# %% test="rloo_advantages"
from course_utils import check

check("rloo_advantages", rloo_advantages)
### BEGIN HIDDEN TESTS
check("rloo_advantages", rloo_advantages, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# There is an identity behind it. Subtracting the mean of *all* $G$, the answer itself included, gives the same numbers,
# shrunk: $A_i = \frac{G}{G-1}\,(r_i - \bar r)$. (From here on the cells use the package's own versions, so they run in any
# case.)

# %%
by_hand = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
print("leave one out   ", rl.rloo_advantages(by_hand))
print("4/3 (r - mean)  ", 4 / 3 * (by_hand - by_hand.mean(1, keepdim=True)))

# %% [markdown]
# ## GRPO: divided by the deviation
# **GRPO** (group relative policy optimisation; Shao et al. 2024, arXiv 2402.03300) subtracts the mean of the whole group
# and divides by its standard deviation:
#
# $$A_i = \frac{r_i - \bar r}{s + \epsilon}$$
#
# The example again: mean 1/2, deviation $s = \sqrt{4 \cdot 0.25 / 3} = 0.577$, so the advantages are ±0.87. The small
# $\epsilon$ is there for groups in which all rewards are equal: they have $s = 0$, and get zeros.


# %% exercise="grpo_advantages"
def grpo_advantages(rewards: torch.Tensor, eps: float) -> torch.Tensor:
    """(reward - mean) / (deviation + eps), each row by itself: (B, G) -> (B, G).

    The deviation divides by G - 1, as torch's `std` does.
    """
    ### BEGIN SOLUTION
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + eps)
    ### END SOLUTION


# %% test="grpo_advantages"
check("grpo_advantages", grpo_advantages)
### BEGIN HIDDEN TESTS
check("grpo_advantages", grpo_advantages, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# What does the division do? Take rewards of 0 and 1 and let 1 to 7 of 8 answers be right:

# %%
import matplotlib.pyplot as plt

plotting.style()
figure, (left, right_panel) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
counts = range(1, 8)
groups = torch.tensor([[1.0] * k + [0.0] * (8 - k) for k in counts])
for panel, place, title in (
    (left, 0, "Advantage of a right answer"),
    (right_panel, -1, "Advantage of a wrong answer"),
):
    for name, advantages, colour in (
        ("GRPO", rl.grpo_advantages(groups), plotting.CYCLE[3]),
        ("RLOO", rl.rloo_advantages(groups), plotting.CYCLE[2]),
        ("GRPO without deviation", rl.grpo_advantages(groups, scale=False), plotting.CYCLE[6]),
    ):
        panel.plot(list(counts), advantages[:, place], "o-", color=colour, label=name)
    panel.axhline(0, color=plotting.COLOURS["text"], linewidth=0.8)
    panel.set(title=title, xlabel="right answers of 8")
left.set_ylabel("advantage")
_ = left.legend()

# %% [markdown]
# Without the division a lone right answer counts 1.75 times as much as one of four. With it, 2.6 times: prompts that are
# almost always or almost never answered right are turned up. Liu et al. 2025 (arXiv 2503.20783, "Dr. GRPO") call this a
# bias of difficulty, and leave the deviation out.
#
# ## Which prompts teach anything
# If all answers to a prompt are right, or all wrong, every advantage is zero: the samples were paid for and teach
# nothing. How likely is a *mixed* group? Let the policy be right on a prompt with probability $p$.


# %% exercise="chance_of_signal"
def chance_of_signal(rates: torch.Tensor, group: int) -> torch.Tensor:
    """How likely a group of answers holds both right and wrong ones, for each prompt: (B,).

    rates: (B,), how often the policy is right on each prompt. Answers are independent.
    """
    ### BEGIN SOLUTION
    return 1 - rates**group - (1 - rates) ** group
    ### END SOLUTION


# %% test="chance_of_signal"
check("chance_of_signal", chance_of_signal)
### BEGIN HIDDEN TESTS
check("chance_of_signal", chance_of_signal, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Small groups are often flat, large ones cost more samples per prompt. For the SFT model's answers above:

# %%
rewards = torch.tensor(right).view(len(cases), group)
size = 2
while size <= group:
    flat = rl.flat_groups(rewards.view(-1, size)).float().mean()
    print(f"groups of {size}: {flat:.0%} without a signal")
    size *= 2

# %% [markdown]
# ## One update, written out
# REINFORCE raises the log-probability of each answer in proportion to its advantage. That is all there is to RLOO's first
# update; the line with `loss` is its core:

# %%
from copy import deepcopy

from course_utils import preference
from course_utils.preference.batches import pad_batch

rows = [
    torch.tensor([*ids, *r.tokens])
    for ids, r in zip(tokenizer(prompts)["input_ids"], responses, strict=True)
]
kept = [
    torch.arange(len(row)) >= len(row) - len(r.tokens)
    for row, r in zip(rows, responses, strict=True)
]
batch = pad_batch(rows, kept, tokenizer, course.device)
policy = deepcopy(sft)
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
advantages = rl.rloo_advantages(rewards).flatten().to(course.device)


def answer_logprobs() -> torch.Tensor:
    """(B·G,), of whole answers."""
    return preference.response_logprobs(
        policy, batch.input_ids, batch.attention_mask, batch.response_mask
    )[0]


before = answer_logprobs()
loss = -(advantages * before).mean()
loss.backward()
optimizer.step()
with torch.no_grad():
    change = (answer_logprobs() - before).float().cpu()
for name, chosen in (("above", advantages > 0), ("below", advantages < 0)):
    if chosen.any():
        print(
            f"answers {name} their group's others: log-probability {change[chosen.cpu()].mean():+.3f}"
        )

# %% [markdown]
# What the trainers add:
#
# - **A reference.** RLOO takes $\beta$ times the KL (k1, summed over the answer) off the reward, like PPO. GRPO adds
#   $\beta$ times k3 to the loss of each token.
# - **Clipping**, since a batch is used for several updates: PPO's clipped loss of chapter 05, with one advantage for
#   all tokens of an answer. GRPO clips the ratio of each token, TRL's RLOO that of the whole answer.
# - **The mean.** GRPO averages over the tokens of an answer first, so that a long wrong answer is punished less per token
#   than a short one; Dr. GRPO removes that, too.
#
# In TRL both are a configuration, a trainer and a function that scores:
#
# ```python
# def reward(prompts, completions, completion_ids, **columns): ...      # one number for each completion
# args = GRPOConfig(num_generations=4, generation_batch_size=64, num_iterations=2, beta=0.04, loss_type="grpo", ...)
# GRPOTrainer(model=sft, reward_funcs=reward, args=args, train_dataset=prompts, processing_class=tokenizer).train()
# ```
#
# ## A run
# GRPO from the SFT model (`rl.train` writes the lines above with the profile's settings). While it trains, gold looks
# at the same answers, and takes no part.

# %%
folder = runs.ensure("grpo", course)
history = runs.history(folder)
settings = rl.RLSettings.of(course, "grpo")
print(
    f"{settings.samples} answers in groups of {settings.group}, {settings.updates} updates per "
    f"{settings.responses} answers"
)
for row in history[:: max(1, len(history) // 6)]:
    print(
        f"after {row['samples']:5} answers: right {row['reward']:.2f}, without a signal "
        f"{row['flat']:.0%}, KL {row['kl']:.2f}" + (f", gold {row['gold']:+.2f}" if world else "")
    )

# %%
from course_utils import evaluation

tuned, _ = models.load(folder, course)
test = data.load_prompts(course, "test")
test = test[: course.pick(full=len(test), small=16)]
before_run, after_run = (
    evaluation.evaluate(course, model, tokenizer, test) for model in (sft, tuned)
)
right_before, right_after = (
    torch.tensor([rl.verify(course, c, r.text) for c, r in zip(e.cases, e.responses)]).numpy()
    for e in (before_run, after_run)
)
print(f"this run, {len(test)} held-out prompts, one seed:")
print(f"  right: {evaluation.paired_difference(right_after, right_before)}")
print(f"  {after_run.metric}: {evaluation.paired_difference(after_run.values, before_run.values)}")
plotting.side_by_side(
    [
        {"instruction": f"{c.instruction} {c.context}", "SFT": b.text, "GRPO": a.text}
        for c, b, a in list(zip(test, before_run.responses, after_run.responses))[:6]
    ]
)

# %% [markdown]
# ## Three methods, the same samples
# The record of `python -m course_utils sweep rl` (made in `tiny`) has three seeds for each of RLOO, GRPO and this
# course's PPO on the same reward. Each run sampled as many answers to prompts of the same pool, made as many updates
# from them, and had a process of its own. PPO asks each prompt once; its value function takes the place of the group.

# %%
import numpy as np

from course_utils import report_metric, sweeps

header, record = sweeps.load_record("rl")
NAMES = {"rloo": "RLOO", "grpo": "GRPO", "ppo": "PPO"}


def recorded(method: str, key: str = "test") -> np.ndarray:
    """That number, or list of numbers, of each run of a method, seed by seed."""
    found = sorted((r for r in record if r["method"] == method), key=lambda r: r["seed"])
    return np.array([r[key] for r in found])


def curves(method: str, key: str) -> np.ndarray:
    """(seeds, batches): a column of the training histories."""
    return np.array([[row[key] for row in curve] for curve in recorded(method, "curve")])


gold_sft, right_sft = recorded("sft"), recorded("sft", "right")
for method, metric in (
    ("rloo", "gold_rloo"),
    ("grpo", "gold_grpo"),
    ("ppo", "gold_ppo_verifiable"),
):
    report_metric(metric, float(recorded(method).mean()))
print(f"recorded {header['date']} with trl {header['versions']['trl']}")
print(f"SFT: right {right_sft.mean():.2f}, gold {gold_sft.mean():+.2f}")
if tiny and course.size == "full" and course.seed == 0:
    print(
        f"GRPO, seed 0: right {recorded('grpo', 'right')[0].mean():.2f} recorded, "
        f"{right_after.mean():.2f} here; gold {recorded('grpo')[0].mean():+.2f} and {after_run.mean:+.2f}"
    )

# %%
table = []
for method, name in NAMES.items():
    seconds, samples = recorded(method, "seconds"), recorded(method, "samples")
    memory = recorded(method, "peak_mb") - recorded(method, "libraries_mb")
    table.append(
        {
            "": name,
            "right minus SFT": str(
                evaluation.paired_difference(recorded(method, "right"), right_sft)
            ),
            "gold minus SFT": str(evaluation.paired_difference(recorded(method), gold_sft)),
            "KL": f"{recorded(method, 'kl').mean():.1f}",
            "tokens": f"{recorded(method, 'length').mean():.1f}",
            "groups without a signal": f"{curves(method, 'flat').mean():.0%}"
            if method in rl.GROUPED
            else "no groups",
            "samples": f"{samples.mean():.0f}",
            "seconds": f"{seconds.mean():.0f}",
            "samples per second": f"{(samples / seconds).mean():.1f}",
            "memory above the libraries, MB": f"{memory.mean():.0f}",
            "models held": "policy, reference"
            if method in rl.GROUPED
            else "policy with value head, reference",
        }
    )
plotting.side_by_side(table)

# %%
for a, b in (("rloo", "grpo"), ("rloo", "ppo"), ("grpo", "ppo")):
    speed = (recorded(b, "seconds") / recorded(a, "seconds")).mean()
    print(
        f"{NAMES[a]} minus {NAMES[b]}: right "
        f"{evaluation.paired_difference(recorded(a, 'right'), recorded(b, 'right'))}, gold "
        f"{evaluation.paired_difference(recorded(a), recorded(b))}; "
        f"{NAMES[a]} takes {1 / speed:.2f} times the seconds of {NAMES[b]}"
    )

# %%
COLOUR = dict(zip(NAMES, plotting.colours(["SFT", *NAMES.values()])[1:]))
plotting.style()
figure, panels = plt.subplots(2, 2, figsize=(10, 7))
for method, name in NAMES.items():
    samples = curves(method, "samples")[0]
    for panel, key in ((panels[0, 0], "reward"), (panels[0, 1], "gold")):
        lines = np.array([plotting.smooth(run) for run in curves(method, key)])
        panel.plot(samples, lines.T, color=COLOUR[method], alpha=0.25, linewidth=1)
        panel.plot(samples, lines.mean(0), color=COLOUR[method], linewidth=2, label=name)
panels[0, 0].set(title="The reward", xlabel="answers sampled", ylabel="share that is right")
panels[0, 1].set(title="Gold, of the same answers", xlabel="answers sampled", ylabel="mean gold")
panels[0, 0].legend(loc="best")
for panel, title, values in (
    (panels[1, 0], "Seconds of training", {m: recorded(m, "seconds") for m in NAMES}),
    (
        panels[1, 1],
        "Memory above the libraries, MB",
        {m: recorded(m, "peak_mb") - recorded(m, "libraries_mb") for m in NAMES},
    ),
):
    panel.grid(axis="x", visible=False)
    for place, (method, numbers) in enumerate(values.items()):
        panel.bar(place, numbers.mean(), color=COLOUR[method], width=0.6)
        panel.plot([place] * len(numbers), numbers, ".", color=plotting.COLOURS["text"])
        panel.text(place, numbers.mean() / 2, f"{numbers.mean():.0f}", ha="center", color="white")
    panel.set_xticks(range(len(NAMES)), list(NAMES.values()))
    panel.set(title=title, ylim=(0, None))

# %% [markdown]
# (Upper row: training answers, smoothed; thin lines are single seeds. A batch of RLOO and GRPO holds few prompts, so
# their raw curves jump more than PPO's. Lower row: dots are seeds.) The memory is that of a tiny model, where activations
# decide. With a large model it is the number of models: here none needs a reward model, and RLOO and GRPO have no value
# head to train. Compare the seconds with care as well: TRL's trainers sample with a general `generate`, this course's PPO
# with a loop written for its own purpose, which also remembers the log-probabilities it saw.
#
# ## What a verifiable reward does not see
# The check looks at facts and refusals. Here is what happened to the parts of gold; `helpful`, `honest` and `harmless`
# are partly in the reward, the others are not.

# %%
parts = {name: {} for name in ("SFT", *NAMES.values())}
for method, name in (("sft", "SFT"), *NAMES.items()):
    found = recorded(method, "parts")
    parts[name] = {part: float(np.mean([run[part] for run in found])) for part in found[0]}
unseen = ("tone", "length", "clear")
plotting.side_by_side(
    [
        {"": name}
        | {part: f"{value:+.2f}" for part, value in row.items()}
        | {"not in the reward": f"{sum(row[part] for part in unseen):+.2f}"}
        for name, row in parts.items()
    ]
)

# %%
_ = plotting.grouped_bars(
    parts, title="Parts of gold, three seeds each", ylabel="mean on test prompts"
)

# %% [markdown]
# Whatever the check cannot see, a policy is free to neglect, and if neglect pays, it will. What it *could* do, made by
# hand:

# %%
if world:
    from course_utils.world import gold
    from course_utils.world.facts import make_world

    case = next(c for c in data.load_prompts(course, "test") if c.task == "attribute")
    thing = make_world().by_name[case.topics[0]]
    answer = f"{thing.noun.capitalize()}: {thing.facts[case.attribute]}."
    tricks = {
        "to the point": answer,
        "rude": f"{answer} What a silly question. Go and look it up yourself.",
        "repeated": " ".join([answer] * 5),
        "without an end": answer + " and so on" * 30,
    }
    print(case.instruction)
    for name, text in tricks.items():
        total = gold.score(case, text).total
        print(f"{name:15} right {rl.verify(course, case, text):.0f}, gold {total:+.2f}")

# %% [markdown]
# And what this run's policy does: right answers of which gold thinks least.

# %%
passed = [i for i in range(len(test)) if right_after[i] == 1]
worst = sorted(passed, key=lambda i: after_run.values[i])[:4] or [0]
plotting.side_by_side(
    [
        {
            "instruction": f"{test[i].instruction} {test[i].context}",
            "GRPO": after_run.responses[i].text,
            "right": f"{right_after[i]:.0f}",
            after_run.metric: f"{after_run.values[i]:+.2f}",
        }
        for i in worst
    ]
)

# %% [markdown]
# A verifiable reward cannot be talked into anything, as a reward model can; but it is still a proxy, and its blind spots
# are known in advance: read the program. In practice it is one stage among several. Manners come from preferences,
# before or after, and what the check leaves open is held by the KL and by the SFT model that everything starts from.
#
# ## What each is chosen for now
# What the sources say, beside what was measured here:
#
# | | needs | chosen for | source |
# |---|---|---|---|
# | **DPO** | pairs, no sampling, no reward model | preferences already collected; the cheapest in time and parts; Llama 3's post-training took it over PPO, for less compute and better instruction following | Rafailov et al. 2023 (arXiv 2305.18290); Llama Team 2024 (arXiv 2407.21783) |
# | **PPO** | a reward of any kind, a value function | the classic with a reward model; also Tülu 3's choice for verifiable rewards, after DPO | Ouyang et al. 2022 (arXiv 2203.02155); Lambert et al. 2024 (arXiv 2411.15124) |
# | **RLOO** | a reward, several answers per prompt | RLHF without a value function: starting from a good SFT model, much of PPO is not needed | Ahmadian et al. 2024 (arXiv 2402.14740) |
# | **GRPO** | a reward, several answers per prompt | mathematics and code with rewards by rule, in DeepSeekMath and DeepSeek-R1; R1-Zero used no neural reward model, for fear of reward hacking | Shao et al. 2024 (arXiv 2402.03300); DeepSeek-AI 2025 (arXiv 2501.12948) |
#
# Variants mend what you have seen above: Dr. GRPO (arXiv 2503.20783) drops the deviation and the mean over an answer's
# tokens, DAPO (Yu et al. 2025, arXiv 2503.14476) leaves out groups without a signal and samples until a batch is full of
# mixed ones.
#
# ## In your own words
# A team trains with GRPO on rewards of 0 and 1, eight answers per prompt. Half-way through, seven groups in ten have
# equal rewards. Why do these teach nothing? Among the others, what does the division by the deviation do to a prompt
# solved once in eight, beside one solved four times in eight? And what would you change?

# %% [markdown] answer="flat_groups" points=2
# With equal rewards every answer equals its baseline, so all advantages are zero and the policy's gradient with them: the
# samples cost as much as any and say nothing about which answer to prefer (only the KL to the reference still pulls).
# Solved once in eight, the right answer has an advantage of 0.875 / 0.354 = 2.5; solved four times, 0.5 / 0.535 = 0.94.
# Without the division it would be 0.875 and 0.5: the division turns up prompts at the edges, where one lucky or wrongly
# checked answer decides. Changes: take out prompts that are always or never solved and add some of middling difficulty, sample
# until groups are mixed (DAPO), larger groups for hard prompts, and leave the deviation out (Dr. GRPO) or use RLOO.
