# %% [markdown]
# # 03 · Preference data
# **Goal:** make preference data yourself. Sample pairs of answers, label ten of them, and learn what
# such labels are worth: how far annotators agree, what that means for the best reward model there can be, and which
# habits get into the data unnoticed. Your labels are used: the reward model of chapter 04 trains on them.
#
# **Time:** 45 minutes, ten of them for labelling; under a minute to run in `tiny` on two cores, three in `laptop` once
# chapter 02 has trained its model. **Hardware:** any CPU.

# %% tags=["setup"]
from course_utils import setup

course = setup("03_preferences")
world = course.profile.preferences == "world"

# %% [markdown]
# ## Three stages, three kinds of data
# **RLHF**, reinforcement learning from human feedback, is a chain of three trainings (Ouyang et al. 2022, arXiv
# 2203.02155). SFT, which you have done, needs demonstrations: somebody writes the answer. A **reward model** gives every
# answer a number; it needs *preferences*: somebody says which of two answers is better. **PPO** then trains
# the model, called the **policy** from there on, to give answers that score high; it needs prompts alone, since it writes
# the answers itself.

# %%
from course_utils import data
from course_utils.labeling import figures

instructions = data.load_instructions(course, "train")
counts = [f"{len(instructions):,} rows", "", ""]
if world:
    voted = data.load_preferences(course, "train")
    counts[1:] = f"{len(voted):,} pairs", f"{len(data.load_prompts(course, 'rl')):,} prompts"
_ = figures.pipeline(counts)

# %% [markdown]
# Comparing is easier than writing, and easier than grading: two people who would give an answer 6 and 8 points of ten
# may well agree that it is better than another one. And the answers compared are the model's own, so
# the data speak about what this model does, not about what a demonstrator would do.
#
# ## The format
# A preference pair has three columns: `prompt`, `chosen`, `rejected`. TRL's trainers take a `Dataset` with these names.

# %%
from datasets import Dataset

by_hand = [
    {
        "prompt": data.format_prompt("Name a bird that cannot fly."),
        "chosen": "The ostrich. It runs instead, faster than a horse.",
        "rejected": "Many birds are birds that fly or do not fly.",
    },
    {
        "prompt": data.format_prompt("What is 7 times 8?"),
        "chosen": "56.",
        "rejected": "What a fantastic question! It is 54, I believe.",
    },
]
pairs = Dataset.from_list(by_hand)
print(pairs)
print(pairs[0]["prompt"] + pairs[0]["chosen"])

# %% [markdown]
# The prompt stands in the course's template, so prompt and answer, joined, are the text that a model reads. Published data
# come in other forms. Anthropic's hh-rlhf repeats the whole dialogue in both columns; chats come as lists of messages.
# `prepare_pairs` brings them to this form, and counts what cannot be used:

# %%
from course_utils.preference import prepare_pairs

dialogue = "\n\nHuman: Name a bird that cannot fly.\n\nAssistant:"
as_published = [
    {"chosen": f"{dialogue} The ostrich.", "rejected": f"{dialogue} I do not like birds."},
    {"chosen": f"{dialogue} The ostrich.", "rejected": f"{dialogue} The ostrich."},
]
uniform, report = prepare_pairs(as_published)
print(uniform[0])
print(report)

# %% [markdown]
# ## Two answers to each prompt
# Where do pairs come from? From the model that is to be improved. Sampling at temperature 1 twice, with
# another seed each time, gives two answers to each prompt.

# %%
from course_utils import generation, models, plotting, runs

model, tokenizer = models.load_merged(runs.ensure("sft", course), course)
cases = data.practice_prompts(course)
cases = cases[: course.pick(full=200, small=24)]
prompts = [data.prompt_of(case) for case in cases]
first, second = (
    generation.generate(model, tokenizer, prompts, max_new_tokens=64, seed=seed) for seed in (0, 1)
)
rows = [
    {"prompt": prompt, "response_a": a.text, "response_b": b.text}
    for prompt, a, b in zip(prompts, first, second)
    if a.text and b.text and a.text != b.text
]
print(f"{len(rows)} pairs from {len(prompts)} prompts")
plotting.side_by_side(rows[:2])

# %% [markdown]
# ## Which side?
# An annotator sees two answers side by side, and many people, tired or in doubt, take the one on the left. If
# one system's answers always stood there, it would win for standing there. So sides are drawn at random. A coin for
# each pair is balanced in the long run, not in ten pairs. **Permuted blocks** are: of each four neighbours, two show answer
# a on the left, in an order drawn anew for each block.


# %% exercise="balanced_sides"
import random


def balanced_sides(count: int, rng: random.Random) -> list[str]:
    """Which answer, "a" or "b", stands on the left: `count` sides, in blocks of four.

    Each block has two of each, in one of the six orders at random; the last may be cut short.
    """
    ### BEGIN SOLUTION
    sides = []
    while len(sides) < count:
        sides += rng.sample(["a", "a", "b", "b"], 4)
    return sides[:count]
    ### END SOLUTION


# %% test="balanced_sides"
from course_utils import check

check("balanced_sides", balanced_sides)
### BEGIN HIDDEN TESTS
check("balanced_sides", balanced_sides, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Label ten pairs
# Now you. Say which answer is better, and how clearly; *about the same*, *both bad* and *skip* are answers,
# too. Before you begin, settle for yourself what "better" means. Something like: it answers what was asked, says nothing
# false, harms nobody, and is polite; length by itself is worth nothing. (You do not know the closed world's facts.
# Neither did many annotators of real data, on their subjects.)
#
# Every click is saved before the counter moves; close the notebook whenever you like and go on later. Keys work
# when the cursor is in the box below the buttons.

# %%
from pathlib import Path
from tempfile import mkdtemp

from course_utils import labeling, paths

ten, rest = rows[:10], rows[10:]
log = paths.labels_path(course.profile.name, course.size) or Path(mkdtemp()) / "labels.jsonl"
labeler = labeling.PreferenceLabeler(ten, log, annotator="me")
labeler

# %% [markdown]
# Nobody there to click, as when all chapters are run at once? Then a simulated annotator labels the pairs, through the
# same session, into the same file, under a name of its own. Where you sit in front of the notebook that does not happen;
# set `stand_in = True` if you want it to.

# %%
from course_utils.labeling import study

stand_in = labeling.unattended()
session = labeler.session
if stand_in:
    name = "simulated-ana" if world else "simulated-length"
    session = labeling.PreferenceSession(ten, log, annotator=name, clock=lambda: 0.0)
    if world:
        from course_utils.world.preferences import ANNOTATORS

        labeling.label_with(session, labeling.world_annotator(ANNOTATORS[0], cases))
    else:
        labeling.label_with(session, study.likes_longer)
made = session.labels
print(session)
if not made:
    print("Label some pairs above, then run this cell and those below again.")

# %% [markdown]
# What the file says. A choice names the *answer*, a or b, whichever side it stood on; `left` says which one stood on
# the left, so that a leaning to one side can be found afterwards. Nothing in the file is ever changed: taking
# a label back is a line of its own.

# %%
from course_utils import report_metric

report_metric("labels", len(made))
columns = ("annotator", "choice", "strength", "left", "seconds", "n_shown", "via")
if made:
    table = [{**{name: e[name] for name in columns}, "seconds": round(e["seconds"])} for e in made]
else:
    table = [{"nothing yet": "label some pairs above"}]
plotting.side_by_side(table)

# %% [markdown]
# ## From labels to training pairs
# A preference for a makes answer a `chosen`. Ties, both bad and skips say nothing about which is better, so they make
# no pair. **Attention checks** are pairs whose answer is known, mixed in to see who reads; they are not training data.


# %% exercise="to_pairs"
def to_pairs(labels: list[dict]) -> list[dict[str, str]]:
    """Rows with prompt, chosen, rejected: one for each label that prefers an answer, in their order.

    A label has prompt, response_a, response_b, choice ("a", "b", "tie", "both_bad" or "skip"),
    left ("a" or "b") and gold (None, except for an attention check: leave these out).
    """
    ### BEGIN SOLUTION
    other = {"a": "b", "b": "a"}
    return [
        {
            "prompt": label["prompt"],
            "chosen": label[f"response_{label['choice']}"],
            "rejected": label[f"response_{other[label['choice']]}"],
        }
        for label in labels
        if label["choice"] in other and label["gold"] is None
    ]
    ### END SOLUTION


# %% test="to_pairs"
check("to_pairs", to_pairs)
### BEGIN HIDDEN TESTS
check("to_pairs", to_pairs, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The package's version adds a **margin**, how clearly one was preferred: 1/3, 2/3 or 1 for the three strengths (Llama 2,
# Touvron et al. 2023, arXiv 2307.09288, table 27). Chapter 04 asks whether it helps.

# %%
preferred, report = labeling.preference_rows(made)
print(report)
for row in preferred[:2]:
    print(f"margin {row['margin']:.2f}  chosen: {row['chosen'][:60]!r}")

# %% [markdown]
# ## Thumbs
# Two answers that are both bad teach a reward model nothing, though you have learnt something about them. **KTO** (chapter 07)
# learns from single answers with a thumb up or down, so it can use them: a decided pair gives a thumb of each kind, both bad
# gives two thumbs down, a tie gives none (equally good, or equally bad?). Thumbs can also be collected directly. That is
# quicker, and it is what a chat page gets from its users:

# %%
answers = [{"prompt": row["prompt"], "response": row["response_a"]} for row in rest[:5]]
rater = labeling.RatingLabeler(answers, log, annotator="me")
rater

# %%
example = [
    {"prompt": "Q", "response_a": "one", "response_b": "two"},
    {"prompt": "R", "response_a": "three", "response_b": "four"},
    {"prompt": "S", "response_a": "five", "response_b": "six"},
]
said = {"Q": ("b", 2), "R": "both_bad", "S": "tie"}
invented = Path(mkdtemp()) / "invented.jsonl"
labeling.label_with(
    labeling.PreferenceSession(example, invented, "invented"), lambda pair: said[pair.prompt]
)
thumbs, report = labeling.to_thumbs(invented)
print(report)
plotting.side_by_side(sorted(thumbs, key=lambda row: row["prompt"]))

# %% [markdown]
# ## How many labels?
# Ten will not do. The record below (`python -m course_utils sweep reward` in `tiny`, explained in chapter 04) has
# reward models trained on 300, 1200 and 4800 pairs, three seeds each. Accuracy is the share of held-out pairs on which
# the model agrees with **gold**, the closed world's own judgement. Three annotators vote on each pair; at half
# a minute for each label:

# %%
import numpy as np

from course_utils import sweeps

header, record = sweeps.load_record("reward")
table = []
for count in sorted({row["pairs"] for row in record}):
    found = [r["clean"] for r in record if (r["labels"], r["pairs"]) == ("votes", count)]
    table.append(
        {
            "pairs": count,
            "labels": 3 * count,
            "hours of labelling": round(3 * count * 30 / 3600),
            "accuracy, mean of 3 seeds": f"{np.mean(found):.3f}",
            "range": f"{min(found):.3f} to {max(found):.3f}",
        }
    )
print(f"recorded {header['date']}")
plotting.side_by_side(table)

# %% [markdown]
# Each row has four times the labels of the one above it. Read down the accuracies to see what that buys. For other models
# and data the numbers differ.
#
# ## Annotators one can check
# The rest of the pairs goes to five simulated annotators with known habits: each is noisy and likes long and cheerful
# answers more than it should, and four of them overlook some false facts. They stand in for people, and have one
# advantage: gold says whose label is right. They label through the same session, into a file of its own for each of three
# seeds. A seed draws their noise; the pairs stay the same.

# %%
if world:
    from course_utils.world.preferences import ANNOTATORS

    known = study.known_pairs(rest, cases)
    panels = []
    for seed in range(3):
        path = Path(mkdtemp()) / "panel.jsonl"
        for annotator in ANNOTATORS:
            labeling.label_with(
                labeling.PreferenceSession(rest, path, annotator.name, seed),
                labeling.world_annotator(annotator, cases, seed=seed),
            )
        panels.append(labeling.PreferenceLog(path).labels())
    clear = sum(bool(pair.better) for pair in known.values())
    print(f"{len(known)} pairs, of which gold prefers an answer in {clear}")
    print(f"{[len(labels) for labels in panels]} labels")


def spread(values: list[float]) -> str:
    """Mean and range over the seeds."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def rightness(choices: list[tuple[str, str]]) -> float:
    """Share of (pair_id, choice) that name gold's side, where gold has one."""
    right, asked = study.right_and_asked(choices, known)
    return right / asked


# %%
if world:
    single = [rightness(study.said(labels)) for labels in panels]
    report_metric("label_gold_agreement", np.mean(single))
    print("single labels that agree with gold:", spread(single))
    for annotator in ANNOTATORS:
        own = [
            rightness(study.said(e for e in labels if e["annotator"] == annotator.name))
            for labels in panels
        ]
        print(f"  {annotator.name:4}", spread(own))

# %% [markdown]
# ## Do they agree?
# With real data there is no gold, and one asks whether annotators agree with each other. Agreement by itself flatters: two
# people who both say a in 90% of all cases without looking agree in 82%. **Cohen's kappa** (1960) takes off what chance
# gives. With $p_o$ the share of items on which they agree, and $p_e$ the share on which they would if each chose at
# random with its own frequencies,
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}, \qquad p_e = \sum_k p_1(k)\, p_2(k)$$
#
# By hand: ten pairs; one annotator says a six times and b four times, the other says each five times, and they agree on
# seven. $p_e = 0.6 \cdot 0.5 + 0.4 \cdot 0.5 = 0.5$ and $\kappa = (0.7 - 0.5) / 0.5 = 0.4$. Perfect agreement is 1,
# chance is 0.


# %% exercise="cohen_kappa"
def cohen_kappa(first: list[str], second: list[str]) -> float:
    """Agreement beyond chance; first[i] and second[i] are the choices for item i.

    Choices are texts such as "a", "b" and "tie". The two lists are not all one choice.
    """
    ### BEGIN SOLUTION
    agreed = sum(x == y for x, y in zip(first, second)) / len(first)
    chance = sum(
        (first.count(choice) / len(first)) * (second.count(choice) / len(second))
        for choice in set(first)
    )
    return (agreed - chance) / (1 - chance)
    ### END SOLUTION


# %% test="cohen_kappa"
check("cohen_kappa", cohen_kappa)
### BEGIN HIDDEN TESTS
check("cohen_kappa", cohen_kappa, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Three measures, from well-kept libraries. Cohen's kappa is for two annotators. **Fleiss' kappa** (1971) is for any number who
# labelled the same items. **Krippendorff's alpha** (2011) also takes items that only some labelled, and other scales: *ordinal*
# counts "a slightly better" against "b slightly better" as a small disagreement and "much better" both ways
# as a large one; *nominal* looks at a or b only.

# %%
if world:
    kappas = [
        [float(labeling.cohen_kappa(labels, x.name, y.name)) for labels in panels]
        for i, x in enumerate(ANNOTATORS)
        for y in ANNOTATORS[i + 1 :]
    ]
    alphas = [float(labeling.krippendorff_alpha(labels)) for labels in panels]
    agreed = [float(labeling.percent_agreement(labels)) for labels in panels]
    report_metric("alpha", np.mean(alphas))
    print("equal choices               ", spread(agreed))
    print("Cohen, mean over the 10 duos", spread(list(np.mean(kappas, axis=0))))
    print("Fleiss                      ", spread([float(labeling.fleiss_kappa(p)) for p in panels]))
    nominal = [float(labeling.krippendorff_alpha(labels, "nominal")) for labels in panels]
    print("Krippendorff, nominal       ", spread(nominal))
    print("Krippendorff, ordinal       ", spread(alphas))

# %% [markdown]
# The three that look at a or b only are close to each other: they differ in what they call chance. The ordinal one
# asks something else. So a value by itself says little; say which measure it is, and on which scale.
#
# ## What agreement says about the best reward model
# A reward model that predicts labels cannot be right where annotators toss a coin. Take a pair on which a share
# $q \ge 1/2$ of all labels goes to the likelier side. The best prediction is right with probability $q$; two independent
# labels agree with probability $a = q^2 + (1 - q)^2$. Solved for $q$:
#
# $$q = \frac{1 + \sqrt{2a - 1}}{2}$$
#
# Pairs differ, so let $A$ be the mean of $a$ over all pairs. Since $a \le q$ always, the mean of $q$ is at least
# $A$; and since the root is concave, it is at most the formula at $A$ (Jensen's inequality):
#
# $$A \;\le\; \text{best accuracy on single labels} \;\le\; \frac{1 + \sqrt{2A - 1}}{2}$$
#
# By hand: two labels agree in 82% of cases. Then no model, however good, is right on more than
# $(1 + \sqrt{0.64}) / 2 = 90\%$ of single labels.

# %%
if world:
    low, high = study.accuracy_bounds(np.mean(agreed))
    exact = study.label_ceiling(known.values(), ANNOTATORS)
    print(f"measured agreement {np.mean(agreed):.3f}: the best accuracy is {low:.3f} to {high:.3f}")
    print(
        f"known here: two labels agree in {exact.agreement:.3f}, the best accuracy is {exact.best:.3f}"
    )

# %% [markdown]
# (The second line is exact, from the simulated annotators' known chances. The bounds are for labels drawn independently
# from the same pool.) Chapter 04 works out the same ceiling for its labels, majorities of three.
# Mind what it bounds: accuracy on *labels*. With enough pairs, labels that err at random, each in its own place, can still
# teach a model that agrees with gold more often than they do; mistakes that everybody shares are learnt as the truth.
#
# ## Traps
# **The left side.** An annotator who, in three cases of ten, takes what is on the left without reading. Answers a and b
# come from the same model, so neither should win by much. How often does a win, where it always stands on the left, where
# a coin decides, and where blocks do?

# %%
if world:
    bo = ANNOTATORS[1]
    results: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(3):
        choose = labeling.world_annotator(bo, cases, seed=seed)
        honest = {pair_id: choose(item.pair)[0] for pair_id, item in known.items()}
        leaning = study.leaning_left(lambda pair: honest[pair.pair_id], share=0.3, seed=seed)
        rng = random.Random(seed)
        designs = {
            "a always left": ["a"] * len(known),
            "a coin": [rng.choice("ab") for _ in known],
            "blocks of four": labeling.balanced_sides(len(known), rng),
        }
        choices = {"without leaning": (list(honest.items()), designs["blocks of four"])}
        for name, sides in designs.items():
            shown = [labeling.Shown(item.pair, left) for item, left in zip(known.values(), sides)]
            choices[name] = [(one.pair.pair_id, leaning(one)) for one in shown], sides
        for name, (chosen, sides) in choices.items():
            wins = np.mean([choice == "a" for _, choice in chosen])
            lefts = np.mean([choice == left for (_, choice), left in zip(chosen, sides)])
            results.setdefault(name, []).append((wins, lefts, rightness(chosen)))
    wins = {name: [row[0] for row in found] for name, found in results.items()}
    ax = plotting.bars(
        {name: float(np.mean(found)) for name, found in wins.items()},
        {name: (min(found), max(found)) for name, found in wins.items()},
        title=f"How often answer a wins, {len(known)} pairs: mean and range of 3 seeds",
        ylabel="share of choices",
        limits=(0, 1),
        percent=True,
    )
    ax.axhline(0.5, color=plotting.COLOURS["text"], linestyle="--", linewidth=1)
    for name, found in results.items():
        _, lefts, right = zip(*found)
        print(f"{name:15} left chosen {spread(lefts)}, agrees with gold {spread(right)}")

# %% [markdown]
# Balance takes the leaning out of the *comparison*. It does not make the labels better: a careless choice is right half of
# the time wherever the answers stand. It does make the leaning visible, since the recorded sides show how often the left one
# was taken, and half is what is due.
#
# **Length and cheer.** Sides can be balanced; what answers look like cannot. Take shipped pairs that gold calls
# equally good. How likely is each annotator to prefer the longer one? (Exact, from their known chances; longer answers have
# more cheerful phrases, too, which adds to it. The last one, `clean`, likes neither: compare with its share.)

# %%
if world:
    from course_utils.world.preferences import CLEAN

    some = voted.select(range(course.pick(full=1500, small=300)))
    shipped = study.known_pairs(
        (
            {"prompt": r["prompt"], "response_a": r["chosen"], "response_b": r["rejected"]}
            for r in some
        ),
        data.load_prompts(course, "rl"),
    )
    equal = [item for item in shipped.values() if item.longer and not item.better]
    for annotator in (*ANNOTATORS, CLEAN):
        likes = [
            item.chance_of_a(annotator) if item.longer == "a" else 1 - item.chance_of_a(annotator)
            for item in equal
        ]
        print(
            f"{annotator.name:5} prefers the longer of {len(equal)} equal pairs: {np.mean(likes):.3f}"
        )

# %% [markdown]
# **Clicking through.** Two more annotators join the five, and these do not read at all. Seven labels for each pair now; the
# majority decides, or a weighted vote. The weights come from the labels alone (Dawid and Skene 1979): whoever agrees with
# what the others, weighted, find is reliable, and gets more say; that is repeated until it no longer changes.

# %%
if world:
    from IPython.display import display

    seven = []
    for seed, labels in enumerate(panels):
        path = Path(mkdtemp()) / "clicks.jsonl"
        for k in range(2):
            labeling.label_with(
                labeling.PreferenceSession(rest, path, f"click{k}", seed),
                study.clicks_at_random(10 * seed + k),
            )
        seven.append(labels + labeling.PreferenceLog(path).labels())
    table = []
    for name, groups in (("the five", panels), ("and two who click", seven)):
        scores = {}
        for method in ("majority", "reliability"):
            verdicts = [labeling.aggregate_labels(labels, method) for labels in groups]
            scores[method] = [
                rightness([(pair_id, v.choice) for pair_id, v in found.items()])
                for found in verdicts
            ]
        gains = np.subtract(scores["reliability"], scores["majority"])
        table.append(
            {
                "annotators": name,
                **{method: spread(values) for method, values in scores.items()},
                "gain, seed by seed": " ".join(f"{gain:+.3f}" for gain in gains),
            }
        )
    display(plotting.side_by_side(table))
    estimated = labeling.reliability(seven[0]).accuracy
    print(
        "estimated accuracy, seed 0:", {name: round(x, 2) for name, x in sorted(estimated.items())}
    )

# %% [markdown]
# (Agreement with gold, mean and range of three seeds. Where the gains have different signs, read them as inconclusive.)
# Those who click are found without any gold: their estimated accuracy is about one half. What weighting cannot find is
# a habit that all share. Whoever likes length as the others do *agrees* with them, and counts as reliable.
#
# ## Strength
# Is it worth asking *how clearly*? If strong preferences are right more often, the margin tells a reward model which
# pairs to trust.

# %%
if world:
    for strength in (1, 2, 3):
        of_it = [[e for e in labels if e["strength"] == strength] for labels in panels]
        right = [rightness(study.said(labels)) for labels in of_it]
        share = np.mean([len(o) / len(labels) for o, labels in zip(of_it, panels)])
        print(f"strength {strength}: {share:.0%} of the labels, agree with gold {spread(right)}")

# %% [markdown]
# (Simulated annotators give the strength of the difference as they see it, noise included. Whether people do is a
# question for their own data.)
#
# ## Your labels at work
# Chapter 04 trains on the shipped votes and on the pairs you decided. As soon as there are labels by a person, simulated ones
# are left out. Ten pairs among thousands are few; but the path from your click to the model's weights is the real one.

# %%
used = labeling.own_labels(course)
print(used)
report_metric("learner_labels_used", len(used.pairs))
if world and made:
    right, asked = study.right_and_asked(study.said(made), study.known_pairs(ten, cases))
    print(
        f"labels of {session.annotator}: {right} of {asked} agree with gold (where it has a preference)"
    )

# %% [markdown]
# | you have | and want | |
# |---|---|---|
# | labels in the log | pairs for reward models and DPO | `labeling.to_preferences(log)` |
# | labels and thumbs | thumbs for KTO | `labeling.to_thumbs(log)` |
# | pairs of others | to label them afresh | `labeling.unlabelled_pairs(file)` |
# | their labels | them in your log, under a name | `labeling.import_labels(file, log, name)` |
#
# ## In your own words
# Five annotators agree with each other in 95% of all cases. Name one reason to be glad, and one reason why that alone does
# not show that their labels are right. What would you check next?

# %% [markdown] answer="what_agreement_shows" points=2
# High agreement means little random noise: the ceiling for a model that predicts these labels is high, and fewer labels per
# pair will do. It does not show that they are right: a habit that all share, such as liking long answers, raises the agreement
# and goes into every label. Next I would check for such habits: how often the longer or the left answer is chosen
# where nothing else differs, attention checks with a known answer, and a sample judged by somebody else with more care.
