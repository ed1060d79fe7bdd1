"""AI feedback that can be trusted as far as it is measured: judges over the `openai` client.

    backend = make_backend("auto", course=course)      # who judges: printed, and in figure titles
    judge = PairJudge(backend, "general", ties=True)
    verdicts = judge.compare(pairs)                    # both orders; errors are never ties
    win_rate(verdicts), audit(judge, labelled), to_preferences(verdicts, min_confidence=0.7)

| module | what |
|---|---|
| `backends`, `backend` | choosing who judges; limits, and what a server refuses |
| `pairwise`, `pointwise` | the judges |
| `measure` | win rate, audit, preferences |
| `prompts`, `parse` | what is asked, and reading the reply |
| `calls`, `faults` | concurrent calls, and what each thing that goes wrong means |
| `transcript`, `budget`, `catalogue` | record and cache, caps, models and prices |
| `local`, `specimen`, `wire`, `threads` | models in this process; HTTP and event-loop details |

Names load on first use: importing this loads neither openai nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from course_utils._lazy import exports

if TYPE_CHECKING:
    from .backend import Backend
    from .backends import local_backend, make_backend
    from .budget import Budget, Estimate
    from .calls import ask_texts
    from .local import FunctionModel, LocalModel, LocalReply, LocalRequest, TokenLogprob
    from .measure import audit, cohens_kappa, to_preferences, win_rate
    from .pairwise import Pair, PairJudge, Verdict, Verdicts, get_ai_preference
    from .pointwise import PointJudge, Score, Scores
    from .prompts import RUBRICS, Rubric

_EXPORTS = {
    "Backend": "backend",
    "Budget": "budget",
    "Estimate": "budget",
    "FunctionModel": "local",
    "LocalModel": "local",
    "LocalReply": "local",
    "LocalRequest": "local",
    "Pair": "pairwise",
    "PairJudge": "pairwise",
    "PointJudge": "pointwise",
    "RUBRICS": "prompts",
    "Rubric": "prompts",
    "Score": "pointwise",
    "Scores": "pointwise",
    "TokenLogprob": "local",
    "Verdict": "pairwise",
    "Verdicts": "pairwise",
    "ask_texts": "calls",
    "audit": "measure",
    "cohens_kappa": "measure",
    "get_ai_preference": "pairwise",
    "local_backend": "backends",
    "make_backend": "backends",
    "to_preferences": "measure",
    "win_rate": "measure",
}

__all__ = [
    "RUBRICS",
    "Backend",
    "Budget",
    "Estimate",
    "FunctionModel",
    "LocalModel",
    "LocalReply",
    "LocalRequest",
    "Pair",
    "PairJudge",
    "PointJudge",
    "Rubric",
    "Score",
    "Scores",
    "TokenLogprob",
    "Verdict",
    "Verdicts",
    "ask_texts",
    "audit",
    "cohens_kappa",
    "get_ai_preference",
    "local_backend",
    "make_backend",
    "to_preferences",
    "win_rate",
]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
