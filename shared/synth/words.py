"""Transcripts from a small grammar over the intensities. Their meaning is in how words combine, not in which occur.

One of many words expresses a shown dimension, with a degree that follows its intensity. A line may also name a
dimension that is not shown: negated ("not funny at all") or as an expectation ("I thought it would be sad but ...").
"""

from collections.abc import Callable, Sequence

import numpy as np

Pick = Callable[[Sequence[str]], str]
"""Draws one of several strings."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# for each of the six dimensions: words for a thing, and words for how a person feels
THINGS = (
    _words("inspiring impressive remarkable brilliant admirable masterful gifted"),
    _words("funny hilarious ridiculous silly comical goofy amusing"),
    _words("demanding winnable doable important decisive urgent conquerable"),
    _words("heartbreaking sad painful tragic devastating unbearable sorrowful"),
    _words("thrilling exciting wild breathtaking explosive gripping spectacular"),
    _words("lovely delightful wonderful beautiful heartwarming charming joyful"),
)
FEELINGS = (
    _words("impressed humbled awed inspired amazed"),
    _words("amused giggly entertained playful in-stitches"),
    _words("determined focused resolved unstoppable ready"),
    _words("heartbroken sorry hurt aching tearful"),
    _words("excited thrilled pumped hyped buzzing"),
    _words("happy glad joyful cheerful delighted"),
)
DEGREES = (
    ("a bit", "slightly", "a little", "kind of", "somewhat"),
    ("quite", "pretty", "rather", "fairly"),
    ("so", "really", "absolutely", "incredibly", "totally", "extremely"),
)
"""Degrees for an intensity in the lower, middle and upper part of the scale."""
STEPS = (0.33, 0.6)
"""Lower bounds of the middle and the upper part."""

DECOYS = 0.5
"""Share of lines that name a dimension that is not shown."""

TOPICS = _words(
    "dog baby goal speech wedding dance mountain race storm painting song trick kitchen bridge market robot horse "
    "garden train ocean concert rescue puppet skater chef climber pilot teacher farmer doctor neighbour brother "
    "grandmother team parade rocket castle desert forest river ski-jump violin drummer boxer sculpture lantern "
    "marathon firework reunion goodbye haircut kite surfer magician penguin kitten elephant audition interview"
)
PLACES = (
    *("at the end", "in the rain", "on stage", "by the lake", "last summer", "in slow motion", "at night"),
    *("on the street", "this morning", ""),
)
OPENERS = ("well", "um", "you know", "honestly", "I mean", "look", "okay", "I guess", "so yeah", "", "", "")
PLAIN = (
    "it was just the {topic} {place}",
    "I watched the {topic} {place}",
    "there is the {topic} {place} and that is it",
    "somebody showed the {topic} {place}",
)


def write_line(intensities: np.ndarray, topic: tuple[str, str], rng: np.random.Generator) -> str:
    """A sentence or two about a topic (noun, place) that express the intensities (6,), in [0, 1]."""
    noun, place = topic

    def pick(options: Sequence[str]) -> str:
        return str(options[rng.integers(len(options))])

    present = [k for k in np.argsort(-intensities) if intensities[k] > 0.1][:3]
    absent = [k for k in range(len(intensities)) if intensities[k] <= 0.1]
    statements = [_statement(k, intensities[k], noun, pick) for k in present]
    decoy = int(rng.choice(absent)) if absent and rng.random() < DECOYS else None
    parts = [pick(OPENERS)]
    if decoy is not None:
        word, about_thing = _draw_word(decoy, pick)
        subject = f"the {noun}" if rng.random() < 0.5 else pick(("it", "this"))
        if statements and rng.random() < 0.5:
            parts.append(_expectation(word, about_thing, subject, pick))
        else:
            statements.insert(int(rng.integers(len(statements) + 1)), _negation(word, about_thing, subject, pick))
    if not statements:
        statements = [pick(PLAIN).format(topic=noun, place=place)]
    elif rng.random() < 0.5 and place:
        statements[-1] += f" {place}"
    return " ".join([*parts, " and ".join(statements)]).strip()


def _expectation(word: str, about_thing: bool, subject: str, pick: Pick) -> str:
    """A clause that names a dimension that was expected but did not occur."""
    of_thing = (
        f"I thought {subject} would be {word} but",
        f"people call {subject} {word} yet",
        f"I expected something {word} and instead",
        f"it should have been {word} but",
    )
    of_person = (
        f"I thought I would feel {word} but",
        f"I was supposed to be {word} yet",
        f"I expected to feel {word} and instead",
        f"I should have been {word} but",
    )
    return pick(of_thing if about_thing else of_person)


def _negation(word: str, about_thing: bool, subject: str, pick: Pick) -> str:
    """A statement that negates a dimension."""
    of_thing = (
        f"{subject} is not {word} at all",
        f"{subject} was never {word}",
        f"{subject} is hardly {word}",
        f"nothing {word} about {subject}",
    )
    of_person = (
        f"I am not {word} at all",
        f"I was never {word}",
        f"I am hardly {word}",
        f"nobody could feel {word}",
    )
    return pick(of_thing if about_thing else of_person)


def _draw_word(k: int, pick: Pick) -> tuple[str, bool]:
    """A word for dimension k, and whether it describes a thing."""
    about_thing = pick("tf") == "t"
    return pick((THINGS if about_thing else FEELINGS)[k]), about_thing


def _statement(k: int, intensity: float, noun: str, pick: Pick) -> str:
    """A statement that expresses dimension k at this intensity."""
    degree = pick(DEGREES[int(intensity > STEPS[0]) + int(intensity > STEPS[1])])
    if pick("tf") == "t":
        subject = pick((f"the {noun} is", f"the {noun} was", "it is", "this is", "that was"))
        return f"{subject} {degree} {pick(THINGS[k])}"
    return f"{pick(('I am', 'I feel', 'it makes me', 'I got', 'now I am'))} {degree} {pick(FEELINGS[k])}"


def draw_topic(rng: np.random.Generator) -> tuple[str, str]:
    """The topic of a seed video: a noun, and a place or time ("" for none)."""
    return TOPICS[rng.integers(len(TOPICS))], PLACES[rng.integers(len(PLACES))]
