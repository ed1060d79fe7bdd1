# %% [markdown]
# # 06 · DPO: preferences without a reward model
# **Goal:** turn the objective of chapter 05 into a loss on pairs that needs no reward model, no sampling and no value
# head. Derive it, code it, train with your own loop and with TRL's `DPOTrainer`, and find out what it costs, what it
# gains beside PPO, and how it goes wrong.
#
# **Time:** 50 minutes; once chapters 02 and 04 have trained their models, under two minutes to run in `tiny` on two
# cores and ten in `laptop`. **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("06_dpo")
tiny = course.profile.name == "tiny"
world = course.profile.preferences == "world"

# %% [markdown]
# ## Step 1: the best possible policy
# RLHF looks for the policy $\pi$ that maximises reward less the price of moving away from the reference:
#
# $$\max_\pi \; \mathbb{E}_{y \sim \pi(\cdot \mid x)}\big[\, r(x, y) \,\big]
#   - \beta \, \mathrm{KL}\big(\pi \,\Vert\, \pi_\mathrm{ref}\big)$$
#
# Write the KL out and put both terms under one mean: the objective is
# $-\beta\, \mathbb{E}_\pi \big[\log \pi(y \mid x) - \log \pi_\mathrm{ref}(y \mid x) - r(x, y)/\beta\big]$.
# The last two terms are the logarithm of $\pi_\mathrm{ref}\, e^{r/\beta}$. Divided by its sum over all answers,
# $Z(x)$, that is a distribution, call it $\pi^*$, and the objective becomes
#
# $$-\beta \, \mathrm{KL}\big(\pi \,\Vert\, \pi^*\big) + \beta \log Z(x)
#   \qquad\text{with}\qquad \pi^*(y \mid x) = \frac{\pi_\mathrm{ref}(y \mid x)\, e^{r(x, y)/\beta}}{Z(x)}$$
#
# A KL is never negative and is 0 only for equal distributions. So $\pi = \pi^*$ is best: the reference, with every
# answer's probability multiplied by $e^{r/\beta}$.
#
# By hand, three answers, $\beta = 1$: the reference gives them 0.5, 0.3, 0.2, their rewards are 0, 1, 2. The products
# are 0.5, 0.815, 1.478, their sum $Z = 2.793$, so $\pi^* = (0.179, 0.292, 0.529)$ and the objective is $\ln 2.793 = 1.027$.

# %%
import torch

ref, reward_of = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0])


def objective(policy: torch.Tensor, beta: float) -> torch.Tensor:
    """Mean reward less beta times the KL from the reference."""
    return (policy * (reward_of - beta * (policy / ref).log())).sum(-1)


best = ref * reward_of.exp()
best = best / best.sum()
others = torch.distributions.Dirichlet(torch.ones(3)).sample((10_000,))
print("best policy", [round(p, 3) for p in best.tolist()], f"objective {objective(best, 1.0):.3f}")
print(f"best of {len(others)} policies drawn at random: {objective(others, 1.0).max():.3f}")
assert objective(others, 1.0).max() <= objective(best, 1.0)

# %% [markdown]
# For a language model $Z(x)$ is a sum over all texts, so nobody can compute $\pi^*$ this way. Hence PPO. Rafailov et al.
# 2023 (arXiv 2305.18290) found the way around it.
#
# ## Step 2: the reward that a policy implies
# Take the logarithm of $\pi^*$ and solve for the reward:
#
# $$r(x, y) = \beta \log \frac{\pi^*(y \mid x)}{\pi_\mathrm{ref}(y \mid x)} + \beta \log Z(x)$$
#
# Every policy is the best one for some reward, and the first term says which: the **implicit reward**. The second
# is the same for all answers to a prompt, so it drops out of every comparison.


# %% exercise="implicit_reward"
def implicit_reward(policy: torch.Tensor, ref: torch.Tensor, beta: float) -> torch.Tensor:
    """beta times the log-ratio. policy, ref: (N,), log-probabilities of the same responses."""
    ### BEGIN SOLUTION
    return beta * (policy - ref)
    ### END SOLUTION


# %% test="implicit_reward"
from course_utils import check

check("implicit_reward", implicit_reward)
### BEGIN HIDDEN TESTS
check("implicit_reward", implicit_reward, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# On the three answers, the implicit rewards of $\pi^*$ are the true ones, all shifted by the same $-\log Z$. (From
# here on the cells use the package's own versions, so they run whether or not the exercises are solved.)

# %%
from course_utils import preference

implied = preference.implicit_reward(best.log(), ref.log(), 1.0)
print("implicit", [round(r, 3) for r in implied.tolist()])
print("less the true ones", [round(r, 3) for r in (implied - reward_of).tolist()])
assert torch.allclose(implied - reward_of, implied[0].expand(3), atol=1e-6)

# %% [markdown]
# ## Step 3: the loss
# Chapter 04 let the odds of a choice depend on a difference of rewards: $P(\text{chosen preferred}) = \sigma(r_c - r_r)$.
# Put the implicit rewards in. $Z$ cancels, and what is left can be computed:
#
# $$\mathcal{L}_\mathrm{DPO} = -\log \sigma\Big(
#   \beta \log \frac{\pi_\theta(y_c \mid x)}{\pi_\mathrm{ref}(y_c \mid x)}
#   - \beta \log \frac{\pi_\theta(y_r \mid x)}{\pi_\mathrm{ref}(y_r \mid x)} \Big)$$
#
# This is the reward model's loss, with the policy as its own reward model. Fitting it to the pairs trains the
# policy that would be best for the reward found on the way. The argument of $\sigma$ is called the **margin**.
#
# By hand, $\beta = 0.5$: the policy gives the chosen answer a log-probability of −10 and the rejected one −12, the
# reference −11 to both. The log-ratios are 1 and −1, the margin is $0.5 \cdot (1 - (-1)) = 1$, the loss
# $-\log \sigma(1) = 0.313$. Before training, policy and reference are the same, every margin is 0, and the loss is
# $\ln 2 = 0.693$.
#
# The log-probability of an answer is a **sum** over its tokens, EOS included: the product rule of probability, in
# logarithms.


# %% exercise="sequence_logprob"
def sequence_logprob(
    logits: torch.Tensor, input_ids: torch.Tensor, response_mask: torch.Tensor
) -> torch.Tensor:
    """Summed log-probability of each response, (B,).

    logits: (B, T, V), position t predicts token t+1; input_ids: (B, T); response_mask: (B, T), True
    for the response's tokens.
    """
    ### BEGIN SOLUTION
    logprobs = logits[:, :-1].log_softmax(-1)
    picked = logprobs.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    return (picked * response_mask[:, 1:]).sum(-1)
    ### END SOLUTION


# %% test="sequence_logprob"
check("sequence_logprob", sequence_logprob)
### BEGIN HIDDEN TESTS
check("sequence_logprob", sequence_logprob, hidden=True)
### END HIDDEN TESTS


# %% exercise="dpo_loss"
def dpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Mean over the pairs, finite however wrong they are. All four: (N,), summed log-probabilities."""
    ### BEGIN SOLUTION
    margin = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    return -torch.nn.functional.logsigmoid(margin).mean()
    ### END SOLUTION


# %% test="dpo_loss"
check("dpo_loss", dpo_loss)
### BEGIN HIDDEN TESTS
check("dpo_loss", dpo_loss, hidden=True)
### END HIDDEN TESTS

# %%
by_hand = [torch.tensor([x]) for x in (-10.0, -12.0, -11.0, -11.0)]
loss, metrics = preference.dpo_loss(*by_hand, beta=0.5)
print(f"{loss.item():.3f} by hand 0.313")
assert abs(loss.item() - 0.313) < 5e-4
print({name: round(value.item(), 3) for name, value in metrics.items()})

# %% [markdown]
# ## Another shape: the hinge
# SLiC (Zhao et al. 2023, arXiv 2305.10425) uses $\max(0, 1 - \text{margin})$ instead: the push is the same until the
# margin is 1, and then there is none. The sigmoid loss pushes a clear pair ever less, but never stops.


# %% exercise="hinge_loss"
def hinge_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Mean of max(0, 1 - margin) over the pairs, with the margin of dpo_loss. All four: (N,)."""
    ### BEGIN SOLUTION
    margin = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    return (1 - margin).relu().mean()
    ### END SOLUTION


# %% test="hinge_loss"
check("hinge_loss", hinge_loss)
### BEGIN HIDDEN TESTS
check("hinge_loss", hinge_loss, hidden=True)
### END HIDDEN TESTS

# %%
from course_utils import plotting

margins, zero = torch.linspace(-3, 3, 61), torch.zeros(1)
ax = plotting.axes()
for name, colour in zip(("sigmoid", "hinge"), plotting.colours(("DPO", "hinge"))):
    curve = [preference.dpo_loss(m.view(1), zero, zero, zero, 1.0, name)[0].item() for m in margins]
    ax.plot(margins, curve, color=colour, label=name, linewidth=2)
ax.axvline(0, color=plotting.COLOURS["text"], linewidth=0.8)
ax.set(title="One pair's loss: the slope is the push", xlabel="margin", ylabel="loss")
_ = ax.legend()

# %% [markdown]
# ## Training, written out
# First the data and the two models, which are one and the same at the start. The pairs are those of chapter 04, chosen
# by the annotators' votes.

# %%
from course_utils import data, models, runs
from course_utils.preference import pipeline

settings = preference.PreferenceSettings.of(course)
pairs = pipeline.train_pairs(course, course.seed)
sft_folder = runs.ensure("sft", course)
sft, tokenizer = models.load_merged(sft_folder, course)
sides = {
    side: [len(tokenizer(row[side])["input_ids"]) for row in pairs]
    for side in ("chosen", "rejected")
}
print(f"{len(pairs)} pairs; {settings}")
print({side: f"{sum(counts) / len(counts):.1f} tokens" for side, counts in sides.items()})

# %% [markdown]
# Both sides of every pair go through the model in one batch; the mask keeps the response. The reference never changes,
# so its log-probabilities are computed once, without gradient. A few steps on one batch are enough to see the loss fall.
# The loop uses the loss you wrote, once it is right.

# %%
import math
from copy import deepcopy

from course_utils.checks import RIGHT, evaluate
from course_utils.exercises import get_exercise

solved = evaluate(get_exercise("dpo_loss"), dpo_loss, [0]).status == RIGHT
loss_of = dpo_loss if solved else lambda *sums: preference.dpo_loss(*sums)[0]
print("with your loss" if solved else "with the package's loss, until yours is right")


def side_logprobs(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-probabilities of the chosen and of the rejected sides."""
    sums, _ = preference.response_logprobs(
        model, batch.input_ids, batch.attention_mask, batch.response_mask
    )
    return sums.chunk(2)


student = deepcopy(sft).float().train()
optimiser = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate)
rows = pairs.select(range(settings.batch_size // 2))
batch = preference.collate_pairs(rows, tokenizer, student.device, settings.max_length)
with torch.no_grad():
    ref_sides = side_logprobs(student, batch)  # before its first step it is the reference
losses = []
for step in range(course.pick(full=6, small=3)):
    loss = loss_of(*side_logprobs(student, batch), *ref_sides, settings.beta)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
print(" ".join(f"{x:.3f}" for x in losses))
assert abs(losses[0] - math.log(2)) < 1e-3
del student, optimiser

# %% [markdown]
# The first loss is ln 2, as it must be. A first loss of anything else means that policy and reference were not the same,
# or that something is masked or shifted wrongly: the cheapest test there is of a DPO set-up.
#
# ## Training with TRL
# `DPOTrainer` does the same with everything a real run needs. The course's `preference.train_dpo` checks the pairs,
# has the reference's log-probabilities computed once before the first step (so that no second model is held), and returns
# the history. `runs.ensure("dpo", course)` calls it and keeps the result.

# %%
folder = runs.ensure("dpo", course)
history = runs.history(folder)
print(f"{settings.epochs} pass over {len(pairs)} pairs, {settings.batch_size} in a step")
print("at the first step:", {k: round(v, 3) for k, v in history[0].items()})

# %%
import matplotlib.pyplot as plt

plotting.style()
figure, panels = plt.subplots(2, 2, figsize=(10, 6))
steps = [row["step"] for row in history]
for panel, keys, title in zip(
    panels.flat,
    (
        ("loss",),
        ("rewards/accuracies",),
        ("rewards/chosen", "rewards/rejected"),
        ("logps/chosen", "logps/rejected"),
    ),
    ("loss", "pairs in the right order", "implicit rewards", "log-probabilities"),
):
    for key, colour in zip(keys, (plotting.COLOURS["dpo"], plotting.COLOURS["ppo"])):
        values = [row[key] for row in history]
        panel.plot(steps, values, color=colour, alpha=0.25)
        panel.plot(steps, plotting.smooth(values), color=colour, linewidth=2, label=key)
    panel.set(title=title, xlabel="optimiser step")
    panel.legend()
_ = panels[0, 0].axhline(math.log(2), color=plotting.COLOURS["text"], linestyle="--", linewidth=1)

# %% [markdown]
# | metric | meaning | healthy |
# |---|---|---|
# | `loss` | mean of $-\log \sigma(\text{margin})$ | starts at ln 2 (dashed), falls |
# | `rewards/accuracies` | share of pairs with a margin above 0 | from nothing (all ties) to what the labels allow; near 1 is learning by heart |
# | `rewards/chosen`, `rewards/rejected` | $\beta \times$ log-ratio of that side | they part; where each goes is another question, see below |
# | `rewards/margins` | the first less the second | rises |
# | `logps/chosen`, `logps/rejected` | summed log-probability of that side | batches differ, so look at the held-out pairs below |
#
# ## Is the implicit reward any good?
# The policy is a reward model now: its log-ratio scores any answer. How often does it agree with gold on held-out clean
# pairs, beside the reward model of chapter 04, which has seen all of the training pairs and does nothing else?

# %%
from course_utils import evaluation, report_metric, reward

tuned, _ = models.load(folder, course)
held_out = data.load_preferences(course, "test", labels="clean" if world else "votes")
held_out = held_out.select(range(min(len(held_out), course.pick(full=300, small=60))))
ref_sums, sums = (
    torch.from_numpy(pipeline.pair_logprobs(m, tokenizer, held_out, settings.max_length))
    for m in (sft, tuned)
)
implicit = preference.implicit_reward(sums, ref_sums, settings.beta)  # (2, N)
judge, judge_tokenizer = reward.load_reward_model(runs.ensure("reward", course), course)
margins_of = {
    "DPO's implicit reward": (implicit[0] - implicit[1]).numpy(),
    "reward model": reward.pair_margins(judge, judge_tokenizer, held_out),
    "DPO's policy alone": (sums[0] - sums[1]).numpy(),
    "SFT's policy alone": (ref_sums[0] - ref_sums[1]).numpy(),
}
for name, gaps in margins_of.items():
    share = reward.accuracy(gaps)
    low, high = evaluation.rate_interval(round(share * len(gaps)), len(gaps))
    print(f"{name:22} right on {share:.3f} of {len(gaps)} pairs [{low:.3f}, {high:.3f}]")
report_metric("run_implicit_accuracy_dpo", reward.accuracy(margins_of["DPO's implicit reward"]))

# %% [markdown]
# "Alone" means without the reference: which side is more likely. A model may put the sides of a pair in the right order
# as rewards and still think the worse one more likely, because the reference did. (Intervals over pairs, for the one
# model of each kind trained here.)
#
# ## Both can fall
# The loss sees only the *difference* of the two log-ratios. It is as happy with a chosen answer that becomes less
# likely, as long as the rejected one does so faster. On the same held-out pairs, before and after:

# %%
for side, before, after in zip(("chosen", "rejected"), ref_sums, sums):
    low, high = evaluation.mean_interval((after - before).numpy())
    print(
        f"{side:8} log-probability {before.mean():7.2f} -> {after.mean():7.2f}, "
        f"change {(after - before).mean():+.2f} [{low:+.2f}, {high:+.2f}], "
        f"rose in {(after > before).double().mean():.0%}"
    )

# %% [markdown]
# Probabilities sum to 1, so what both sides of the pairs lose goes to answers that are in no pair: the loss never sees
# whether those are good.
#
# ## Before and after
# The same prompts, which neither was trained on, and the same sampling.

# %%
test = data.load_prompts(course, "test")
test = test[: course.pick(full=len(test), small=24)]
before = evaluation.evaluate(course, sft, tokenizer, test)
after = evaluation.evaluate(course, tuned, tokenizer, test)
plotting.side_by_side(
    [
        {"instruction": f"{c.instruction} {c.context}", "SFT": b.text, "DPO": a.text}
        for c, b, a in list(zip(test, before.responses, after.responses))[:6]
    ]
)

# %%
asked = [data.prompt_of(case) for case in test]
scores = [
    reward.get_rewards(judge, judge_tokenizer, asked, [r.text for r in e.responses])
    for e in (before, after)
]
del judge
learnt = evaluation.paired_difference(scores[1], scores[0])
report_metric("run_reward_dpo_minus_sft_ci95", [learnt.low, learnt.high])
print(f"this run: {after.metric} {before.mean:.2f} -> {after.mean:.2f}")
print(f"paired difference {evaluation.paired_difference(after.values, before.values)}")
print(f"reward model's score: {learnt}")
print(f"against SFT: {pipeline.win_rate(after.values, before.values)}")
for name, part in after.parts().items():
    print(f"  {name:10} {before.parts()[name]:+.2f} -> {part:+.2f}")
lengths = [sum(len(r.tokens) for r in e.responses) / len(test) for e in (before, after)]
own = after  # the KL is estimated from the policy's own samples, at temperature 1
if course.profile.temperature != 1:
    own = evaluation.evaluate(course, tuned, tokenizer, test[:32], temperature=1.0)
kl = pipeline.mean_kl(
    tuned, sft, tokenizer, asked[: len(own.cases)], [r.tokens for r in own.responses]
)
print(f"tokens per answer {lengths[0]:.1f} -> {lengths[1]:.1f}; KL {kl:.1f} nats per answer")

# %% [markdown]
# ## Three seeds
# One run is an anecdote. The record of `python -m course_utils sweep preference` (made in `tiny`) holds three seeds for
# each kind of run. A seed draws its own pairs and their order; the SFT model is the same for all. Each run had a
# process of its own.

# %%
import numpy as np

from course_utils import sweeps

header, record = sweeps.load_record("preference")
default = header["config"]["settings"]["dpo"]["beta"]


def recorded(key: str, method: str, beta: float | None = None) -> np.ndarray:
    """That number, or list of numbers, of each run of a method, seed by seed."""
    found = [r for r in record if r["method"] == method and key in r]
    found = [r for r in found if beta in (None, r.get("beta"))]
    return np.array([r[key] for r in sorted(found, key=lambda r: r["seed"])])


gold_sft, gold_dpo = recorded("test", "sft"), recorded("test", "dpo", default)
gain = evaluation.paired_difference(gold_dpo, gold_sft)
report_metric("gold_dpo", gold_dpo.mean())
report_metric("gold_dpo_minus_sft_ci95", [gain.low, gain.high])
print(f"recorded {header['date']} with torch {header['versions']['torch']}")
print(f"gold of SFT {gold_sft.mean():.2f}; DPO minus SFT over three seeds: {gain}")
print(f"against SFT, all seeds: {pipeline.win_rate(gold_dpo.ravel(), gold_sft.ravel())}")
if tiny and course.size == "full" and course.seed == 0:
    print(f"seed 0: recorded {gold_dpo[0].mean():.2f}, here {after.mean:.2f}")

# %% [markdown]
# ## β, and the hinge
# A larger $\beta$ keeps the policy *closer* to the reference, as the price of KL did in PPO: the same margin is then
# reached with a smaller log-ratio. With a small one the policy follows the annotators' habits much further, long answers
# first; look at the KL, the tokens and what gold thinks of it.

# %%
betas = sorted({r["beta"] for r in record if r["method"] == "dpo" and "beta" in r})
variants = {f"DPO, β {beta:g}": ("dpo", beta) for beta in betas}
variants[f"hinge, β {default:g}"] = ("hinge", default)
rows = []
for name, (method, beta) in variants.items():
    gold, kls = recorded("test", method, beta), recorded("kl", method, beta)
    chosen, rejected = recorded("chosen", method, beta), recorded("rejected", method, beta)
    rows.append(
        {
            "": name,
            "gold minus SFT": str(evaluation.paired_difference(gold, gold_sft)),
            "KL": f"{kls.mean():.1f}",
            "tokens": f"{recorded('length', method, beta).mean():.1f}",
            "ended by itself": f"{recorded('finished', method, beta).mean():.0%}",
            "log-prob. of chosen": f"{np.diff(chosen).mean():+.2f}",
            "of rejected": f"{np.diff(rejected).mean():+.2f}",
            "implicit reward right": f"{recorded('agrees', method, beta).mean():.3f}",
        }
    )
print(f"SFT: {recorded('length', 'sft').mean():.1f} tokens per answer, gold {gold_sft.mean():.2f}")
plotting.side_by_side(rows)

# %%
plotting.style()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
for (name, (method, beta)), colour in zip(variants.items(), plotting.CYCLE):
    kls = recorded("kl", method, beta)
    left.plot(kls, recorded("test", method, beta).mean(1), "o", color=colour, label=name)
    right.plot(kls, recorded("length", method, beta), "o", color=colour, label=name)
for panel, value, label in (
    (left, gold_sft.mean(), "mean gold"),
    (right, recorded("length", "sft").mean(), "tokens per answer"),
):
    panel.axhline(value, color=plotting.COLOURS["sft"], linestyle="--", linewidth=1, label="SFT")
    panel.set(xlabel="KL (nats per response)", ylabel=label)
left.set_title("What is wanted")
right.set_title("How long the answers get")
_ = left.legend()

# %% [markdown]
# One dot is one seed. The annotators like length and cheer more than they should (chapter 04), DPO learns that from
# the pairs as the reward model did, and since it sums over tokens, nothing in the loss stands in the way of longer
# answers.
#
# ## DPO and RLHF side by side
# PPO's gold comes from the record of chapter 05; time and memory of both were measured in the same way, each training
# in a fresh process. Seed-to-seed spread is the standard deviation of the mean gold over three seeds: with three, a
# rough figure.

# %%
ppo_header, ppo_record = sweeps.load_record("overoptimization")
price = ppo_header["config"]["ppo"]["init_kl_coef"]
gold_ppo = np.array(
    [r["test"] for r in ppo_record if r["method"] == "ppo" and r["kl_coef"] == price]
)


def figures(*methods: str) -> tuple[float, float]:
    """Seconds in all, and the largest peak memory, in MB."""
    spent = [recorded("seconds", m).sum() for m in methods]
    peaks = [recorded("peak_mb", m).max() for m in methods]
    return sum(spent), max(peaks)


seconds_dpo, peak_dpo = figures("dpo")
seconds_ppo, peak_ppo = figures("ppo")
libraries = recorded("libraries_mb", "dpo").mean()
spread_dpo, spread_ppo = (gold.mean(1).std(ddof=1) for gold in (gold_dpo, gold_ppo))
for name, value in (
    ("seconds_dpo", seconds_dpo),
    ("seconds_ppo", seconds_ppo),
    ("peak_mb_dpo", peak_dpo),
    ("peak_mb_ppo", peak_ppo),
    ("seed_spread_dpo", spread_dpo),
    ("seed_spread_ppo", spread_ppo),
):
    report_metric(name, float(value))

# %%
both = evaluation.paired_difference(gold_dpo, gold_ppo)
dpo_knobs = len(header["config"]["settings"]["dpo"])
plotting.side_by_side(
    [
        {"": "reward model", "RLHF with PPO": "required", "DPO": "not required"},
        {
            "": "models held in memory",
            "RLHF with PPO": "policy with value head, reference, reward model",
            "DPO": "policy (the reference is read once, before training)",
        },
        {
            "": "settings of the method's configuration",
            "RLHF with PPO": f"{len(ppo_header['config']['ppo'])}, and the reward model's",
            "DPO": f"{dpo_knobs}, a few of them other methods'",
        },
        {
            "": "seconds of training",
            "RLHF with PPO": f"{seconds_ppo:.0f}, and {figures('reward')[0]:.0f} for the reward model",
            "DPO": f"{seconds_dpo:.0f}",
        },
        {
            "": f"peak memory, MB (libraries alone: {libraries:.0f})",
            "RLHF with PPO": f"{peak_ppo:.0f}",
            "DPO": f"{peak_dpo:.0f}",
        },
        {
            "": "stability: spread of gold over seeds",
            "RLHF with PPO": f"{spread_ppo:.2f}",
            "DPO": f"{spread_dpo:.2f}",
        },
        {
            "": "gold minus SFT",
            "RLHF with PPO": str(evaluation.paired_difference(gold_ppo, gold_sft)),
            "DPO": str(gain),
        },
        {"": "gold, DPO minus PPO", "RLHF with PPO": "", "DPO": str(both)},
    ]
)

# %%
means = {"SFT": gold_sft, "DPO": gold_dpo, "hinge": recorded("test", "hinge"), "PPO": gold_ppo}
_ = plotting.bars(
    {name: float(gold.mean()) for name, gold in means.items()},
    {name: evaluation.mean_interval(gold.mean(0)) for name, gold in means.items()},
    title="Mean gold on the test prompts, three seeds each",
    ylabel="gold",
)

# %% [markdown]
# (Whiskers: 95% bootstrap intervals over prompts of the seeds' mean.) Mind what is compared: PPO practised on its own
# answers and used a reward model trained on all the pairs, DPO saw a part of them once. And the memory is that of a
# tiny model: its weights take about 6 MB, next to nothing beside the libraries and the activations of a batch. With
# a large model the number of models held decides.
#
# ## Then and now
# Older code for DPO stops with these errors in the TRL installed here:

# %%
from tempfile import mkdtemp

from trl import DPOConfig, DPOTrainer

plain = {"output_dir": mkdtemp(), "report_to": "none", "bf16": False}
plain["use_cpu"] = course.device == "cpu"
usual = {
    "model": deepcopy(sft),
    "args": DPOConfig(**plain, activation_checkpointing=False),
    "train_dataset": pairs.select(range(4)).select_columns(["prompt", "chosen", "rejected"]),
}
older = {
    "tokenizer=": lambda: DPOTrainer(**usual, tokenizer=tokenizer),
    "beta= of the trainer": lambda: DPOTrainer(**usual, processing_class=tokenizer, beta=0.1),
    "max_prompt_length=": lambda: DPOConfig(**plain, max_prompt_length=256),
    "now": lambda: DPOTrainer(**usual, processing_class=tokenizer),
}
for name, call in older.items():
    try:
        call()
        print(f"{name:21} works")
    except Exception as error:
        print(f"{name:21} {type(error).__name__}: {error}")

# %% [markdown]
# | then | now |
# |---|---|
# | `DPOTrainer(tokenizer=tok)` | `DPOTrainer(processing_class=tok)` |
# | `DPOTrainer(beta=0.1, max_length=512)` | `DPOConfig(beta=0.1, max_length=512)` |
# | `DPOConfig(max_prompt_length=256)` | gone: choose `max_length` so that prompt and response fit together |
# | `ref_model=` a second copy of the model | leave it out: `DPOConfig(precompute_ref_log_probs=True)` reads the reference once |
#
# ## In your own words
# In a run of DPO the loss falls nicely, and the accuracy on training pairs rises. Somebody looks at the
# log-probabilities of the chosen answers and finds that they have *fallen*. How can that be, is it always bad, and what
# else than the loss would you look at before you ship the model?

# %% [markdown] answer="both_fall" points=2
# The loss depends only on the difference of the two log-ratios, so it falls as long as the rejected answers lose more than
# the chosen ones. Chosen and rejected often share much of their text, and then both are pushed down together. It is not
# always bad: a sampled answer that is better than both sides has to take its probability from somewhere. But the loss
# does not say where it went. Look at samples: their length, whether they end, the KL from the reference, and what
# people or a judge think of them on held-out prompts.
