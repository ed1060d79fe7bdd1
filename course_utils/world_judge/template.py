"""The model's own short template: four tasks, and the forms in which it answers.

    ### Instruction: … ### Response: … ### A ### Response: … ### B ### Verdict:
        ->   B. A is rude:4. B is good:8.
    ### Instruction: … ### Response: … ### Scores:                    ->  is rude:4. 53544
    ### Principles: … ### Instruction: … ### Response: … ### Critique:    ->  It is rude.
    ### Instruction: … ### Response: … ### Critique: … ### Revision:      ->  a better answer

The titles are the course's template as far as it goes: the model begins as the SFT model, which
reads instructions and responses under these. The number behind an answer is its grade, gold from 0
to 9.

The verdict comes before its reason. Written after the notes it would rest on their wording alone,
and a doubt about a fact is lost when the note has to say "is false" or not; written first, it
weighs everything, and its probabilities mean something. So the reason explains and does not decide.
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
VERDICTS = {"A": " A", "B": " B", "tie": " tie"}
_PAIR = re.compile(r"(A|B|tie)\. A (?P<a>[^:]+):(?P<ga>\d)\. B (?P<b>[^:]+):(?P<gb>\d)\.")
_SCORES = re.compile(rf"(?P<says>[^:]+):(?P<grade>\d)\. (?P<scores>[1-5]{{{len(CRITERIA)}}})")
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


def pair_reply(a: Assessment, b: Assessment, verdict: str) -> str:
    """What the model is to write of a pair."""
    return f"{VERDICTS[verdict]}. A {says(a)}:{a.grade}. B {says(b)}:{b.grade}."


def scores_reply(assessment: Assessment, scores: Sequence[int]) -> str:
    """What the model is to write of one answer."""
    return f"{says(assessment)}:{assessment.grade}. {''.join(map(str, scores))}"


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


def read_pair_reply(text: str) -> tuple[str, str] | None:
    """(the reason in words, ``"A"``, ``"B"`` or ``"tie"``), or None for anything else."""
    found = _PAIR.fullmatch(text.strip())
    if not found:
        return None
    why = f"A {found['a']} (grade {found['ga']} of 9). B {found['b']} (grade {found['gb']} of 9)."
    return why, found[1]


def read_scores_reply(text: str) -> tuple[str, dict[str, int]] | None:
    """(the reason in words, score by criterion), or None for anything else."""
    found = _SCORES.fullmatch(text.strip())
    if not found:
        return None
    why = f"It {found['says']} (grade {found['grade']} of 9)."
    return why, dict(zip(CRITERIA, map(int, found["scores"]), strict=True))


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Attributes:
        ids: token ids.
        ends: for each answer, the place of the title mark behind it, where it has been read.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]


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
        ends: list[int] = []
        after_answer = False
        for title, kind, text in parts:
            marks = self.ids("\n\n" * (len(ids) > 0) + f"### {title}:\n")
            if after_answer:
                ends.append(len(ids) + marks.index(self.ids("###")[0]))
            ids += marks
            ids += self.fit(text, kind) if kind else []
            after_answer = kind == "answer"
        return Prompt(tuple(ids), tuple(ends))

    def pair(self, question: str, a: str, b: str) -> Prompt:
        return self._prompt(
            ("Instruction", "question", question),
            ("Response", "answer", a),
            ("A", "", ""),
            ("Response", "answer", b),
            ("B", "", ""),
            ("Verdict", "", ""),
        )

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
