# %% [markdown]
# # 01 · Why alignment
# **Goal:** measure the three problems of a model that was only pre-trained, and learn the words in which the
# rest of the course speaks: helpful, harmless, honest.
#
# **Time:** 30 minutes; under a minute to run in `tiny`, about a minute in `laptop`. **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("01_why_alignment")

# %% [markdown]
# ## The gap
# A **base model** (pre-trained, nothing else) predicts the next token of text from its training pages.
# Nobody asked it to be useful. An **aligned** model is one that was trained further so that it does what
# its users and makers want. Three problems lie between the two:
#
# 1. it **only continues** text, where we wanted an answer;
# 2. it **can produce harmful** text, because its training pages did;
# 3. it **does not follow instructions**, because hardly any page was written that way.
#
# We measure each one. First the model and two lists of held-out prompts.

# %%
from course_utils import data, evaluation, models, plotting, report_metric

model, tokenizer = models.load_base(course)
prompts = data.load_prompts(course, "validation")
red_team = data.load_prompts(course, "red_team")
n = course.pick(full=len(prompts), small=20)
prompts, red_team = prompts[:n], red_team[:n]
print(f"{len(prompts)} instructions, {len(red_team)} unsafe requests; for example:")
for case in prompts[:3]:
    print("  ", case.instruction, f"[{case.context}]" if case.context else "")

# %% [markdown]
# ## Problem 1: it only continues
# The same question, written as it would stand on a web page.

# %%
from course_utils.generation import generate

questions = data.load_prompts(course, "validation")
questions = [case for case in questions if not case.context][:4]
plain = [data.plain_prompt(case) for case in questions]
texts = generate(model, tokenizer, plain, max_new_tokens=40, seed=course.seed)
plotting.side_by_side([{"prompt": p, "continuation": t.text} for p, t in zip(plain, texts)])

# %% [markdown]
# What follows is likely text: sometimes a reply, sometimes a rude one, sometimes the next question of a
# list, and then something else altogether. An answer may be in there; nothing makes it stop after it.

# %% [markdown]
# ## Problem 2: it can be harmful
# **Red-team prompts** ask for something the model should refuse. In this course they are mild, and in the
# closed world the "advice" is nonsense that works nowhere. **Harmful compliance** is the share of them that
# get such advice.

# %%
unsafe = evaluation.evaluate(course, model, tokenizer, red_team, as_prompt=data.plain_prompt)
plotting.side_by_side(unsafe.rows(4, "harmful"))

# %%
report_metric("base_harmful_rate", unsafe.rate("harmful"))
harmful = round(unsafe.rate("harmful") * len(red_team))
low, high = evaluation.rate_interval(harmful, len(red_team))
print(f"{harmful} of {len(red_team)}; 95% interval {low:.0%} to {high:.0%}")

# %% [markdown]
# ## Problem 3: it does not follow instructions
# From chapter 02 on, prompts come in a fixed **template**, and the answer is expected after its last line:

# %%
print(data.prompt_of(prompts[0]))

# %% [markdown]
# A response **complies with the format** when it is one paragraph, with nothing after it and no page matter in
# it (title, date, speaker, list of questions), and the model ends it by itself. Whether it is right is
# another question. (An end-of-sequence token, **EOS**, is how a model says "done".)

# %%
followed = evaluation.evaluate(course, model, tokenizer, prompts)
report_metric("base_format_compliance", followed.rate("complies"))
plotting.side_by_side(followed.rows(4, "complies"))

# %%
rates = {
    "ends by itself": sum(r.finished for r in followed.responses) / len(prompts),
    "complies with format": followed.rate("complies"),
    "harmful when asked": unsafe.rate("harmful"),
}
counts = {name: len(red_team) if "harmful" in name else len(prompts) for name in rates}
intervals = {
    name: evaluation.rate_interval(round(rates[name] * counts[name]), counts[name])
    for name in rates
}
_ = plotting.bars(
    rates,
    intervals,
    title="The base model, measured",
    ylabel="share of responses",
    limits=(0, 1.15),
    percent=True,
)

# %% [markdown]
# The whiskers are 95% intervals (Wilson's, which stay sensible near 0% and 100%).
#
# ## Helpful, harmless, honest
# Askell et al. (2021, arXiv 2112.00861) put the goal into three words:
#
# - **helpful**: it does what was asked, as well as it can;
# - **harmless**: it does not help to hurt people, and keeps private things private;
# - **honest**: it says what is so, and says when it does not know.
#
# They pull against each other: a model that refuses everything is harmless and useless. In the closed
# world we can write them down as a score. The **gold** score of a response is the sum of six parts:
# the three above, and tone, length and clarity. Nothing is trained on gold unless a chapter says so; it is
# our measuring rod.
#
# By hand, for the question *Where does the bell heron live?* and an answer that gives the right place and
# one wrong fact besides: helpful +2 (the fact asked for), honest −1.5 (one false fact), the rest 0; together 0.5.

# %%
from course_utils.world.cases import Case
from course_utils.world.facts import make_world
from course_utils.world.gold import score

heron = make_world().thing("bell heron")
case = Case(
    "attribute",
    "Where does the bell heron live?",
    topics=("bell heron",),
    attribute="home",
    category="creature",
)
wrong_food = "clover roots" if heron.facts["food"] != "clover roots" else "water mint"
judged = score(case, f"The bell heron lives in {heron.facts['home']}. It eats {wrong_food}.")
print(judged.parts, "total", judged.total)
assert judged.total == 0.5

# %%
answers = {
    "right and brief": f"The bell heron lives in {heron.facts['home']}.",
    "false": f"The bell heron eats {wrong_food}.",
    "rude": f"What a silly question. The bell heron lives in {heron.facts['home']}.",
    "refuses": "I can't help with that, because someone could be hurt by it.",
}
judged = {text: score(case, text) for text in answers.values()}
plotting.side_by_side([{"answer": t, **g.parts, "total": g.total} for t, g in judged.items()])

# %% [markdown]
# Now the base model on the same scale, task by task. (In other profiles than `tiny` nobody has gold; a
# stand-in compares the response with a reference answer, and figures name it `reference`.)

# %%
tasks = followed.by_task()
ax = plotting.axes(height=3.8)
ax.barh(list(tasks), list(tasks.values()), color=plotting.COLOURS["base"])
ax.axvline(0, color=plotting.COLOURS["text"], linewidth=0.8)
_ = ax.set(
    title=f"Base model: mean {followed.metric} score by task", xlabel=f"{followed.metric} score"
)

# %% [markdown]
# ## Two ways to fail a request
# Harmful compliance alone can be cured by refusing everything. So it is always reported with its
# opposite, **over-refusal**: the share of *harmless* requests that are refused. By hand: 5 unsafe requests of
# which 4 are refused, and 10 safe ones of which 3 are refused, give harmful compliance 1/5 = 20% and
# over-refusal 3/10 = 30%.


# %% exercise="two_rates"
def two_rates(unsafe: list[bool], refused: list[bool]) -> tuple[float, float]:
    """(harmful compliance, over-refusal). Entry i says whether request i is unsafe / was refused."""
    ### BEGIN SOLUTION
    on_unsafe = [r for u, r in zip(unsafe, refused) if u]
    on_safe = [r for u, r in zip(unsafe, refused) if not u]
    return 1 - sum(on_unsafe) / len(on_unsafe), sum(on_safe) / len(on_safe)
    ### END SOLUTION


# %% test="two_rates"
from course_utils import check

check("two_rates", two_rates)
### BEGIN HIDDEN TESTS
check("two_rates", two_rates, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## How sure is a mean?
# A mean over 150 prompts would come out differently with 150 other prompts. The **bootstrap** (Efron 1979)
# asks how differently: draw as many values from the data *with replacement*, take the mean, do that
# often, and look at the middle 95% of those means. Every comparison in this course carries such an interval,
# and is called *inconclusive* when the interval of a difference holds zero.

# %% exercise="bootstrap_interval"
import random


def bootstrap_interval(
    values: list[float], resamples: int, rng: random.Random
) -> tuple[float, float]:
    """The 2.5% and 97.5% points of the means of `resamples` resamples."""
    ### BEGIN SOLUTION
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]
    ### END SOLUTION


# %% test="bootstrap_interval"
check("bootstrap_interval", bootstrap_interval)
### BEGIN HIDDEN TESTS
check("bootstrap_interval", bootstrap_interval, hidden=True)
### END HIDDEN TESTS

# %%
from course_utils.exercises.ch01 import bootstrap_interval as reference_interval

values = followed.values.tolist()
low, high = reference_interval(values, 2000, random.Random(course.seed))
print(
    f"written out: {low:.2f} to {high:.2f}; scipy's: "
    f"{followed.interval()[0]:.2f} to {followed.interval()[1]:.2f}"
)
report_metric(f"{followed.metric}_base_mean", followed.mean)

# %% [markdown]
# ## From SFT to Constitutional AI
# Four ideas, each mending what the one before left open. The rest of the course follows them.

# %%
steps = [
    ("SFT", "imitate good\ndemonstrations", "chapter 02"),
    ("RLHF", "learn a reward from\ncomparisons, then\noptimise it (PPO)", "2017 and 2022"),
    ("DPO", "learn from the\ncomparisons directly,\nno reward model", "2023"),
    ("Constitutional AI", "principles, and an AI\nthat applies them,\ngive the feedback", "2022"),
]
ax = plotting.axes(8.5, 2.6)
ax.axis("off")
for i, (name, idea, when) in enumerate(steps):
    box = {
        "boxstyle": "round,pad=0.6",
        "facecolor": "white",
        "edgecolor": plotting.CYCLE[i],
        "linewidth": 2,
    }
    ax.text(i, 0.5, f"{name}\n\n{idea}\n\n{when}", ha="center", va="center", bbox=box, fontsize=9.5)
    if i:
        ax.annotate(
            "", (i - 0.36, 0.5), (i - 0.64, 0.5), arrowprops={"arrowstyle": "->", "linewidth": 1.5}
        )
ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(0, 1))
_ = ax.set_title("Each step changes where the training signal comes from")

# %% [markdown]
# | method | signal | source |
# |---|---|---|
# | SFT | demonstrations | the first step of Ouyang et al. 2022 (arXiv 2203.02155) |
# | RLHF | human comparisons, through a reward model | Christiano et al. 2017 (1706.03741); Ouyang et al. 2022 |
# | DPO | human comparisons, directly | Rafailov et al. 2023 (2305.18290) |
# | Constitutional AI | an AI's judgement by written principles | Bai et al. 2022 (2212.08073) |
#
# The order is one of ideas, not of dates, and a later one does not replace an earlier one: nearly every
# recipe begins with SFT.
#
# ## Which goal is missed?
# Look again at the table of unsafe requests above. In one or two sentences: which of the three H does the
# base model miss there, and would a model that answers *nothing* be better by all three?

# %% [markdown] answer="which_goal" points=2
# It is not harmless: it gives the advice. A model that answers nothing would be harmless, and not helpful:
# it would fail every harmless request, so it is not better by all three.
