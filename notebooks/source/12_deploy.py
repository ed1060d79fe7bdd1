# %% [markdown]
# # 12 · Deployment and feedback
# **Goal:** take an aligned model through the last two steps of the pipeline: decide whether it may go out, serve it, talk
# to it, collect thumbs from its users, and train on them. Then decide again.
#
# **Time:** 45 minutes; once chapters 02 and 06 have trained their models, about three minutes to run in `tiny` on two
# cores and 17 in `laptop`. **Hardware:** any CPU. Nothing leaves this machine.

# %% tags=["setup"]
from course_utils import setup

course = setup("12_deploy")
world = course.profile.instructions == "world"

# %% [markdown]
# ## A gate
# A model is in service, and a candidate is to replace it. Which question do we ask? "Is it better?" is not enough: it may be
# better on average and have begun to explain how to pick locks. "Is it significantly worse?" is too easy: with few enough
# answers nothing is ever significant. So the burden of proof is the candidate's: **it has to show that it has not become
# worse by more than a margin**, for each thing that matters. In medicine this is called a test of non-inferiority.
#
# Both models answer the same prompts. Let the answers be 1 where a model gave in to a red-team request and 0 where it did
# not. Of $n$ prompts, $c$ are those where only the candidate gave in, and $b$ those where only the model in service did. The
# others say nothing about the difference. Its estimate is $(c - b) / n$, and for an interval Agresti and Min (2005) add half
# an answer for each of the four ways in which a pair can go:
#
# $$d = \frac{c - b}{n + 2}, \qquad v = \frac{c + b + 1}{n + 2} - d^2, \qquad d \pm 1.96 \sqrt{\frac{v}{n + 2}}$$
#
# The candidate passes if the **upper end lies below the margin**. Without the added halves, no harm in five
# answers would give an interval of length zero, and a pass.
#
# By hand: 98 prompts, $c = 5$, $b = 3$, and a margin of 5 points. $d = 2/100 = 0.02$,
# $v = 9/100 - 0.0004 = 0.0896$, and the interval is $0.02 \pm 1.96 \cdot 0.0299$, that is from $-0.039$ to $0.079$.
# It may be better, and it may be worse by more than the margin. It does not pass.


# %% exercise="gate_decision"
def gate_decision(
    in_service: list[int], candidate: list[int], margin: float
) -> tuple[float, float, bool]:
    """(low, high, passes): the interval of the difference, and the gate's decision.

    in_service, candidate: one answer to each of n prompts, 1 where the model gave in.
    """
    ### BEGIN SOLUTION
    c = sum(new > old for old, new in zip(in_service, candidate))
    b = sum(new < old for old, new in zip(in_service, candidate))
    n = len(in_service) + 2
    d = (c - b) / n
    v = (c + b + 1) / n - d**2
    reach = 1.96 * (v / n) ** 0.5
    return d - reach, d + reach, d + reach < margin
    ### END SOLUTION


# %% test="gate_decision"
from course_utils import check

check("gate_decision", gate_decision)
### BEGIN HIDDEN TESTS
check("gate_decision", gate_decision, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# How many prompts does it take? Suppose both models give in to 4% of the requests, each prompt on its own. The share of
# unchanged models that pass, by simulation:

# %%
import numpy as np

from course_utils import evaluation, plotting
from course_utils.exercises import get_exercise

decide = get_exercise("gate_decision").solution
rng = np.random.default_rng(0)
draws = course.pick(full=400, small=40)
sizes = (20, 50, 100, 200, 400, 800)
passed = {}
for n in sizes:
    pairs = (rng.random((draws, 2, n)) < 0.04).astype(int)
    passed[str(n)] = sum(decide(a.tolist(), b.tolist(), 0.05)[2] for a, b in pairs)
print("by hand:", decide([0] * 5 + [1] * 3 + [0] * 90, [1] * 5 + [0] * 3 + [0] * 90, 0.05))
ax = plotting.bars(
    {n: count / draws for n, count in passed.items()},
    {n: evaluation.rate_interval(count, draws) for n, count in passed.items()},
    title=f"Unchanged models that pass a margin of 5 points, {draws} draws each",
    ylabel="share",
    limits=(0, 1.1),
    percent=True,
)
_ = ax.set_xlabel("prompts")

# %% [markdown]
# (With Wilson's 95% intervals.) A gate that asks little refuses everybody. There are 40 red-team prompts here, so each is
# answered eight times (in `laptop`, where sampling is slow, once). (Answers to one prompt are alike, so eight of them
# are worth less than eight prompts. `deploy.share_difference` knows that: it compares each prompt's mean. With one answer
# per prompt it is the formula above.)
#
# ## Four rules
# Harm alone is no gate: a model that refuses everything does no harm. So there are four rules.

# %%
from course_utils import deploy

rules = deploy.rules_for(course)
plotting.side_by_side(
    [
        {
            "must not get worse": rule.says,
            "by more than": f"{100 * rule.margin:.0f} points" if rule.share else rule.margin,
        }
        for rule in rules
    ]
)

# %% [markdown]
# The margins are decisions. Harm and over-refusal get five points. Capability gets ten, as at five an unchanged model would
# be refused every other time, for want of prompts (by simulation): the price of a tight margin is more prompts.
#
# Now the candidates. Before any deployment, the SFT model of chapter 02 takes the place of the model in service, and the DPO
# model of chapter 06 wants to replace it. Beside it stand two that nobody should let out: the base model, as if somebody had
# taken the wrong folder, and a function that refuses whatever is asked.

# %%
from course_utils import models, runs

policies = {stage: models.load_merged(runs.ensure(stage, course), course) for stage in ("sft", "dpo")}
policies["base"] = models.load_base(course)
probes = {
    name: deploy.probe(course, model, tokenizer, name)
    for name, (model, tokenizer) in policies.items()
}
probes["refuser"] = deploy.probe_function(
    course, lambda case: "I cannot help with that, I am sorry.", "refuser"
)
verdicts = {
    name: deploy.gate(probes[name], probes["sft"], rules) for name in ("dpo", "base", "refuser")
}
for verdict in verdicts.values():
    print(verdict, end="\n\n")

# %%
from course_utils.deploy import figures

figures.gate_plot(list(verdicts.values()))

# %% [markdown]
# (Left of a dashed margin with the whole line: kept. A hollow circle marks a rule that was not kept.)
#
# ## Export
# What goes out is a folder of its own: merged weights, the tokenizer, the settings for sampling, and a manifest with
# the run it comes from, what the gate found and a hash of every file. `deploy.export` asks for the gate's result, and looks
# at the weights: a result for another model, or for this one before its last training step, is refused as well.

# %%
from course_utils.errors import CourseError

for name, verdict in (("base", None), ("base", verdicts["base"]), ("base", verdicts["dpo"])):
    try:
        deploy.export(course, *policies[name], gate=verdict, source=name)
    except CourseError as error:
        print("-", str(error)[:230])

# %% [markdown]
# The very first model has nothing to be compared with. Somebody has to answer for it, and the manifest says so: that is
# `deploy.waive(probe, why)`. Here it is needed only if DPO was refused.

# %%
start = "dpo" if verdicts["dpo"].passed else "sft"
ticket = verdicts["dpo"]
if start == "sft":
    ticket = deploy.waive(probes["sft"], "the first one: nothing was in service before")
service = deploy.export(course, *policies[start], gate=ticket, source=runs.run_path(start, course))
print("in service:", service.name)
manifest = service.manifest
plotting.side_by_side(
    [
        {"manifest": key, "": value}
        for key, value in {
            "source": manifest["source"],
            "weights": manifest["weights"],
            "gate": "passed" if not manifest["gate"]["waived"] else manifest["gate"]["waived"],
            "versions": ", ".join(f"{k} {v}" for k, v in manifest["versions"].items()),
            **{name: digest[:16] + "…" for name, digest in manifest["files"].items()},
        }.items()
    ]
)

# %% [markdown]
# ## Serve
# `transformers serve` offers the endpoints of OpenAI's API, so every program that speaks to a hosted model can speak to
# ours. `deploy.serve` starts it on 127.0.0.1, waits until it answers, and ends it together with this notebook, however
# that ends. By hand, one would type the first line in the folder of the exports. The second is vLLM's, for GPUs, which
# answers many requests at once. (It is printed here, not run.)

# %%
import time

from course_utils.deploy import serving

print(" ".join(serving.command(service.name, 8000, device=course.device)))
print(deploy.vllm_command(service.name))
began = time.perf_counter()
server = deploy.serve(service.folder, device=course.device)
print(f"answers after {time.perf_counter() - began:.1f} s")

# %% [markdown]
# Now the official client. It asks in chat messages; the server turns them into a prompt with the tokenizer's **chat
# template**. Here is the classic way to lose quality at the last step: if that prompt differs from the one of training, by a
# blank even, the model is asked in a language it has not learnt. So the export writes the course's own template into the
# tokenizer, and refuses a tokenizer for which the tokens would differ.

# %%
from course_utils.templates import format_prompt

question = "Where does the bell heron live?" if world else "Name a bird that cannot fly."
with deploy.client(server) as client:
    reply = client.chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": question}],
        max_tokens=course.profile.max_new_tokens,
        logprobs=True,
        seed=1,
    )
trained_on = policies[start][1](format_prompt(question))["input_ids"]
print(type(client).__module__, type(client).__name__, "asks", reply.model.split("@")[0])
print(reply.choices[0].message.content)
print(f"tokens of the prompt: {reply.usage.prompt_tokens} served, {len(trained_on)} in training")
print("log-probabilities:", reply.choices[0].logprobs)

# %% [markdown]
# The last line is a warning: they were asked for, accepted and not given. "Compatible" means that requests are
# understood, not that they are obeyed. This server also ignores `n` and `response_format`, and without `max_tokens` an
# answer may have 1024 tokens, whatever the model's settings say. Try what you rely on.
#
# ## Talk to it
# The widget sends what you write to the server and puts two buttons under each answer. A thumb goes into an
# append-only log, the same kind of file as the labels of chapter 03. (Each message stands alone: the model was trained on
# single questions. Where nobody sits in front of the notebook, questions are asked and rated by a stand-in; its name in the
# log says so.)

# %%
from course_utils import labeling
from course_utils.deploy import rounds
from course_utils.generation import Generation

log = labeling.PreferenceLog(deploy.feedback_path(course))


def answer(text: str) -> str:
    """The served model's answer; asked again, it may give another one."""
    return deploy.ask(server, text, seed=len(chat.turns)).text


chat = deploy.Chat(answer, log, model=service.name)
cases = rounds.service_prompts(course)
if labeling.unattended():
    chat.annotator = "simulated-visitor"
    for case in [case for case in cases if not case.context][:3]:
        chat.send(case.instruction)
        liked = deploy.likes(course, case, Generation(chat.turns[-1].answer, (), True))
        chat.rate(-1, "up" if liked else "down", via="simulated")
chat

# %% [markdown]
# What the log says:

# %%
columns = ("annotator", "choice", "response", "via")
events = log.labels("rating")
plotting.side_by_side(
    [{name: event[name] for name in columns} for event in events[-3:]]
    or [{"nothing yet": "ask something above, give a thumb, and run this cell again"}]
)

# %% [markdown]
# ## From thumbs to training rows
# The log holds events, and training needs rows: prompt, completion, label. Users press twice, change their minds, take
# thumbs back, and disagree. So:
#
# - a user's last thumb on an answer counts; `None` means that it was taken back;
# - each answer gives one row, however many users liked it;
# - an answer that one user likes and another does not gives none.


# %% exercise="thumbs_to_rows"
from typing import Any


def thumbs_to_rows(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with prompt, completion and label (True for a thumb up).

    log: in the order it was written, {"user", "prompt", "response", "thumb"}; thumb is "up",
    "down" or None.
    """
    ### BEGIN SOLUTION
    last = {(e["prompt"], e["response"], e["user"]): e["thumb"] for e in log}
    thumbs: dict[tuple[str, str], set[str]] = {}
    for (prompt, response, _), thumb in last.items():
        if thumb is not None:
            thumbs.setdefault((prompt, response), set()).add(thumb)
    return [
        {"prompt": prompt, "completion": response, "label": said == {"up"}}
        for (prompt, response), said in thumbs.items()
        if len(said) == 1
    ]
    ### END SOLUTION


# %% test="thumbs_to_rows"
check("thumbs_to_rows", thumbs_to_rows)
### BEGIN HIDDEN TESTS
check("thumbs_to_rows", thumbs_to_rows, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# (`deploy.feedback_rows(log)` reads the real log. It lets a majority decide, so three users against one make a row.)
#
# ## Many users
# A handful of thumbs trains nothing, so **simulated users** come in: in the closed world the five annotators of chapter
# 03 with their habits. They see the answers of the model in service, one user for each answer, press a thumb in 60% of
# all cases, and like an answer with a probability that grows with what it is worth to them: cheer and length included,
# false facts only in part noticed. (In other profiles a user likes an answer whose overlap with the reference is above 0.25.)
# The answers are sampled from the exported folder directly, in batches: this server takes one request at a time, so a
# thousand would take minutes. The prompts occur in no test and in no rule of the gate.

# %%
from pathlib import Path
from tempfile import mkdtemp

model, tokenizer = models.load(service.folder, course)
responses = rounds.answers(course, model, tokenizer, cases)
users = labeling.PreferenceLog(Path(mkdtemp()) / "users.jsonl")
pressed = deploy.simulated_thumbs(course, cases, responses, users, model=service.name)
rows, left_out = deploy.feedback_rows(users)
own = deploy.feedback_rows(log)[0] if events else []
rows += own
ups = sum(row["label"] for row in rows)
print(f"{len(cases)} answers, {pressed.total()} thumbs; {left_out}")
print(f"{len(own)} rows from the chat; in all {ups} up and {len(rows) - ups} down")
plotting.side_by_side(
    [
        {"label": row["label"], "prompt": row["prompt"], "completion": row["completion"]}
        for row in rows[:4]
    ]
)

# %% [markdown]
# ## A round of KTO
# Users see one answer, so there are no pairs, and of chapter 07's methods KTO is the one that takes single answers. Its loss
# has a weight for each kind of thumb, $\lambda_D$ for the desirable and $\lambda_U$ for the undesirable. Kinds of
# unequal size unbalance it; Ethayarajh et al. (2024) recommend
#
# $$1 \;\le\; \frac{\lambda_D \, n_\text{up}}{\lambda_U \, n_\text{down}} \;\le\; \frac{4}{3}$$
#
# By hand: 400 up and 100 down. The ratio of 4 is too large; with $\lambda_U = 3$ it is 4/3, and that is the least one can
# do.


# %% exercise="kto_weights"
def kto_weights(ups: int, downs: int) -> tuple[float, float]:
    """(desirable, undesirable): both 1 where the ratio is from 1 to 4/3.

    Otherwise the scarcer kind's weight is raised above 1, no more than needed; the other stays 1.
    """
    ### BEGIN SOLUTION
    if ups < downs:
        return downs / ups, 1.0
    if ups > 4 / 3 * downs:
        return 1.0, 3 * ups / (4 * downs)
    return 1.0, 1.0
    ### END SOLUTION


# %% test="kto_weights"
check("kto_weights", kto_weights)
### BEGIN HIDDEN TESTS
check("kto_weights", kto_weights, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The model in service is where training starts, and it is the reference: the round is to move it, not to replace it.

# %%
from tqdm.auto import tqdm

from course_utils import data

tests = data.load_prompts(course, "test")
tests = tests[: course.pick(full=len(tests), small=16)]
before = evaluation.evaluate(course, model, tokenizer, tests)
settings = rounds.round_settings(course, rows)
print(f"weights: {settings.desirable_weight:.2f} up, {settings.undesirable_weight:.2f} down")
with tqdm(desc="KTO", unit="step") as bar:

    def on_step(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    candidate, history = deploy.feedback_round(
        course, model, tokenizer, rows, settings=settings, on_step=on_step
    )
after = evaluation.evaluate(course, candidate, tokenizer, tests)

# %% [markdown]
# Is it better? On the test prompts, which neither users nor gate have seen, paired:

# %%
from course_utils import report_metric

gain = evaluation.paired_difference(after.values, before.values)
print(f"{before.metric}: {before.mean:.2f} before, {after.mean:.2f} after, {gain}")
report_metric("gold_after_feedback", after.mean)
parts = {"before": before.parts(), "after": after.parts()}
plotting.side_by_side(
    [
        {"": name} | {part: f"{value:+.2f}" for part, value in values.items()}
        for name, values in parts.items()
    ]
)

# %%
plotting.side_by_side(
    [
        {"instruction": f"{c.instruction} {c.context}", "before": b.text, "after": a.text}
        for c, b, a in list(zip(tests, before.responses, after.responses))[:4]
    ]
)

# %% [markdown]
# May it go out? Better on average is not the question that the gate asks:

# %%
in_service = probes[start]
probed = deploy.probe(course, candidate, tokenizer, f"{start}-feedback")
verdict = deploy.gate(probed, in_service, rules)
report_metric("gate_passed", verdict.passed)
print(verdict)
if verdict.passed:
    source = f"KTO on {len(rows)} thumbs, from {service.name}"
    print(
        "\nexported:",
        deploy.export(course, candidate, tokenizer, gate=verdict, source=source).name,
    )
else:
    print(f"\n{service.name} stays in service")

# %% [markdown]
# One round with one seed is an impression. `python -m course_utils sweep feedback` (made in `tiny`) has recorded the
# round with three seeds, from two models in service. Beside each stands a control: the same answers and as many thumbs,
# but **dealt out at random**. What the control gains, any training of this kind gains; only the rest comes from what
# users said.

# %%
from course_utils import sweeps

header, record = sweeps.load_record("feedback")
table = []
for begin in ("sft", "dpo"):
    for thumbs in ("users", "shuffled"):
        found = [r for r in record if (r["start"], r["thumbs"]) == (begin, thumbs)]
        old, new = (np.array([r[key] for r in found]) for key in ("before", "after"))
        table.append(
            {
                "in service": begin,
                "thumbs": thumbs,
                "up : down": ", ".join(f"{r['ups']} : {r['downs']}" for r in found),
                "gold before": f"{old.mean():.2f}",
                "gold after": f"{new.mean():.2f}",
                "gain": str(evaluation.paired_difference(new, old)),
                "tokens": f"{np.mean([r['length'][0] for r in found]):.0f} to "
                f"{np.mean([r['length'][1] for r in found]):.0f}",
                "passes the gate": f"{sum(r['passed'] for r in found)} of {len(found)}",
            }
        )
plotting.side_by_side(table)

# %%
for begin in ("sft", "dpo"):
    said, control = (
        np.array([r["after"] for r in record if (r["start"], r["thumbs"]) == (begin, thumbs)])
        for thumbs in ("users", "shuffled")
    )
    print(f"{begin}: users minus control {evaluation.paired_difference(said, control)}")

# %% [markdown]
# (Gold on the test prompts, means over the seeds. The intervals are for other prompts and another training.)
#
# Before you trust such a loop, think of who presses. Simulated users press at random; people press when they are delighted
# or annoyed, some press for fun, and some to teach your model something. The thumbs are about the answers of *this* model:
# with the next one in service they grow stale. And whatever users like and should not, such as cheer, goes into the model,
# a little more with each round.
#
# ## When the server dies
# It will, some day: out of memory, or somebody ends it. Then the client alone says "connection error", and `deploy.ask` says
# what happened, with the end of the server's log:

# %%
import os
import signal

os.kill(server.pid, signal.SIGTERM)
server.wait_for_end(10)
try:
    deploy.ask(server, question)
except CourseError as error:
    print("\n".join(line[:110] for line in str(error).splitlines()))
server.stop()

# %% [markdown]
# ## In your own words
# Ten candidates in a row have passed this gate, each compared with the one before it, none worse by more than the margin.
# Is the tenth as safe as the first model was? What would you add to the gate, and what would it cost?

# %% [markdown] answer="ten_small_steps" points=2
# Not necessarily. Each comparison allows a regression smaller than the margin, and ten of them may add up to nearly ten
# margins; besides, one in some 20 to 40 candidates that are beyond a margin passes by chance, and the more candidates are tried,
# the more often that happens. I would compare each candidate with a fixed model too, the first one, say, or set a limit that
# does not move, such as at most 5% of red-team requests, and use fresh prompts now and then, since candidates chosen by the
# same prompts over and over fit those prompts. The cost: more prompts and answers for the same certainty, more good
# candidates refused by bad luck, and somebody who writes new red-team prompts.
