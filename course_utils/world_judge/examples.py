"""The tasks as examples to train on, every label from gold; and a little raw text.

Raw text is what the base model was trained on. It keeps the facts alive of those things that no
training case asks about, and that the judge will be asked about all the same.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from course_utils.world.cases import Case
from course_utils.world.facts import World
from course_utils.world.text import documents

from .faults import FAULTS, scores
from .mend import mend
from .pool import Answer
from .principles import TRAINED, covered
from .template import Prompt, Template, critique_text, scores_reply

TASKS = ("scores", "critique", "revision", "text")
BALANCED = 0.5  # share of criticised and revised answers drawn by fault instead of as they come
GOOD = 0.25  # share of revisions of an answer that is to stay as it is
PARTIAL = 0.25  # share of the others whose critique names only some of the faults
NOTED = ("", *FAULTS)  # no fault, and the faults

Pool = Sequence[tuple[Case, Sequence[Answer]]]
Judged = tuple[Case, Answer]


@dataclass(frozen=True)
class Example:
    """One text to learn: what the model reads, and what it is to write.

    Attributes:
        task: one of `TASKS`.
        case_id: of the prompt it is about.
        prompt, reply: token ids; the reply ends with EOS.
        label: what the reply says, for tests and counts.
        note: (where the answer has been read, its worst fault as an index into `NOTED`, its grade),
            see `train`; None for raw text.
    """

    task: str
    case_id: str
    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    label: str = ""
    note: tuple[int, int, int] | None = None


def question(case: Case) -> str:
    """As `template.question_text` gives it for the case's prompt."""
    return "\n".join(part for part in (case.instruction, case.context) if part)


class ExampleMaker:
    """Draws examples from a pool of answers. Everything it makes follows from `rng`."""

    def __init__(self, pool: Pool, world: World, template: Template, rng: random.Random) -> None:
        self.pool = [(case, answers) for case, answers in pool if len(answers) > 1]
        self.world = world
        self.template = template
        self.rng = rng
        self._by_fault: defaultdict[str, list[Judged]] = defaultdict(list)
        for case, answers in self.pool:
            for answer in answers:
                worst = answer.assessment.faults[:1] or ("",)
                self._by_fault[worst[0]].append((case, answer))
        self._faults = sorted(fault for fault in self._by_fault if fault)
        self._documents = documents(rng.randrange(1 << 30), world)

    def _any_answer(self) -> Judged:
        case, answers = self.rng.choice(self.pool)
        return case, self.rng.choice(list(answers))

    def _draw(self) -> Judged:
        """An answer as it comes, or one whose worst fault was drawn first."""
        if self.rng.random() >= BALANCED:
            return self._any_answer()
        return self.rng.choice(self._by_fault[self.rng.choice(["", "", *self._faults])])

    def scores(self) -> Example:
        case, answer = self._draw()
        prompt = self.template.scores(question(case), answer.text)
        reply = scores_reply(answer.assessment, scores(case, answer.assessment))
        return self._example("scores", case, answer, prompt, reply)

    def _principles(self, faults: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """(text, faults it is about): no principle, one, or a numbered list of several."""
        kinds = sorted(TRAINED)
        how = self.rng.random()
        if how < 0.35:
            return "", tuple(faults)
        if how < 0.7:
            chosen = [self.rng.choice(kinds)]
            # Half of the time one that has something to say of this answer.
            fitting = [kind for kind in kinds if covered(faults, [kind])]
            if fitting and self.rng.random() < 0.5:
                chosen = [self.rng.choice(fitting)]
        else:
            chosen = self.rng.sample(kinds, self.rng.randint(2, len(kinds)))
        lines = [self.rng.choice(TRAINED[kind]) for kind in chosen]
        if len(lines) > 1 or self.rng.random() < 0.3:
            lines = [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
        return "\n".join(lines), covered(faults, chosen)

    def critique(self) -> Example:
        case, answer = self._draw()
        principles, faults = self._principles(answer.assessment.faults)
        prompt = self.template.critique(principles, question(case), answer.text)
        text = critique_text(faults)
        return self._example("critique", case, answer, prompt, text)

    def revision(self) -> Example:
        if self.rng.random() < GOOD:
            case, answer = self.rng.choice(self._by_fault[""])
        else:
            case, answer = self._draw()
        faults = list(answer.assessment.faults)
        if len(faults) > 1 and self.rng.random() < PARTIAL:
            kept = self.rng.sample(faults, self.rng.randrange(1, len(faults)))
            faults = [fault for fault in faults if fault in kept]
        text = mend(case, answer.text, faults, answer.assessment, self.world, self.rng)
        prompt = self.template.revision(question(case), answer.text, critique_text(faults))
        return self._example("revision", case, answer, prompt, text)

    def text(self) -> Example:
        """A document of the base model's training text."""
        _, text = next(self._documents)
        eos = self.template.reply("")
        return Example("text", "", tuple(eos), tuple(self.template.reply(text)))

    def _example(
        self, task: str, case: Case, answer: Answer, prompt: Prompt, reply: str
    ) -> Example:
        judged = answer.assessment
        note = (prompt.end, NOTED.index((*judged.faults, "")[0]), judged.grade)
        ids = tuple(self.template.reply(reply))
        return Example(task, case.case_id, prompt.ids, ids, reply, note)

    def batch(self, counts: dict[str, int]) -> list[Example]:
        """So many examples of each task."""
        return [getattr(self, task)() for task in TASKS for _ in range(counts[task])]
