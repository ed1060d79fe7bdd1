"""The model card: every number in it was measured, or counted, where it is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .faults import FAULTS, FINE, GRADE_LIMITS
from .figures import FLAWED, Figure
from .pool import DRAWS, HELD_OUT_EVERY, HOT, STRAY, WRITERS
from .template import LIMITS
from .train import LOG

CARD, FIGURES = "MODEL_CARD.md", "figures.json"
# What was wanted of it (issue 6): figure -> (at least or at most, bound).
TARGETS = {
    "accuracy on clear pairs, one order": (">=", 0.85),
    "opposite verdicts when swapped": ("<", 0.10),
    "worst fault named first": (">=", 0.80),
    "gold gained, flawed answers": (">=", 1.5),
    "gold gained, answers without a fault": (">=", -0.2),
}
Groups = dict[str, dict[str, Figure]]


def met(name: str, value: float) -> str:
    """``"yes"``, ``"NO"``, or nothing where no bound was set."""
    if name not in TARGETS:
        return ""
    sign, bound = TARGETS[name]
    reached = value >= bound if sign == ">=" else value < bound
    return f"{sign} {bound:g}: {'yes' if reached else 'NO'}"


def _table(figures: dict[str, Figure]) -> str:
    head = "| figure | value | 95% interval | n | wanted |\n|---|---|---|---|---|\n"
    return head + "".join(
        # The row's numbers, as the figures' file has them: rounded once more they must agree.
        f"| {name} | {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {row['n']} "
        f"| {met(name, row['value'])} |\n"
        for name, row in ((name, figure.row()) for name, figure in figures.items())
    )


def card(record: dict[str, Any], groups: Groups) -> str:
    """The card's text, from the training log and the measured figures."""
    config, log = record["config"], record["log"]
    counts = ", ".join(f"{n} {task}" for task, n in config["counts"].items())
    written = ", ".join(f"{count} {name}" for name, (_, count) in WRITERS.items())
    tables = "\n".join(f"### {title}\n{_table(figures)}" for title, figures in groups.items())
    faults = "; ".join(f'{name}: "It {says}."' for name, says in FAULTS.items())
    policies = ", ".join(f"{count} {name}" for name, count in Counter(DRAWS).items())
    limits = ", ".join(f"{kind} {limit}" for kind, limit in LIMITS.items())
    return f"""# Model card: the world judge

A Llama with {record["parameters"]:,} parameters: the tiny profile's SFT model (seed 0), which is
the shipped base model fine-tuned, fine-tuned once more to compare, score, criticise and revise
answers in the closed world. It is what
`judge.make_backend("world")` answers with. Made by `python -m course_utils world-judge`, seed
{config["seed"]}; stored in float16, loaded as float32. Licence CC BY 4.0.

What it is for: chapters 08 and 09, offline, with its true accuracy beside every use. What it is not
for: anything outside the closed world. It knows Ottermere and no other subject; of English texts it
says something all the same, and that is worth nothing.

## Training
{config["steps"]} steps of {sum(config["counts"].values())} examples ({counts}; text is the base
model's training text), AdamW, peak learning rate {config["learning_rate"]:g}, cosine decay to zero,
{log[-1]["seconds"]:.0f} s. A linear head that reads fault and grade at the end of every answer is
trained along and thrown away. `{LOG}` holds recipe, versions, losses and the
hash of the policies' answers.

Labels come from gold (`world.gold`), which no method of the course may train on except here. Cases:
the splits `sft` and `rl` without one group in {HELD_OUT_EVERY} (target, invented name, person,
sentence), which is kept for measuring. No prompt of an evaluation split was trained on. Answers to
each case: {written}, {STRAY} stray (written to another case of the same task), and {policies} from
the runs of these names (seed 0), one of each case's at temperature {HOT:g}, the others at 1.

Faults, in order of gravity; the costliest in gold comes first. {faults} None: "It {FINE}." The
grade behind an answer is gold from 0 to 9, one more from each of {GRADE_LIMITS}. A near tie (gold
apart by less than 0.5) is a tie.

## Measured
Asked through the adapter with the judge's prompts at temperature 0. Intervals: Wilson for shares,
bootstrap for means. "Clear": gold apart by at least 0.5; a tie counts as wrong there. A flawed
answer has a fault and stands at least {FLAWED:g} below a careful answer. "In new words": one
principle in a wording that was never trained on, and the fault that it covers.

{tables}
## What it cannot do
- It reads at most so many tokens of each text: {limits}. Of longer ones the beginning and the end.
- The rubric plays no part in a comparison. Scores can be asked for by the criteria of the shipped
  rubrics.
- Of principles it was taught five kinds. Nothing in the closed world is discriminatory, so the
  fifth stands for unkindness to whoever asks. A principle about something else is misread.
- A revision goes by the critique alone. Where the critique finds nothing wrong, the response is
  returned as it stands by a rule: the model itself would not copy it word for word.
- It grades each answer by itself and compares the grades. So it has no favourite place, and what
  can only be seen side by side it cannot see.
"""


def write_card(folder: Path, groups: Groups) -> None:
    """The card and the figures as JSON, beside the model."""
    record = json.loads((folder / LOG).read_text())
    rows = {title: {n: f.row() for n, f in figures.items()} for title, figures in groups.items()}
    (folder / FIGURES).write_text(json.dumps(rows, indent=1) + "\n")
    (folder / CARD).write_text(card(record, groups))
