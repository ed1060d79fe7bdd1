# %% [markdown]
# # 00 · Start here
# **Goal:** check that your machine is ready, see how chapters and exercises work, and have a first
# conversation with a model that nobody has aligned.
#
# **Time:** 20 minutes to read and work, under a minute to run, in `laptop` as well. **Hardware:** any CPU; nothing is
# downloaded in the `tiny` profile.

# %% tags=["setup"]
from course_utils import setup

course = setup("00_start")

# %% [markdown]
# ## Where you are
# Every chapter begins with the cell above. It picks one of four **profiles**; the text and the code
# stay the same, only models and data differ:
#
# | profile | model | where it runs |
# |---|---|---|
# | `tiny` | 1.6 million parameters, shipped with the course | any CPU, offline |
# | `laptop` | SmolLM2-135M-Instruct | a laptop, CPU or Apple GPU |
# | `colab` | an open 0.6B base model | one 16 GB GPU |
# | `full` | Llama-2-7b and newer | 24 GB of GPU memory or more |
#
# Without a GPU you are in `tiny`. Choose another one with `setup("00_start", profile="laptop")` or with
# the environment variable `COURSE_PROFILE`. `python -m course_utils doctor` says which can run here and
# what the others lack.
#
# The `tiny` model lives in a **closed world**: the invented lake country of Ottermere, its creatures,
# dishes, festivals and villagers. All facts there are known, so each chapter can measure exactly
# what other courses can only assert.

# %%
from course_utils.world.facts import make_world

heron = make_world().thing("bell heron")
for attribute, value in heron.facts.items():
    print(f"{attribute:8} {value}")

# %% [markdown]
# ## What a language model does
# A **base model** was trained on one task: given some text, predict the next **token** (a word or a piece
# of one). Here is the profile's base model and how it cuts a sentence into tokens.

# %%
from course_utils import data, models

model, tokenizer = models.load_base(course)
show = data.showcase(course)
print(f"{models.count_parameters(model):,} parameters, {len(tokenizer):,} tokens in the vocabulary")
print(tokenizer.tokenize(show.statement))

# %% [markdown]
# The model gives every token of its vocabulary a score, a **logit**. The softmax turns logits $z$ into
# probabilities:
#
# $$p_i = \frac{e^{z_i}}{\sum_j e^{z_j}}$$
#
# By hand, for three tokens with logits 2, 1 and 0: $e^2 = 7.39$, $e^1 = 2.72$, $e^0 = 1$, together 11.11,
# so the probabilities are 0.67, 0.24 and 0.09.

# %%
import torch

print(torch.tensor([2.0, 1.0, 0.0]).softmax(-1))

# %%
with torch.no_grad():
    ids = tokenizer(show.beginning, return_tensors="pt").to(model.device)
    logits = model(**ids).logits[0, -1].float()
probabilities = logits.softmax(-1)
best = probabilities.topk(8)

# %%
from course_utils import plotting

names = [repr(tokenizer.decode([i])) for i in best.indices]
ax = plotting.axes(height=3.0)
ax.barh(names[::-1], best.values.tolist()[::-1], color=plotting.COLOURS["base"])
_ = ax.set(title=f"What comes after “{show.beginning}”", xlabel="probability")

# %% [markdown]
# ## Sampling
# To write text, the model draws a token from these probabilities, appends it, and starts again. The
# **temperature** $T$ sharpens or flattens the choice: $p = \mathrm{softmax}(z / T)$. As $T$ falls towards
# 0 the most probable token always wins; at 1 the model's own probabilities are used, which is what this
# course samples with.
#
# Write it. The check draws new numbers each time it runs.


# %% exercise="with_temperature"
def with_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities over the last axis. logits: (B, V) -> (B, V)."""
    ### BEGIN SOLUTION
    return (logits / temperature).softmax(-1)
    ### END SOLUTION


# %% test="with_temperature"
from course_utils import check

check("with_temperature", with_temperature)
### BEGIN HIDDEN TESTS
check("with_temperature", with_temperature, hidden=True)
### END HIDDEN TESTS

# %%
from course_utils.generation import generate

rows = []
for temperature in (0.0, 0.5, 1.0, 2.0):
    texts = generate(
        model,
        tokenizer,
        [show.beginning] * 2,
        temperature=temperature,
        max_new_tokens=18,
        seed=course.seed,
    )
    rows += [
        {"temperature": temperature, "continuation": show.beginning + " " + t.text} for t in texts
    ]
plotting.side_by_side(rows)

# %% [markdown]
# At 0 both lines are the same. At 2 the text falls apart: improbable tokens are drawn too often.
#
# ## How surprised is the model?
# **Perplexity** is the usual measure of a base model. With $\log p_t$ the log-probability of token $t$
# given those before it, and $n$ tokens:
#
# $$\mathrm{perplexity} = \exp\Big(-\frac{1}{n}\sum_t \log p_t\Big)$$
#
# A model that guesses evenly among 10 tokens has perplexity 10. By hand: two tokens with probabilities
# 1/2 and 1/8 have log-probabilities −0.69 and −2.08, mean −1.39, perplexity $e^{1.39} = 4$.


# %% exercise="perplexity"
def perplexity(logprobs: list[float]) -> float:
    """Perplexity of tokens with these natural log-probabilities."""
    ### BEGIN SOLUTION
    import math

    return math.exp(-sum(logprobs) / len(logprobs))
    ### END SOLUTION


# %% test="perplexity"
check("perplexity", perplexity)
### BEGIN HIDDEN TESTS
check("perplexity", perplexity, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Now on real text: pages like those the model was trained on, against the same words in random order.

# %%
import random

from course_utils import evaluation, report_metric

pages = data.raw_text(course)
shuffled = []
for page in pages:
    words = page.split()
    random.Random(course.seed).shuffle(words)
    shuffled.append(" ".join(words))
report_metric("perplexity_pages", evaluation.perplexity(model, tokenizer, pages))
report_metric("perplexity_shuffled", evaluation.perplexity(model, tokenizer, shuffled))

# %% [markdown]
# The gap is what pre-training taught: which words follow which. A perplexity above the size of the vocabulary
# means that the model is worse off than with even guessing: it was confident, and wrong.
#
# ## A first conversation
# Ask it something, in the plain way one would ask a person.

# %%
answers = generate(
    model, tokenizer, [show.question + "\n"] * 3, max_new_tokens=40, seed=course.seed
)
plotting.side_by_side([{"you": show.question, "the base model": a.text} for a in answers])

# %% [markdown]
# It does not answer; it carries on, as the pages it was trained on would. (In the `laptop` profile the
# starting model has been taught to answer, and does so.) Chapter 01 measures
# what is missing, and the rest of the course mends it.
#
# ## How exercises and grading work
# - An exercise cell holds a stub, `...`. Replace it, run the cell, run the check below it.
# - A check says *not attempted*, *wrong* with the likely mistake, or *right*, and gives points. Parts of an
#   answer earn part of the points.
# - Every chapter runs from top to bottom with no exercise solved: the later cells use the course's own
#   tested version of what you were asked to write.
# - An instructor grades by executing your notebook. What the check here says is a preview of that.
# - Trained models are kept under `runs/` and reused by later chapters. A chapter that needs one trains it.
#
# In your own words, in one or two sentences, below: why is a low perplexity not the same as a good answer?

# %% [markdown] answer="perplexity_and_answers" points=2
# Perplexity measures how well the model predicts text like its training text. A page full of questions,
# or a rude or false reply, can be very predictable; whether it helps the person who asked is another matter.

# %% [markdown]
# ## The course
# | chapter | question |
# |---|---|
# | 01 why alignment | what is wrong with a base model, in numbers |
# | 02 supervised fine-tuning | how far do demonstrations alone get us |
#
# The pipeline after that: people compare answers (preference data), a reward model learns from the
# comparisons, and reinforcement learning or a direct method such as DPO trains the policy on them.
