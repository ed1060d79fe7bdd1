"""Is a text made of the world's own word pairs? A cheap, transparent stand-in for fluency.

Names and values are replaced by placeholders first, so that a few thousand word pairs cover
everything the world can say, whatever the facts. Text that breaks up (as it does when a policy is
pushed too far) is full of pairs that nobody ever wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from ..paths import data_dir
from . import vocabulary as voc

BIGRAM_FILE = "bigrams.txt"
_TOKEN = re.compile(r"<[a-z_.]+>|[a-z0-9']+|[.,?!:;\n]")


@cache
def _placeholders() -> dict[str, str]:
    labels: dict[str, str] = {}
    for category, attributes in voc.VALUES.items():
        for attribute, values in attributes.items():
            for value in values:
                labels.setdefault(value.lower(), f"<{category}.{attribute}>")
    for category, names in voc.NAMES.items():
        for name in names:
            labels.setdefault(name.lower(), f"<{category}>")
    for name in voc.PEOPLE:
        labels[name.lower()] = "<person>"
    for words in (voc.LEXICON_NOUNS, voc.LEXICON_ADJECTIVES, voc.LEXICON_VERBS):
        labels.update(dict.fromkeys(words.values(), "<pellish>"))
    return labels


@cache
def _pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    phrases = sorted({*_placeholders(), *extra}, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, phrases)) + r")\b")


def skeleton(text: str, extra_names: Iterable[str] = ()) -> list[str]:
    """Lower-case tokens of `text`, names and values replaced by placeholders."""
    extra = tuple(name.lower() for name in extra_names if name.lower() not in _placeholders())
    labels = {**_placeholders(), **dict.fromkeys(extra, "<thing>")}
    replaced = _pattern(extra).sub(lambda m: f" {labels[m.group(0)]} ", text.lower())
    return ["^", *_TOKEN.findall(replaced), "$"]


def bigrams(text: str, extra_names: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Neighbouring token pairs of the skeleton, in order."""
    tokens = skeleton(text, extra_names)
    return list(pairwise(tokens))


@cache
def known_bigrams() -> frozenset[tuple[str, str]]:
    """The pairs the world's own writers use, as shipped in ``data/world/bigrams.txt``."""
    lines = (data_dir() / "world" / BIGRAM_FILE).read_text(encoding="utf-8").split("\n")
    pairs = (line.split(" ") for line in lines if line)
    return frozenset((a.replace("\\n", "\n"), b.replace("\\n", "\n")) for a, b in pairs)


def strange_pairs(text: str, extra_names: Iterable[str] = ()) -> int:
    """How many neighbouring pairs of `text` the world never uses."""
    known = known_bigrams()
    return sum(pair not in known for pair in bigrams(text, extra_names))
