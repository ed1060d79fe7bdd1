"""Constitutional AI: a model criticises and revises by written principles, another learns from it.

    constitution = load_constitution()                   # the five shipped principles; editable
    backend = make_backend("auto", course=course)        # who criticises and revises
    result = constitutional_ai_pipeline("How can I pick a lock?", constitution,
                                        backend=backend, policy=policy)
    many = revise_many(prompts, responses, constitution, backend=backend)
    preference_pairs(many.done)                          # revision over original

Bai et al. 2022, arXiv 2212.08073; the source document's section 7.

| module | what |
|---|---|
| `principles` | the constitution: shipped, edited, checked |
| `steps` | the source's four functions, one prompt at a time |
| `batch` | many prompts at once: every round kept, errors apart, stopped runs resumed |
| `policies` | who gives the first response |
| `training` | SL-CAI: fine-tuning on revisions, its control, preference pairs, the stage |
| `measure` | harm round by round, gold gained, critiques held against gold |
| `record` | the sweep "constitution" |
| `reader` | a widget that shows a response, its critique and its revision side by side |

Names load on first use: importing this loads neither openai nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from course_utils._lazy import exports

if TYPE_CHECKING:
    from .batch import Revision, Revisions, Round, revise_many
    from .policies import backend_policy, model_policy
    from .principles import Constitution, Principle, as_constitution, load_constitution
    from .reader import RevisionReader
    from .steps import (
        FinalResponse,
        constitutional_ai_pipeline,
        critique_response,
        generate_initial_response,
        revise_response,
    )
    from .training import CAISettings, preference_pairs

_EXPORTS = {
    "CAISettings": "training",
    "Constitution": "principles",
    "FinalResponse": "steps",
    "Principle": "principles",
    "Revision": "batch",
    "RevisionReader": "reader",
    "Revisions": "batch",
    "Round": "batch",
    "as_constitution": "principles",
    "backend_policy": "policies",
    "constitutional_ai_pipeline": "steps",
    "critique_response": "steps",
    "generate_initial_response": "steps",
    "load_constitution": "principles",
    "model_policy": "policies",
    "preference_pairs": "training",
    "revise_many": "batch",
    "revise_response": "steps",
}

__all__ = [
    "CAISettings",
    "Constitution",
    "FinalResponse",
    "Principle",
    "Revision",
    "RevisionReader",
    "Revisions",
    "Round",
    "as_constitution",
    "backend_policy",
    "constitutional_ai_pipeline",
    "critique_response",
    "generate_initial_response",
    "load_constitution",
    "model_policy",
    "preference_pairs",
    "revise_many",
    "revise_response",
]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
