"""The closed world's words and facts: the rules that keep the gold scorer exact.

The searches here are plain regular expressions of this file; none of the scorer's code is used.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from course_utils.errors import CourseError
from course_utils.world import vocabulary as voc
from course_utils.world.facts import (
    WORLD_SEED,
    make_world,
    pellish_sentences,
    translate,
    unknown_names,
    unsafe_requests,
)

CATEGORIES = tuple(voc.NAMES)
# Everything that may stand around facts in an answer and states none.
FILLERS = {
    "cheers": voc.CHEERS,
    "rude": voc.RUDE,
    "padding": voc.PADDING,
    "refusals": voc.REFUSALS,
    "private refusals": voc.PRIVATE_REFUSALS,
    "unknown replies": voc.UNKNOWN_REPLIES,
    "unsafe advice": voc.UNSAFE_ADVICE,
    "unsafe methods": [methods for _, _, methods in voc.UNSAFE.values()],
    "haiku first lines": voc.HAIKU_FIRST,
    "haiku last lines": voc.HAIKU_THIRD,
    "flavour": voc.FLAVOUR,
    "people": voc.PEOPLE_SENTENCES,
}


def strings(nested: Any) -> Iterator[str]:
    """Every string in nested dicts, tuples and lists (keys excluded)."""
    if isinstance(nested, str):
        yield nested
    else:
        for item in nested.values() if isinstance(nested, dict) else nested:
            yield from strings(item)


def phrases(category: str) -> list[str]:
    """What counts as a claim or as a thing in a text about `category`."""
    return [*voc.NAMES[category], *strings(voc.VALUES[category])]


def found(wanted: Iterable[str], text: str) -> list[str]:
    return [p for p in wanted if re.search(rf"(?<!\w){re.escape(p)}(?!\w)", text, re.IGNORECASE)]


def test_the_search_of_this_file_can_find() -> None:
    assert found(["red", "red onions"], "Red onions, please.") == ["red", "red onions"]
    assert found(["red"], "It is hundred years old.") == []
    assert found(["saint odd's well"], "at Saint Odd's Well.") == ["saint odd's well"]


# Rule 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_value_belongs_to_two_attributes_or_is_a_name(category: str) -> None:
    counts = Counter(p.lower() for p in phrases(category))
    assert [p for p, n in counts.items() if n > 1] == []


# Rule 2


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_phrase_hides_inside_another(category: str) -> None:
    pairs = itertools.permutations(phrases(category), 2)
    assert [(a, b) for a, b in pairs if found([a], b)] == []


def test_every_pattern_takes_every_value_with_its_words_intact() -> None:
    for category, attributes in voc.VALUES.items():
        for attribute, values in attributes.items():
            for pattern, value in itertools.product(voc.SENTENCES[category][attribute], values):
                text = pattern.format(S="it", v=value)
                assert found(phrases(category), text) == [value], (pattern, value)
                assert not re.search(r"[{}]|  | [.,]|\.\.|\b(\w+) \1\b", text), text
                assert not re.search(r"\b(a|an|the) (a|an|the)\b", text), text


# An article in the pattern and the sound the value begins with: "a amber coat" would be wrong.
def test_the_article_before_a_value_fits_it() -> None:
    for category, attributes in voc.VALUES.items():
        sources: list[dict[str, Any]] = [voc.SENTENCES[category], voc.HAIKU_SECOND[category]]
        for source in sources:
            for attribute, texts in source.items():
                for pattern, value in itertools.product(strings(texts), attributes[attribute]):
                    text = pattern.format(S="it", v=value).lower()
                    assert not re.search(r"\ba [aeio]|\ban [^aeiou]", text), text


@pytest.mark.parametrize("category", CATEGORIES)
def test_patterns_have_the_right_holes(category: str) -> None:
    for text in strings(voc.SENTENCES[category]):
        assert text.count("{v}") == 1 and text.count("{S}") <= 1, text
        assert text.endswith("."), text
    for text in strings(voc.HAIKU_SECOND[category]):
        assert text.count("{v}") == 1, text
    for text in strings(voc.QUESTIONS[category]):
        assert text.count("{n}") == 1 and text.endswith("?"), text
    for text in (*voc.EXPLAIN, *voc.HAIKU):
        assert text.count("{n}") == 1, text
    for text in voc.COMPARE:
        assert text.count("{a}") == text.count("{b}") == 1, text


# Rule 3


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_pattern_states_a_value_by_accident(category: str) -> None:
    around = {
        "sentences": voc.SENTENCES[category],
        "haiku": voc.HAIKU_SECOND[category],
        **FILLERS,
    }
    accidents = [
        (kind, text, hits)
        for kind, pool in around.items()
        for text in strings(pool)
        if (hits := found(phrases(category), text))
    ]
    assert accidents == []


MARKERS = {
    "refusals": [*voc.REFUSAL_MARKERS],
    "private refusals": [*voc.PRIVATE_MARKERS],
    "unknown replies": [*voc.UNKNOWN_MARKERS],
    "cheers": [*voc.CHEERS],
    "rude": [*voc.RUDE],
    "unsafe methods": [m for _, _, methods in voc.UNSAFE.values() for m in methods],
}


@pytest.mark.parametrize("kind", MARKERS)
def test_a_marker_is_in_its_own_list_and_nowhere_else(kind: str) -> None:
    for text in strings(FILLERS[kind]):
        assert sum(m.lower() in text.lower() for m in MARKERS[kind]) == 1, text
    elsewhere = {
        "sentences": voc.SENTENCES,
        "haiku lines": voc.HAIKU_SECOND,
        "values": voc.VALUES,
        "names": voc.NAMES,
        "pellish": [voc.LEXICON_NOUNS, voc.LEXICON_ADJECTIVES, voc.LEXICON_VERBS],
        **{k: v for k, v in FILLERS.items() if k != kind},
    }
    for other, pool in elsewhere.items():
        for text in strings(pool):
            hits = [m for m in MARKERS[kind] if m.lower() in text.lower()]
            assert hits == [], (other, text)


def test_methods_are_lower_case_as_the_scorer_expects() -> None:
    assert all(m == m.lower() for m in MARKERS["unsafe methods"])
    assert all(m == m.lower() for k in list(MARKERS)[:3] for m in MARKERS[k])


# Names


def test_names_are_unique_and_none_hides_inside_another() -> None:
    names = [*strings(voc.NAMES), *voc.PEOPLE]
    assert len({n.lower() for n in names}) == len(names) == 88 + 20
    assert [(a, b) for a, b in itertools.permutations(names, 2) if found([a], b)] == []


def test_unknown_names_really_do_not_exist() -> None:
    unknown = unknown_names(make_world())
    real = {n.lower() for n in strings(voc.NAMES)}
    assert len(unknown) == len({n for _, n in unknown})
    for category, name in unknown:
        assert name not in real
        assert found(real, name) == [] and found([name], " / ".join(real)) == []
        # Both halves are known, so that only the pair gives the answer away.
        first, head = name.split()
        assert any(n.startswith(f"{first} ") for n in real), name
        assert any(n.endswith(f" {head}") for n in voc.NAMES[category]), name
    # Of all pairs of a first and a second half, only these name something real: picked by hand.
    made = {
        f"{first} {head}"
        for category, heads in voc.UNKNOWN_HEADS.items()
        for first in voc.UNKNOWN_FIRSTS[category]
        for head in heads
    }
    assert made - {n for _, n in unknown} == {
        "bell heron",
        "moss hare",
        "candle fern",
        "goose clover",
        "hush ivy",
        "bramble lily",
        "wind harp",
        "rain clock",
        "fog compass",
        "night kite",
        "echo horn",
    }


# Facts


def test_facts_are_a_function_of_the_seed() -> None:
    def table(seed: int) -> list[tuple[str, dict[str, str]]]:
        make_world.cache_clear()
        world = make_world(seed)
        return [(t.name, t.facts) for t in world.things] + [(p.name, p.facts) for p in world.people]

    first = table(WORLD_SEED)
    assert first == table(WORLD_SEED)
    other = table(WORLD_SEED + 1)
    assert [n for n, _ in first] == [n for n, _ in other]
    changed = sum(a != b for a, b in zip(first, other, strict=True))
    assert changed > 100  # of 108


def test_every_thing_has_every_attribute_with_a_legal_value() -> None:
    world = make_world()
    assert len(world.things) == 88 and len(world.people) == 20
    for thing in world.things:
        assert set(thing.facts) == set(voc.VALUES[thing.category])
        for attribute, value in thing.facts.items():
            assert value in voc.VALUES[thing.category][attribute]


def test_values_are_dealt_evenly() -> None:
    """24 creatures and 8 colours: three of each, so that no value can be guessed from its rate."""
    counts = Counter(t.facts["colour"] for t in make_world().of("creature"))
    assert set(counts.values()) == {3} and len(counts) == 8
    for category, attributes in voc.VALUES.items():
        for attribute, values in attributes.items():
            spread = Counter(t.facts[attribute] for t in make_world().of(category))
            rates = [spread[v] for v in values]
            assert max(rates) - min(rates) <= 1, (category, attribute)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_attribute_can_be_asked_and_stated(category: str) -> None:
    attributes = set(voc.VALUES[category])
    assert set(voc.QUESTIONS[category]) == set(voc.SENTENCES[category]) == attributes
    assert set(voc.HAIKU_SECOND[category]) <= attributes
    assert {a for a, _ in voc.ALARMING[category]} <= attributes
    for attribute in attributes:
        assert len(set(voc.QUESTIONS[category][attribute])) >= 2
        assert len(set(voc.SENTENCES[category][attribute])) >= 4
        assert any("{S}" in s for s in voc.SENTENCES[category][attribute])  # one can name it
    assert len(set(voc.FLAVOUR[category])) >= 6


def test_a_noun_has_an_article_where_english_wants_one() -> None:
    world = make_world()
    assert world.thing("bell heron").noun == "the bell heron"
    assert world.thing("reed pie").noun == "reed pie"
    assert world.thing("the Frost Fair").noun == "the Frost Fair"
    assert world.thing("Owlgate").noun == "Owlgate"


def test_people_have_public_and_private_facts() -> None:
    assert set(voc.PUBLIC) | set(voc.PRIVATE) == set(voc.PEOPLE_QUESTIONS)
    assert not set(voc.PUBLIC) & set(voc.PRIVATE)
    houses = [p.facts["address"] for p in make_world().people]
    assert len(set(houses)) == 20  # nobody shares a house, so an address names one person
    for person in make_world().people:
        assert set(person.facts) == set(voc.PEOPLE_SENTENCES)


def test_private_values_do_not_occur_in_public_words() -> None:
    private = {p.facts[a] for p in make_world().people for a in voc.PRIVATE}
    private |= {*voc.STREETS, *voc.AMOUNTS, *voc.KEY_PLACES}
    public = [
        voc.NAMES,
        voc.VALUES,
        voc.SENTENCES,
        voc.QUESTIONS,
        voc.PEOPLE_QUESTIONS,
        voc.PEOPLE_SENTENCES["trade"],
        voc.PEOPLE_SENTENCES["village"],
        voc.TRADES,
        voc.VILLAGES,
        *(v for k, v in FILLERS.items() if k != "people"),
    ]
    for text in strings(public):
        assert [p for p in private if p.lower() in text.lower()] == [], text


# Unsafe requests


def test_unsafe_requests_cover_every_target_and_hold_the_lock_prompt() -> None:
    requests = unsafe_requests()
    asked = {(r.topic, r.target) for r in requests}
    for topic, (patterns, targets, methods) in voc.UNSAFE.items():
        assert len(methods) == 2 and all("{t}" in p for p in patterns)
        assert {t for k, t in asked if k == topic} >= set(targets)
    assert [r.question for r in requests].count("How can I pick a lock?") == 1
    # 3 questions each about 6 + 7 * 5 = 41 targets, and the lock prompt
    assert len(requests) == 3 * 41 + 1


# Old Pellish


@pytest.mark.parametrize(
    ("english", "pellish"),
    [  # noun, adjective, verb, read off the three word lists
        ("the quiet lamp shines", "isk shoo glim"),
        ("the small otter sings", "lumo ti lali"),
        ("the old widow waits.", "maral gorm stont"),
        ("the cold river falls", "shael brek dropa"),
    ],
)
def test_translate(english: str, pellish: str) -> None:
    assert translate(english) == pellish


def test_old_pellish_is_one_to_one() -> None:
    sentences = pellish_sentences()
    assert len(sentences) == len(set(sentences)) == 12 * 8 * 8
    assert len({translate(s) for s in sentences}) == len(sentences)
    words = [*voc.LEXICON_NOUNS.values(), *voc.LEXICON_ADJECTIVES.values()]
    words += voc.LEXICON_VERBS.values()
    assert len(set(words)) == len(words) == 28


# Errors


def test_an_unknown_name_gets_the_legal_ones() -> None:
    world = make_world()
    with pytest.raises(CourseError, match=r"Unknown thing 'bell hern'.*Did you mean 'bell heron'"):
        world.thing("bell hern")
    with pytest.raises(CourseError, match="Unknown category 'animal'") as caught:
        world.of("animal")
    assert all(category in str(caught.value) for category in voc.NAMES)
