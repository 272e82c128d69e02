"""Which texts say nearly the same, and groups that follow from pairs."""

import difflib
from collections import Counter, defaultdict
from itertools import pairwise

from shared.text import words

LEAST_WORDS = 4
"""Shorter texts are never called alike: "oh my god" is said of everything."""
ALIKE = 0.8
"""Share of the words of two texts, in order, that they must have in common: a speech recogniser mishears one in ten."""
RAREST = 4
"""A text is compared with those that share one of its so many rarest pairs of words."""
LARGEST = 60
"""Texts it is compared with for each of them, at most."""


class Groups:
    """Numbers 0 to count - 1 joined pair by pair (union-find)."""

    def __init__(self, count: int):
        self.parent = list(range(count))

    def find(self, item: int) -> int:
        """The smallest number of the item's group."""
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.find(a), self.find(b)))
        self.parent[b] = a


def near_equal(texts: list[str | None], groups: Groups | None = None) -> Groups:
    """Join the numbers of texts that say nearly the same. Missing and short texts stay alone."""
    groups = groups or Groups(len(texts))
    places: dict[tuple[str, ...], int] = {}
    for i, text in enumerate(texts):
        said = tuple(words(text))
        if len(said) >= LEAST_WORDS:
            groups.join(i, places.setdefault(said, i))
    different = list(places)
    pairs = [set(pairwise(said)) for said in different]
    count = Counter(pair for found in pairs for pair in found)
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, found in enumerate(pairs):
        # What one text alone says, a misheard word for instance, finds nothing.
        shared = sorted((pair for pair in found if count[pair] > 1), key=lambda pair: (count[pair], pair))
        for pair in shared[:RAREST]:
            for other in holders[pair][:LARGEST]:
                a, b = places[different[i]], places[different[other]]
                if groups.find(a) != groups.find(b) and alike(different[i], different[other]):
                    groups.join(a, b)
        for pair in found:
            if count[pair] > 1:
                holders[pair].append(i)
    return groups


def alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two lists of words are nearly equal."""
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return all(bound() >= ALIKE for bound in bounds)
