"""What people say: a small grammar over the intensities. The meaning lies in how words combine, not in which occur.

A dimension that is shown is said by one of many words, as strongly as it is felt. A dimension that is not shown may be
named all the same, negated ("not funny at all") or as what was expected ("I thought it would be sad but ...").
"""

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# for each of the six dimensions: what a thing is, and how a person feels about it
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
"""Said of an intensity in the lower, middle and upper part of the scale."""
STEPS = (0.33, 0.6)
"""Where the middle and the upper part begin."""

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


def line(said: np.ndarray, topic: tuple[str, str], rng: np.random.Generator) -> str:
    """A sentence or two that say `said` (6,), intensities in [0, 1], about a topic (noun, place)."""
    noun, place = topic

    def pick(options):
        return str(options[rng.integers(len(options))])

    present = [k for k in np.argsort(-said) if said[k] > 0.1][:3]
    absent = [k for k in range(len(said)) if said[k] <= 0.1]
    mood = [_statement(k, said[k], noun, pick) for k in present]
    decoy = int(rng.choice(absent)) if absent and rng.random() < DECOYS else None
    opener, parts = pick(OPENERS), []
    if decoy is not None:
        word, about_thing = _word(decoy, pick)
        be = f"the {noun}" if rng.random() < 0.5 else pick(("it", "this"))
        if mood and rng.random() < 0.5:
            expected = (
                f"I thought {be} would be {word} but",
                f"people call {be} {word} yet",
                f"I expected something {word} and instead",
                f"it should have been {word} but",
            )
            felt = (
                f"I thought I would feel {word} but",
                f"I was supposed to be {word} yet",
                f"I expected to feel {word} and instead",
                f"I should have been {word} but",
            )
            parts.append(pick(expected if about_thing else felt))
        else:
            denied = (
                f"{be} is not {word} at all",
                f"{be} was never {word}",
                f"{be} is hardly {word}",
                f"nothing {word} about {be}",
            )
            unfelt = (
                f"I am not {word} at all",
                f"I was never {word}",
                f"I am hardly {word}",
                f"nobody could feel {word}",
            )
            mood.insert(int(rng.integers(len(mood) + 1)), pick(denied if about_thing else unfelt))
    if not mood:
        mood = [pick(PLAIN).format(topic=noun, place=place)]
    elif rng.random() < 0.5 and place:
        mood[-1] += f" {place}"
    text = " and ".join(mood)
    return " ".join([opener, *parts, text]).strip()


def _word(k: int, pick) -> tuple[str, bool]:
    """A word for dimension k, and whether it is said of a thing."""
    about_thing = pick("tf") == "t"
    return pick((THINGS if about_thing else FEELINGS)[k]), about_thing


def _statement(k: int, intensity: float, noun: str, pick) -> str:
    degree = pick(DEGREES[int(intensity > STEPS[0]) + int(intensity > STEPS[1])])
    if pick("tf") == "t":
        subject = pick((f"the {noun} is", f"the {noun} was", "it is", "this is", "that was"))
        return f"{subject} {degree} {pick(THINGS[k])}"
    return f"{pick(('I am', 'I feel', 'it makes me', 'I got', 'now I am'))} {degree} {pick(FEELINGS[k])}"


def topic(rng: np.random.Generator) -> tuple[str, str]:
    """What a seed video is about: a noun and a place or time ("" for none)."""
    return TOPICS[rng.integers(len(TOPICS))], PLACES[rng.integers(len(PLACES))]
