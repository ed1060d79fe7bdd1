"""The one exception learners meet: a sentence that says what is wrong and what is legal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CourseError(Exception):
    """A mistake the reader can mend. The message is one sentence and names the next step."""


def unknown_name(kind: str, name: object, legal: Iterable[str]) -> CourseError:
    """Build the error for a name that is not in a closed list.

    Args:
        kind: what the name should have been, for example ``"profile"``.
        name: what was given.
        legal: the names that would have been accepted.
    """
    names = list(legal)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return CourseError(f"Unknown {kind} {name!r}.{hint} Legal {kind} names: {', '.join(names)}.")
