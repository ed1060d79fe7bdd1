# %% [markdown]
# # 05 · PPO: learning from a reward model
# **Goal:** let the model write, let the reward model score, and move the model towards what scores well without
# letting it drift away. Write the core lines of PPO yourself, run the whole loop, read its metrics, and see what
# happens when a reward model is trusted too far.
#
# **Time:** 75 minutes; once chapters 02 and 04 have trained their models, under three minutes to run in `tiny` on two
# cores and twelve in `laptop`. **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("05_ppo")

# %% [markdown]
# ## The objective
# SFT needs somebody to write good answers. A reward model only needs answers to compare, so the model can
# practise on prompts nobody has answered:
#
# $$\max_\theta \; \mathbb{E}_{x,\; y \sim \pi_\theta(\cdot \mid x)} \big[\, r(x, y) \,\big]
#   - \beta \, \mathrm{KL}\big(\pi_\theta \,\Vert\, \pi_\mathrm{ref}\big)$$
#
# The **policy** $\pi_\theta$ is the model being trained, the **reference** $\pi_\mathrm{ref}$ is the SFT model it
# started from, and $\beta$ (`kl_coef`) is the price of one **nat** of KL divergence, the unit of information when
# logarithms are natural. Without that price the policy may go wherever the reward model can be fooled.

# %%
from course_utils import data
from course_utils.ppo import pipeline

prompts = pipeline.train_prompts(course)
policy, tokenizer = pipeline.new_policy(course)  # the SFT model, with a value head
reward_fn = pipeline.scorer(course)  # the reward model of chapter 04
print(f"{len(prompts)} prompts without answers, for example:\n\n{prompts[0]}")

# %% [markdown]
# ## KL, estimated from samples
# The exact KL sums over every possible answer. From answers the policy sampled it can be estimated token by
# token. With $d = \log \pi_\mathrm{ref} - \log \pi_\theta$ (Schulman 2020):
#
# $$k_1 = -d \qquad k_2 = d^2 / 2 \qquad k_3 = e^d - 1 - d$$
#
# $k_1$ is right on average and can be negative, $k_2$ is slightly off and steady, $k_3$ is right on average and
# never negative.


# %% exercise="kl_estimators"
import torch


def kl_estimators(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(k1, k2, k3) for every token. Both inputs have the same shape, (B, R)."""
    ### BEGIN SOLUTION
    d = ref_logprobs - logprobs
    return -d, d**2 / 2, d.exp() - 1 - d
    ### END SOLUTION


# %% test="kl_estimators"
from course_utils import check

check("kl_estimators", kl_estimators)
### BEGIN HIDDEN TESTS
check("kl_estimators", kl_estimators, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# On three symbols the exact value is known, so the estimates can be checked. (From here on the cells use the
# package's own versions, so they run whether or not the exercises are solved.)

# %%
from course_utils import logprobs

p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
exact = (p * (p / q).log()).sum()
draws = torch.multinomial(p, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
print(f"exact KL {exact:.4f}")
for name, k in zip(("k1", "k2", "k3"), logprobs.kl_estimates(p.log()[draws], q.log()[draws])):
    print(f"{name}: mean {k.mean():.4f}, spread of one sample {k.std():.3f}")

# %% [markdown]
# ## A reward for every token
# The score comes once, at the end. The KL is paid as it arises. So each token's reward is
# $-\beta k_1$, and the last one gets the score on top (Ziegler et al. 2019, arXiv 1909.08593).


# %% exercise="token_rewards"
def token_rewards(
    scores: torch.Tensor,
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    response_mask: torch.Tensor,
    kl_coef: float,
) -> torch.Tensor:
    """(B, R). scores: (B,); the rest (B, R); the mask is True for the tokens of a response."""
    ### BEGIN SOLUTION
    rewards = -kl_coef * (logprobs - ref_logprobs) * response_mask
    last = response_mask.long().sum(1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards
    ### END SOLUTION


# %% test="token_rewards"
check("token_rewards", token_rewards)
### BEGIN HIDDEN TESTS
check("token_rewards", token_rewards, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Advantages: better than expected?
# A score of 2 is good news for a hard prompt and bad news for an easy one. The **value function** $V$ learns what
# to expect at each token; it is one linear layer, the **value head**, on top of the policy's own network. The
# **advantage** says how much better things went than expected. **GAE** (Schulman et al. 2015, arXiv 1506.02438)
# computes it backwards:
#
# $$\delta_t = r_t + \gamma V_{t+1} - V_t \qquad A_t = \delta_t + \gamma \lambda A_{t+1}$$
#
# By hand, with $\gamma = \lambda = 0.5$, rewards 0, 1, 4 and values 2, 1, 3 (a fourth token is padding, where nothing
# counts): the deltas are −1.5, 1.5 and 1, so $A_3 = 1$, $A_2 = 1.5 + 0.25 \cdot 1 = 1.75$ and
# $A_1 = -1.5 + 0.25 \cdot 1.75 = -1.0625$.

# %%
from course_utils import ppo

advantages, returns = ppo.gae(
    torch.tensor([[0.0, 1.0, 4.0, 0.0]]),
    torch.tensor([[2.0, 1.0, 3.0, 77.0]]),
    torch.tensor([[True, True, True, False]]),
    gamma=0.5,
    lam=0.5,
)
print(advantages.tolist(), returns.tolist())


# %% exercise="gae"
def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    response_mask: torch.Tensor,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantages, returns), both (B, R), zero on padding; returns are advantages + values."""
    ### BEGIN SOLUTION
    keep = response_mask.to(values.dtype)
    values = values * keep
    advantages = torch.zeros_like(values)
    later, value_ahead = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * value_ahead - values[:, t]
        later = (delta + gamma * lam * later) * keep[:, t]
        value_ahead = values[:, t]
        advantages[:, t] = later
    return advantages, advantages + values
    ### END SOLUTION


# %% test="gae"
check("gae", gae)
### BEGIN HIDDEN TESTS
check("gae", gae, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Scores may be large or small, so before use the advantages of a batch are **whitened**: shifted to mean 0 and
# scaled to variance 1, over real tokens only.


# %% exercise="whiten"
def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over the kept entries (divide by their number), 0 elsewhere."""
    ### BEGIN SOLUTION
    kept = values[mask.bool()]
    variance = kept.var(correction=0)
    return (values - kept.mean()) / (variance + 1e-8).sqrt() * mask
    ### END SOLUTION


# %% test="whiten"
check("whiten", whiten)
### BEGIN HIDDEN TESTS
check("whiten", whiten, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## The clipped objective
# One batch of answers is used for several updates. After the first, the policy is no longer the one that sampled
# them, which the **ratio** $\rho = \pi_\theta / \pi_\mathrm{old}$ corrects. **PPO** (Schulman et al. 2017, arXiv
# 1707.06347) removes the incentive to move the ratio far from 1:
#
# $$\mathcal{L} = \frac{1}{\sum m} \sum_t m_t \max\big(-A_t \rho_t,\; -A_t \,\mathrm{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\big)$$

# %%
from course_utils import plotting

ratios = torch.linspace(0.5, 1.5, 101)
ax = plotting.axes()
one = torch.ones(1, 1, dtype=torch.bool)
for advantage, colour, label in (
    (1.0, plotting.COLOURS["dpo"], "A = +1: a good token"),
    (-1.0, plotting.COLOURS["ppo"], "A = −1: a bad token"),
):
    losses = [
        ppo.policy_loss(r.log().view(1, 1), torch.zeros(1, 1), torch.full((1, 1), advantage), one)[
            0
        ]
        for r in ratios
    ]
    ax.plot(ratios, losses, color=colour, label=label, linewidth=2)
ax.axvspan(0.8, 1.2, color="#999999", alpha=0.15, label="inside the clip range")
ax.set(title="Flat means no gradient: the ratio has moved enough", xlabel="ratio", ylabel="loss")
_ = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


# %% exercise="clipped_policy_loss"
def clipped_policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange: float,
) -> torch.Tensor:
    """The mean over kept tokens. All tensors (B, R)."""
    ### BEGIN SOLUTION
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - cliprange, 1 + cliprange)
    per_token = torch.maximum(-advantages * ratio, -advantages * clipped)
    return per_token[response_mask.bool()].mean()
    ### END SOLUTION


# %% test="clipped_policy_loss"
check("clipped_policy_loss", clipped_policy_loss)
### BEGIN HIDDEN TESTS
check("clipped_policy_loss", clipped_policy_loss, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The values learn from the returns, and are kept from jumping in the same way: half the squared error of the
# value or of the value clipped to $V_\mathrm{old} \pm \epsilon_V$, whichever is larger.


# %% exercise="clipped_value_loss"
def clipped_value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange_value: float,
) -> torch.Tensor:
    """Half the mean over kept tokens of the larger squared error. All tensors (B, R)."""
    ### BEGIN SOLUTION
    near = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return 0.5 * errors[response_mask.bool()].mean()
    ### END SOLUTION


# %% test="clipped_value_loss"
check("clipped_value_loss", clipped_value_loss)
### BEGIN HIDDEN TESTS
check("clipped_value_loss", clipped_value_loss, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## The price of KL
# A fixed $\beta$ is simple. An **adaptive** one steers towards a target KL: with the error
# $e = \mathrm{clip}(\mathrm{KL}/\mathrm{target} - 1, -0.2, 0.2)$ after $n$ samples,
# $\beta \leftarrow \beta\,(1 + e\,n/\mathrm{horizon})$ (Ziegler et al. 2019).


# %% exercise="update_kl_coef"
def update_kl_coef(kl_coef: float, kl: float, target: float, n_samples: int, horizon: int) -> float:
    """The new coefficient."""
    ### BEGIN SOLUTION
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * n_samples / horizon)
    ### END SOLUTION


# %% test="update_kl_coef"
check("update_kl_coef", update_kl_coef)
### BEGIN HIDDEN TESTS
check("update_kl_coef", update_kl_coef, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## One step, written out
# Collect, score, compute advantages, update. The classic calls do the plumbing; `step` is what you have just
# written, put together.

# %%
config = ppo.PPOConfig.of(course)
trainer = ppo.PPOTrainer(config, policy, None, tokenizer)  # None: the reference is a frozen copy
batch = prompts[: config.batch_size]
queries = [torch.tensor(ids) for ids in tokenizer(batch)["input_ids"]]
responses = trainer.generate(queries, return_prompt=False)
texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
scores = reward_fn(batch, [t.strip() for t in texts])
stats = trainer.step(queries, responses, scores)
trainer.log_stats(stats, {"query": batch, "response": texts}, scores)
assert (
    abs(stats["objective/kl"]) < 1e-2
)  # before the first update policy and reference are the same
print({name: round(value, 3) for name, value in stats.items()})

# %% [markdown]
# Every metric, and which way is healthy:
#
# | metric | meaning | healthy |
# |---|---|---|
# | `objective/kl` | nats per response between policy and reference | rises slowly, stays bounded |
# | `objective/kl_coef` | the price of one nat | steady, or settling if adaptive |
# | `objective/entropy` | nats per token: how undecided the policy is | falls slowly; a crash to 0 means it repeats itself |
# | `scores/mean`, `scores/std` | the reward model's scores | the mean rises; a spread of 0 leaves nothing to learn |
# | `rewards/mean` | score minus the KL paid | rises: this is the objective itself |
# | `policy/loss` | the clipped loss | near 0; its size says little |
# | `policy/clipfrac` | share of tokens outside the clip range | below about 0.2 |
# | `policy/approx_kl` | how far one batch moved the policy | small and steady, no spikes |
# | `value/loss` | error of the value function | falls |
# | `value/explained_variance` | how much of the returns the values foresee | rises from 0 towards 1 |
# | `response/length` | tokens | no run-away in either direction |
# | `response/eos_rate` | share that ends by itself | near 1 |
#
# ## The whole run
# `train` repeats that step. It takes any function of prompts and responses as reward.

# %%
from course_utils import runs

folder = runs.ensure("ppo", course)
history = runs.history(folder)
print(f"{len(history)} steps of {config.batch_size} responses, KL price {config.init_kl_coef}")

# %%
import matplotlib.pyplot as plt

plotting.style()
figure, panels = plt.subplots(2, 3, figsize=(10, 5))
for panel, key in zip(
    panels.flat,
    (
        "scores/mean",
        "objective/kl",
        "objective/entropy",
        "value/explained_variance",
        "policy/clipfrac",
        "response/length",
    ),
):
    values = [row[key] for row in history]
    panel.plot(values, alpha=0.25, color=plotting.COLOURS["ppo"])
    panel.plot(plotting.smooth(values), color=plotting.COLOURS["ppo"], linewidth=2)
    panel.set(title=key, xlabel="PPO step")

# %% [markdown]
# ## Before and after
# Gold was never used in training. It measures what the reward model only guesses. (In profiles without gold the
# stand-in of chapter 01 takes its place.) Both models answer at temperature 1: PPO changes how often each answer is
# drawn, and the likeliest one may stay what it was.

# %%
from course_utils import evaluation, models, report_metric

sft, _ = models.load(runs.ensure("sft", course), course)
tuned, _ = models.load(folder, course)
test = data.load_prompts(course, "test")
test = test[: course.pick(full=len(test), small=24)]
before = evaluation.evaluate(course, sft, tokenizer, test, temperature=1.0)
after = evaluation.evaluate(course, tuned, tokenizer, test, temperature=1.0)
plotting.side_by_side(
    [
        {"instruction": f"{c.instruction} {c.context}", "SFT": b.text, "PPO": a.text}
        for c, b, a in list(zip(test, before.responses, after.responses))[:6]
    ]
)

# %%
asked = [data.prompt_of(case) for case in test]
scores = [reward_fn(asked, [r.text for r in e.responses]) for e in (before, after)]
learnt = evaluation.paired_difference(scores[1], scores[0])
report_metric("run_reward_ppo_minus_sft_ci95", [learnt.low, learnt.high])
print(f"this run, seed {course.seed}, on {len(test)} held-out prompts:")
print(f"  reward model {learnt}")
print(f"  {after.metric:12} {evaluation.paired_difference(after.values, before.values)}")
print(f"parts of {after.metric}:")
for part, value in after.parts().items():
    print(f"  {part:10} {before.parts()[part]:+.2f} -> {value:+.2f}")

# %% [markdown]
# One run is an anecdote. The record of `python -m course_utils sweep overoptimization` (made in `tiny`) holds three seeds for
# each price of KL; the run above is one of them.

# %%
import numpy as np

from course_utils import sweeps

header, record = sweeps.load_record("overoptimization")
default = header["config"]["ppo"]["init_kl_coef"]
runs_of = {
    beta: [r for r in record if r["method"] == "ppo" and r["kl_coef"] == beta]
    for beta in header["config"]["kl_coefs"]
}
sampled = [r for r in record if r["method"] == "best_of_n"]
gold_sft = np.array([r["test"] for r in sampled])
gold_ppo = np.array([r["test"] for r in runs_of[default]])
gain = evaluation.paired_difference(gold_ppo, gold_sft)
report_metric("gold_sft", gold_sft.mean())
report_metric("gold_ppo", gold_ppo.mean())
report_metric("gold_ppo_minus_sft_ci95", [gain.low, gain.high])
report_metric("kl_ppo", float(np.mean([r["points"][-1]["kl"] for r in runs_of[default]])))
print(f"recorded {header['date']}; PPO minus SFT over three seeds: {gain}")

# %% [markdown]
# ## Best-of-n: no training at all
# Sample n answers, keep the one the reward model likes best. It is the simplest use of a reward model, needs n times
# the sampling at every answer, and lies $\log n - (n-1)/n$ nats from the model it samples. From N samples per prompt
# its expected gold can be computed for every n up to N.


# %% exercise="best_of_n"
def best_of_n(proxy: torch.Tensor, gold: torch.Tensor, n: int) -> float:
    """Expected gold of the best of n by proxy, both (P, N), without bias: of the ways to draw n of the
    N samples, the one of rank k by proxy (1 = lowest) is the best in C(k-1, n-1) of C(N, n)."""
    ### BEGIN SOLUTION
    from math import comb

    total = proxy.shape[1]
    weights = [comb(k - 1, n - 1) / comb(total, n) for k in range(1, total + 1)]
    ordered = gold.double().gather(1, proxy.argsort(dim=1))
    return float((ordered * ordered.new_tensor(weights)).sum(1).mean())
    ### END SOLUTION


# %% test="best_of_n"
check("best_of_n", best_of_n)
### BEGIN HIDDEN TESTS
check("best_of_n", best_of_n, hidden=True)
### END HIDDEN TESTS

# %%
for i, point in enumerate(sampled[0]["points"]):
    golds = [r["points"][i]["gold"] for r in sampled]
    print(
        f"n = {point['n']:2}, KL at most {point['kl']:.2f}: gold {np.mean(golds):.2f} "
        f"(seeds {min(golds):.2f} to {max(golds):.2f})"
    )
report_metric("gold_best_of_n", float(np.mean([r["points"][-1]["gold"] for r in sampled])))

# %% [markdown]
# ## When the proxy stops being the goal
# The reward model is a **proxy**: trained on what biased annotators preferred, blind to some of what matters. Push hard
# enough and the policy finds answers that score well and are bad. Gao et al. 2022 (arXiv 2210.10760) call it
# **over-optimisation** and draw it against the square root of the KL. Each line is one price of KL, the mean of
# three seeds; the band is the range over the seeds.

# %%
plotting.style()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
for beta, colour in zip(runs_of, (plotting.COLOURS["ppo"], "#E69F00", "#0072B2")):
    points = [r["points"] for r in runs_of[beta]]
    root = np.sqrt(np.maximum(0, [[p["kl"] for p in run] for run in points]))
    for panel, key in ((left, "proxy"), (right, "gold")):
        values = np.array([[p[key] for p in run] for run in points])
        panel.plot(
            root.mean(0), values.mean(0), "o-", color=colour, label=f"PPO, KL price {beta:g}"
        )
        panel.fill_between(root.mean(0), values.min(0), values.max(0), color=colour, alpha=0.15)
for panel, key in ((left, "proxy"), (right, "gold")):
    root = np.sqrt([p["kl"] for p in sampled[0]["points"]])
    values = np.array([[p[key] for p in r["points"]] for r in sampled])
    panel.plot(root, values.mean(0), "s--", color=plotting.COLOURS["text"], label="best-of-n")
    panel.set(xlabel="square root of KL (nats per response)", ylabel=f"mean {key} score")
left.set_title("What is optimised: the reward model")
right.set_title("What is wanted: gold")
_ = left.legend()

# %%
weakest = min(runs_of)
gold_curve = np.mean([[p["gold"] for p in r["points"]] for r in runs_of[weakest]], axis=0)
proxy_curve = np.mean([[p["proxy"] for p in r["points"]] for r in runs_of[weakest]], axis=0)
report_metric("overopt_gold_peak", float(gold_curve.max()))
report_metric("overopt_gold_end", float(gold_curve[-1]))
report_metric("overopt_proxy_start", float(proxy_curve[0]))
report_metric("overopt_proxy_end", float(proxy_curve[-1]))
fall = [max(p["gold"] for p in r["points"]) - r["points"][-1]["gold"] for r in runs_of[weakest]]
print(
    f"KL price {weakest:g}: gold fell from its peak by {', '.join(f'{x:.2f}' for x in fall)} (three seeds)"
)

# %% [markdown]
# What the text looks like at the end, with the cheapest KL and with the default:

# %%
plotting.side_by_side(
    [
        {"instruction": c.instruction, f"KL price {weakest:g}": a, f"KL price {default:g}": b}
        for c, a, b in zip(
            data.load_prompts(course, "validation"),
            runs_of[weakest][0]["texts"],
            runs_of[default][0]["texts"],
        )
    ]
    if course.profile.name == "tiny"
    else [{"see": "the closed world's record holds closed-world texts"}]
)

# %% [markdown]
# Is the record still true here? A slice of it, run live: the first steps of the cheapest price of KL.

# %%
from course_utils.ppo import overoptimization

if course.profile.name == "tiny":
    live = overoptimization.ppo_row(course, weakest, 0, steps=overoptimization.EVERY)
    for here, there in zip(live["points"], runs_of[weakest][0]["points"]):
        print(
            f"step {here['step']:2}: gold {here['gold']:.2f} (record {there['gold']:.2f}), "
            f"proxy {here['proxy']:.2f} ({there['proxy']:.2f}), KL {here['kl']:.2f} ({there['kl']:.2f})"
        )

# %% [markdown]
# ## Read the figure, in your own words
# Take the cheapest price of KL in the figure above. At about which square root of KL is gold highest, what do gold and
# proxy do from there on, and why would somebody who has only the left panel not stop? The reward model's accuracy on
# held-out pairs was good: how can both hold at once, and what could you watch in a real project, where nobody has gold?

# %% [markdown] answer="why_overoptimise" points=2
# Gold is highest near 2, a KL of about 4, and falls from there to far below its start, while the proxy keeps rising, only
# more slowly: the left panel alone shows nothing but progress. Held-out pairs come from the same writers as the training
# pairs. The policy leaves that region: it searches for answers the reward model has never been corrected on, and its
# biases (here cheer and length) are the easiest to exploit. Watch the KL, length and style, keep a second reward model
# or people to judge fresh samples, and stop early or raise the price of KL when proxy and judges part ways.

# %% [markdown]
# ## Then and now
# TRL no longer has a PPO. These names are this course's, so that older material runs after changing one import.
#
# | then | now |
# |---|---|
# | `from trl import PPOConfig, PPOTrainer, AutoModelForCausalLMWithValueHead` | `from course_utils.ppo import PPOConfig, PPOTrainer, AutoModelForCausalLMWithValueHead` |
# | `PPOConfig(model_name=...)` and others without a meaning | accepted, with a warning that says why |
# | `generate(query, top_p=0.9)` | ignored with a warning: it would bias the ratio |
#
# **Next:** chapter 06 reaches for the same goal without sampling, without a reward model, and without a value head.
