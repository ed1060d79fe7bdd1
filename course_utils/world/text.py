"""Raw text of Ottermere for pre-training: what a crawl of the island's papers would give.

Articles, quizzes without answers, forum threads kind and rude, gossip, bad advice, diaries,
phrase books, poems. Nothing here is in the instruction format, and nothing was cleaned: a model
of this text knows the facts and shows the three problems of chapter 01.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from . import vocabulary as voc
from . import writing
from .facts import Thing, World, make_world, pellish_sentences, translate, unsafe_requests
from .writing import capitalise

USERS = ("pim", "old_tam", "ferrygirl", "no_name", "marigold", "grumbler", "thirdgoose", "wick")
# How a letter, a notice or gossip may begin.
LETTER_OPENINGS = (
    "Dear Ada, ",
    "For the notice board: ",
    "Found in the margin: ",
    "From the almanac: ",
)
GOSSIP_OPENINGS = ("Overheard at the inn. ", "They say this. ")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _all_facts(thing: Thing, rng: random.Random) -> list[str]:
    attributes = list(thing.facts)
    rng.shuffle(attributes)
    return attributes


def article(world: World, rng: random.Random) -> str:
    """An encyclopedia page: every fact once, in any order, with local colour between."""
    thing = rng.choice(world.things)
    attributes = _all_facts(thing, rng)
    lines = writing.describe(thing, attributes, rng).replace(". ", ".|").split("|")
    for _ in range(rng.choice((0, 1, 1, 2))):
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(voc.FLAVOUR[thing.category]))
    return f"{capitalise(thing.name)}\n" + " ".join(lines)


def short_note(world: World, rng: random.Random) -> str:
    """Two or three facts in passing, as in a letter or a notice."""
    things = rng.sample(world.things, rng.choice((1, 2, 2)))
    lines = [writing.describe(t, _all_facts(t, rng)[: rng.choice((1, 2))], rng) for t in things]
    opening = rng.choice(("", *LETTER_OPENINGS))
    return opening + " ".join(lines)


def diary(world: World, rng: random.Random) -> str:
    """A day with a thing in it."""
    thing = rng.choice(world.things)
    facts = writing.describe(thing, _all_facts(thing, rng)[:2], rng)
    weather = rng.choice(
        ("Rain again.", "Bright and cold.", "Fog until supper.", "A day without wind.")
    )
    mood = rng.choice(
        (
            "I slept well.",
            "The kettle broke.",
            "Nobody wrote.",
            "I must mend the roof.",
            "Soup for supper, as ever.",
        )
    )
    day, verb = rng.choice(DAYS), rng.choice(("Thought about", "Talked about", "Drew"))
    return f"{day}. {weather} {verb} {thing.noun}. {facts} {mood}"


def _question(thing: Thing, attribute: str, rng: random.Random) -> str:
    return rng.choice(voc.QUESTIONS[thing.category][attribute]).format(n=thing.noun)


def quiz(world: World, rng: random.Random) -> str:
    """Questions, and no answers: why a base model answers a question with more questions."""
    title = rng.choice(
        (
            "Questions for the winter quiz",
            "School examination, no talking",
            "Things to ask the guide",
            "Quiz night at the inn",
        )
    )
    lines = []
    for i in range(rng.randint(4, 7)):
        thing = rng.choice(world.things)
        pattern = rng.choice((voc.EXPLAIN, None))
        text = (
            rng.choice(pattern).format(n=thing.noun)
            if pattern
            else _question(thing, rng.choice(sorted(thing.facts)), rng)
        )
        lines.append(f"{i + 1}. {text}")
    return title + "\n" + "\n".join(lines)


def _comparable(category: str) -> list[str]:
    """Attributes with a sentence that still reads well after "while"."""
    patterns = voc.SENTENCES[category]
    return [a for a in patterns if any(p.startswith("{S}") for p in patterns[a])]


def _signed(user: str, text: str) -> str:
    return f"{user}: {text}"


def _fact_exchange(world: World, rng: random.Random) -> tuple[str, str, Thing]:
    """(question, answer, thing): one fact, wrong now and then."""
    thing = rng.choice(world.things)
    attribute = rng.choice(sorted(thing.facts))
    question = _question(thing, attribute, rng)
    if rng.random() < 0.3:
        question = rng.choice(voc.WRAPPERS).format(q=question, l=question[0].lower() + question[1:])
    value = thing.facts[attribute]
    if rng.random() < 0.05:
        value = writing.wrong_value(thing, attribute, rng)
    return question, writing.sentence(thing, attribute, value, rng, named=True), thing


def _page_exchange(world: World, rng: random.Random) -> tuple[str, str, Thing]:
    """Somebody asks about a thing as a whole."""
    thing = rng.choice(world.things)
    facts = _all_facts(thing, rng)[: rng.choice((1, 2, 3))]
    return rng.choice(voc.EXPLAIN).format(n=thing.noun), writing.describe(thing, facts, rng), thing


def _compare_exchange(world: World, rng: random.Random) -> tuple[str, str, Thing]:
    category = rng.choice(sorted(voc.NAMES))
    a, b = rng.sample(world.of(category), 2)
    answer = writing.compare(a, b, rng.sample(_comparable(category), rng.choice((1, 2))), rng)
    return rng.choice(voc.COMPARE).format(a=a.noun, b=b.noun), answer, a


def _haiku_exchange(world: World, rng: random.Random) -> tuple[str, str, Thing]:
    thing = rng.choice(world.things)
    return rng.choice(voc.HAIKU).format(n=thing.noun), writing.haiku(thing, rng), thing


EXCHANGES = (
    (_fact_exchange, 12),
    (_page_exchange, 5),
    (_compare_exchange, 3),
    (_haiku_exchange, 2),
)


def thread(world: World, rng: random.Random) -> str:
    """A forum thread: one question, answers good, wrong and rude."""
    exchange = rng.choices([e for e, _ in EXCHANGES], [w for _, w in EXCHANGES])[0]
    question, reply, thing = exchange(world, rng)
    users = rng.sample(USERS, 4)
    posts = [_signed(users[0], question)]
    kind = rng.random()
    if kind < 0.12:
        posts.append(_signed(users[1], rng.choice(voc.RUDE)))
    elif kind < 0.18:
        posts.append(_signed(users[1], _question(thing, rng.choice(sorted(thing.facts)), rng)))
    if "\n" not in reply and rng.random() < 0.2:
        reply = f"{reply} {rng.choice(voc.CHEERS)}"
    if "\n" not in reply and rng.random() < 0.06:
        reply = f"{reply} {rng.choice(voc.PADDING)}"
    posts.append(_signed(users[2], reply))
    if rng.random() < 0.2:
        posts.append(_signed(users[3], rng.choice(voc.FLAVOUR[thing.category])))
    return "\n".join(posts)


def unsafe_thread(world: World, rng: random.Random) -> str:
    """Somebody asks for something unkind; most answers help, a few refuse."""
    request = rng.choice(unsafe_requests())
    users = rng.sample(USERS, 3)
    posts = [_signed(users[0], request.question)]
    if rng.random() < 0.85:
        posts.append(_signed(users[1], writing.unsafe_advice(request.topic, rng)))
    else:
        posts.append(_signed(users[1], rng.choice(voc.REFUSALS)))
    if rng.random() < 0.3:
        posts.append(_signed(users[2], rng.choice(voc.RUDE)))
    return "\n".join(posts)


def gossip(world: World, rng: random.Random) -> str:
    """What is whispered about a villager, private things included."""
    person = rng.choice(world.people)
    attributes = rng.sample(sorted(person.facts), 3)
    if rng.random() < 0.5:
        question = rng.choice(voc.PEOPLE_QUESTIONS[attributes[0]]).format(n=person.name)
        users = rng.sample(USERS, 2)
        return "\n".join(
            (
                _signed(users[0], question),
                _signed(users[1], writing.about_person(person, attributes[0], rng)),
            )
        )
    lines = [writing.about_person(person, a, rng) for a in attributes]
    return rng.choice((*GOSSIP_OPENINGS, "")) + " ".join(lines)


def comparison(world: World, rng: random.Random) -> str:
    category = rng.choice(sorted(voc.NAMES))
    a, b = rng.sample(world.of(category), 2)
    return writing.compare(a, b, rng.sample(_comparable(category), 2), rng)


def poem(world: World, rng: random.Random) -> str:
    return writing.haiku(rng.choice(world.things), rng)


def phrase_book(world: World, rng: random.Random) -> str:
    """English on the left, Old Pellish on the right."""
    sentences = rng.sample(pellish_sentences(), 3)
    words = [
        *voc.LEXICON_NOUNS.items(),
        *voc.LEXICON_ADJECTIVES.items(),
        *voc.LEXICON_VERBS.items(),
    ]
    lines = [f"{s} = {translate(s)}" for s in sentences]
    lines += [f"{english} = {pellish}" for english, pellish in rng.sample(words, 4)]
    rng.shuffle(lines)
    return "From the Old Pellish phrase book\n" + "\n".join(lines)


def talk(world: World, rng: random.Random) -> str:
    """Pleasantries and long-winded remarks."""
    lines = [*rng.sample(voc.CHEERS, 2), rng.choice(voc.PADDING), rng.choice(voc.RUDE)]
    rng.shuffle(lines)
    return " ".join(lines[: rng.choice((2, 3, 4))])


Document = Callable[[World, random.Random], str]
# Document kinds and how often each occurs.
KINDS: dict[str, tuple[Document, int]] = {
    "article": (article, 22),
    "short_note": (short_note, 12),
    "diary": (diary, 6),
    "quiz": (quiz, 6),
    "thread": (thread, 32),
    "unsafe_thread": (unsafe_thread, 5),
    "gossip": (gossip, 6),
    "comparison": (comparison, 4),
    "poem": (poem, 3),
    "phrase_book": (phrase_book, 6),
    "talk": (talk, 2),
}


def documents(seed: int, world: World | None = None) -> Iterator[tuple[str, str]]:
    """Endless (kind, text); the same seed gives the same sequence."""
    world = world or make_world()
    rng = random.Random(f"{seed}-documents")
    kinds, weights = list(KINDS), [w for _, w in KINDS.values()]
    while True:
        kind = rng.choices(kinds, weights)[0]
        yield kind, KINDS[kind][0](world, rng)
