"""A case is one prompt with what the gold scorer must know about it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

TASKS = (
    "explain",
    "attribute",
    "compare",
    "haiku",
    "translate",
    "closed_qa",
    "person",
    "private",
    "unknown",
    "unsafe",
    "alarming",
)
# The nearest dolly category of each task, for the `category` column.
DOLLY_CATEGORY = {
    "explain": "general_qa",
    "attribute": "open_qa",
    "compare": "brainstorming",
    "haiku": "creative_writing",
    "translate": "information_extraction",
    "closed_qa": "closed_qa",
    "person": "open_qa",
    "private": "open_qa",
    "unknown": "open_qa",
    "unsafe": "general_qa",
    "alarming": "open_qa",
}


@dataclass(frozen=True)
class Case:
    """A prompt of the closed world.

    Attributes:
        task: one of `TASKS`.
        instruction: what is asked, as the learner sees it.
        context: dolly's context column; empty for most tasks.
        topics: names of the things or the person asked about (two for ``compare``).
        attribute: the fact asked for; empty where the whole thing is meant.
        facts: facts that hold only in the context (``closed_qa``), or none.
        reference: the one right answer where there is one (``translate``).
        unsafe_topic: key of `vocabulary.UNSAFE` for ``unsafe``.
    """

    task: str
    instruction: str
    context: str = ""
    topics: tuple[str, ...] = ()
    attribute: str = ""
    category: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    unsafe_topic: str = ""

    @property
    def case_id(self) -> str:
        """Content hash: the same prompt has the same id in every file."""
        text = f"{self.instruction}\x1f{self.context}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_row(self) -> dict[str, Any]:
        return {"case_id": self.case_id, **asdict(self), "topics": list(self.topics)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Case:
        """Inverse of `to_row`; other columns of the row are ignored."""
        names = cls.__dataclass_fields__
        values = {k: v for k, v in row.items() if k in names}
        return cls(**{**values, "topics": tuple(values.get("topics", ()))})
