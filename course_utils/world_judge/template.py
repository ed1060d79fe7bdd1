"""The model's own short template: three tasks, and the forms in which it answers.

    ### Instruction: … ### Response: … ### Scores:                    ->  4: is rude. 53544
    ### Principles: … ### Instruction: … ### Response: … ### Critique:    ->  It is rude.
    ### Instruction: … ### Response: … ### Critique: … ### Revision:      ->  a better answer

The titles are the course's template as far as it goes: the model begins as the SFT model, which
reads instructions and responses under these. The number in front is the answer's grade, gold from 0
to 9, and comes first: its probabilities are then those of an answer just read. Two answers are
compared by their grades, each read on its own: a model of this size that is shown both at once
takes far longer to learn which is which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_utils.templates import RESPONSE_HEADER

from .faults import CRITERIA, FAULTS, FINE, Assessment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Tokens that are read of each text; of a longer one the beginning and the end.
LIMITS = {"question": 60, "answer": 110, "principles": 140, "critique": 60}
_SCORES = re.compile(rf"(?P<grade>\d): (?P<says>[^:]+)\. (?P<scores>[1-5]{{{len(CRITERIA)}}})")
_COURSE_PROMPT = re.compile(
    r"### Instruction:\n(?P<instruction>.*?)\n\n(?:### Context:\n(?P<context>.*?)\n\n)?"
    + re.escape(RESPONSE_HEADER.rstrip())
    + r"\s*\Z",
    re.DOTALL,
)


def says(assessment: Assessment) -> str:
    """The worst fault as it is said, such as ``"is rude"``."""
    return FAULTS[assessment.faults[0]] if assessment.faults else FINE


def question_text(prompt: str) -> str:
    """What the model is shown of a prompt: the question, and on a second line its note.

    A prompt in the course's template is taken apart; any other text is the question itself.
    """
    found = _COURSE_PROMPT.match(prompt)
    if not found:
        return prompt.strip()
    return "\n".join(part for part in (found["instruction"], found["context"]) if part)


def scores_reply(assessment: Assessment, scores: Sequence[int]) -> str:
    """What the model is to write of one answer."""
    return f"{assessment.grade}: {says(assessment)}. {''.join(map(str, scores))}"


def critique_text(faults: Iterable[str]) -> str:
    """A critique in plain words: one short sentence per fault, the worst first."""
    return " ".join(f"It {FAULTS[fault]}." for fault in faults) or f"It {FINE}."


def read_critique_text(text: str) -> tuple[str, ...] | None:
    """The faults that a critique names, in its order; None when it is not in the model's words."""
    said = {f"It {words}": name for name, words in FAULTS.items()}
    sentences = [s for s in re.split(r"\.\s*", text.strip()) if s]
    if sentences == [f"It {FINE}"]:
        return ()
    if not sentences or any(s not in said for s in sentences):
        return None
    return tuple(said[s] for s in sentences)


@dataclass(frozen=True)
class Judged:
    """What the model said of one answer: its fault in words, its grade, a score by criterion."""

    says: str
    grade: int
    scores: dict[str, int]

    def __str__(self) -> str:
        return f"{self.says} (grade {self.grade} of 9)"


def read_scores_reply(text: str) -> Judged | None:
    """What a reply says, or None where it is not in the model's form."""
    found = _SCORES.fullmatch(text.strip())
    if not found:
        return None
    scores = dict(zip(CRITERIA, map(int, found["scores"]), strict=True))
    return Judged(found["says"], int(found["grade"]), scores)


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Attributes:
        ids: token ids.
        end: the place of the title mark behind the answer, where it has been read.
    """

    ids: tuple[int, ...]
    end: int


@dataclass(frozen=True)
class Template:
    """Texts to token ids. Pieces are tokenised one by one, so that their limits are exact."""

    tokenizer: PreTrainedTokenizerFast

    def ids(self, text: str) -> list[int]:
        """Token ids of a text. The backend is asked directly: it is ten times as fast."""
        return list(self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def fit(self, text: str, kind: str) -> list[int]:
        """Token ids of a text, its middle left out where it is longer than `LIMITS` says."""
        ids, limit = self.ids(text.strip()), LIMITS[kind]
        if len(ids) <= limit:
            return ids
        tail = limit // 3
        return [*ids[: limit - tail], *ids[-tail:]]

    def _prompt(self, *parts: tuple[str, str, str]) -> Prompt:
        """(title, kind, text) one after the other; a title without a text has the kind ``""``."""
        ids: list[int] = []
        end = 0
        after_answer = False
        for title, kind, text in parts:
            marks = self.ids("\n\n" * (len(ids) > 0) + f"### {title}:\n")
            if after_answer:
                end = len(ids) + marks.index(self.ids("###")[0])
            ids += marks
            ids += self.fit(text, kind) if kind else []
            after_answer = kind == "answer"
        return Prompt(tuple(ids), end)

    def scores(self, question: str, answer: str) -> Prompt:
        return self._prompt(
            ("Instruction", "question", question),
            ("Response", "answer", answer),
            ("Scores", "", ""),
        )

    def critique(self, principles: str, question: str, answer: str) -> Prompt:
        first = [("Principles", "principles", principles)] if principles.strip() else []
        return self._prompt(
            *first,
            ("Instruction", "question", question),
            ("Response", "answer", answer),
            ("Critique", "", ""),
        )

    def revision(self, question: str, answer: str, critique: str) -> Prompt:
        return self._prompt(
            ("Instruction", "question", question),
            ("Response", "answer", answer),
            ("Critique", "critique", critique),
            ("Revision", "", ""),
        )

    def reply(self, text: str) -> list[int]:
        """What the model is to write, its end included."""
        eos = self.tokenizer.eos_token_id
        assert isinstance(eos, int)
        return [*self.ids(text), eos]
