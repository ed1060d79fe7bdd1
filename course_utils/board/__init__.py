"""The leaderboard: every policy measured on the same prompts in the same way.

    row = board.measure(course, model, tokenizer)          # any policy, one row
    board.place(course, "runs/tiny/...", name="mine")      # measured and kept beside the others
    rows = [*board.recorded(), *board.own_rows(course)]
    board.verdicts(rows)                                   # who beats whom, corrected for how many

| module | what |
|---|---|
| `prompts` | what is asked, and the refusal of prompts that somebody was taught |
| `policies` | models, folders and functions, asked alike |
| `measuring`, `rows` | one measurement for all; one line of the board |
| `statistics` | all pairs of a board, Holm's correction |
| `storage` | JSON lines on disk |
| `leaderboard` | the recorded sweep: each method trained with three seeds |
| `summary`, `figures`, `command` | tables, pictures, `python -m course_utils board` |

Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from course_utils._lazy import exports

if TYPE_CHECKING:
    from .measuring import Costs, measure, place, sft_answers, world_judge
    from .policies import Policy, as_policy, best_of
    from .prompts import board_prompts, fingerprint, refuse_repeats
    from .rows import Row
    from .statistics import Comparison, compare_all, holm
    from .storage import own_rows, read_rows, recorded
    from .summary import against, as_text, report, scores, summarise, verdicts

_EXPORTS = {
    "Comparison": "statistics",
    "Costs": "measuring",
    "Policy": "policies",
    "Row": "rows",
    "against": "summary",
    "as_policy": "policies",
    "as_text": "summary",
    "best_of": "policies",
    "board_prompts": "prompts",
    "compare_all": "statistics",
    "fingerprint": "prompts",
    "holm": "statistics",
    "measure": "measuring",
    "own_rows": "storage",
    "place": "measuring",
    "read_rows": "storage",
    "recorded": "storage",
    "refuse_repeats": "prompts",
    "report": "summary",
    "scores": "summary",
    "sft_answers": "measuring",
    "summarise": "summary",
    "verdicts": "summary",
    "world_judge": "measuring",
}

__all__ = [
    "Comparison",
    "Costs",
    "Policy",
    "Row",
    "against",
    "as_policy",
    "as_text",
    "best_of",
    "board_prompts",
    "compare_all",
    "fingerprint",
    "holm",
    "measure",
    "own_rows",
    "place",
    "read_rows",
    "recorded",
    "refuse_repeats",
    "report",
    "scores",
    "sft_answers",
    "summarise",
    "verdicts",
    "world_judge",
]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
