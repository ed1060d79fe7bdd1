"""The four tasks as examples to train on, every label from gold; and a little raw text.

Each pair stands in a batch twice, with the answers exchanged and the label with them: of what the
data say of the first slot they say the same of the second. One pair in five is a near tie, one in
four differs in one respect only.

Raw text is what the base model was trained on. It keeps the facts alive of those things that no
training case asks about, and that the judge will be asked about all the same.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from course_utils.world import vocabulary as voc
from course_utils.world.cases import Case
from course_utils.world.facts import World
from course_utils.world.text import documents

from .faults import FAULTS, assess, better, scores
from .mend import mend
from .pool import Answer
from .principles import TRAINED, covered
from .template import Prompt, Template, critique_text, pair_reply, scores_reply

TASKS = ("pair", "scores", "critique", "revision", "text")
NEAR_TIES = 0.2  # share of pairs whose gold differs by less than the course's GOLD_TIE
ALIKE = 0.25  # share of pairs that differ in one respect
BALANCED = 0.5  # share of criticised and revised answers drawn by fault instead of as they come
GOOD = 0.25  # share of revisions of an answer that is to stay as it is
PARTIAL = 0.25  # share of the others whose critique names only some of the faults
TRIES = 1000
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
        notes: for each answer in the prompt (where it has been read, its worst fault as an index
            into `NOTED`, its grade): see `train`.
        label: for a pair the verdict, for a critique its text, for tests and counts.
    """

    task: str
    case_id: str
    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    label: str = ""
    notes: tuple[tuple[int, int, int], ...] = ()


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

    # Pairs

    def draw_pair(self) -> tuple[Case, Answer, Answer]:
        """Two different answers to one case, a near tie in the stated share of draws."""
        if self.rng.random() < ALIKE:
            return self._alike()
        # None of those that differ in one respect is a tie, so the others hold all of them.
        tie = self.rng.random() < NEAR_TIES / (1 - ALIKE)
        for _ in range(TRIES):
            case, answers = self.rng.choice(self.pool)
            a, b = self.rng.sample(list(answers), 2)
            if (better(a.gold, b.gold) == "tie") == tie:
                return case, a, b
        raise RuntimeError(f"no pair with tie = {tie} in {TRIES} draws: the pool is too small")

    def _alike(self) -> tuple[Case, Answer, Answer]:
        """An answer, and the same with one fault mended or an unfriendly sentence added."""
        for _ in range(TRIES):
            case, answer = self._any_answer()
            faults = answer.assessment.faults
            if faults and self.rng.random() < 0.7:
                one = self.rng.choice(faults)
                text = mend(case, answer.text, [one], answer.assessment, self.world, self.rng)
            else:
                text = self._damaged(answer.text)
            other = Answer(text, "alike", assess(case, text, self.world))
            if better(answer.gold, other.gold) != "tie":
                return case, answer, other
        raise RuntimeError(f"no pair that differs in one respect in {TRIES} draws")

    def _damaged(self, text: str) -> str:
        rude = self.rng.choice(voc.RUDE)
        separator = "\n" if "\n" in text else " "
        parts = (rude, text) if self.rng.random() < 0.5 else (text, rude)
        return separator.join(parts)

    def pair(self) -> tuple[Example, Example]:
        """One pair in both orders."""
        case, a, b = self.draw_pair()
        return self._ordered(case, a, b), self._ordered(case, b, a)

    def _ordered(self, case: Case, a: Answer, b: Answer) -> Example:
        verdict = better(a.gold, b.gold)
        prompt = self.template.pair(question(case), a.text, b.text)
        reply = pair_reply(a.assessment, b.assessment, verdict)
        return self._example("pair", case, (a, b), prompt, reply, verdict)

    # Single answers

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
        return self._example("scores", case, (answer,), prompt, reply, reply)

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
        return self._example("critique", case, (answer,), prompt, text, text)

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
        return self._example("revision", case, (answer,), prompt, text, text)

    def text(self) -> Example:
        """A document of the base model's training text."""
        _, text = next(self._documents)
        eos = self.template.reply("")
        return Example("text", "", tuple(eos), tuple(self.template.reply(text)))

    def _example(
        self,
        task: str,
        case: Case,
        answers: Sequence[Answer],
        prompt: Prompt,
        reply: str,
        label: str,
    ) -> Example:
        notes = tuple(
            (end, NOTED.index((*a.assessment.faults, "")[0]), a.assessment.grade)
            for end, a in zip(prompt.ends, answers, strict=True)
        )
        ids = tuple(self.template.reply(reply))
        return Example(task, case.case_id, prompt.ids, ids, label, notes)

    def batch(self, counts: dict[str, int]) -> list[Example]:
        """So many examples of each task; pairs come in twos."""
        made = [example for _ in range(counts["pair"] // 2) for example in self.pair()]
        for task in TASKS[1:]:
            made += [getattr(self, task)() for _ in range(counts[task])]
        return made

    def batches(self, counts: dict[str, int]) -> Iterator[list[Example]]:
        """Without end."""
        while True:
            yield self.batch(counts)
