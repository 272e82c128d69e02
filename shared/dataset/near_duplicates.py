"""Finds texts that say nearly the same, and groups them."""

import difflib
from collections import Counter, defaultdict
from itertools import pairwise

from shared.text import words

MIN_WORDS = 4
"""Shorter texts are never near duplicates: many people say "oh my god"."""
MIN_SIMILARITY = 0.8
"""Share of the words of two texts that must match, in order: a speech recognizer mishears one word in ten."""
RAREST_PAIRS = 4
"""Number of a text's rarest word pairs to try: it is compared with texts that share one of them."""
MAX_CANDIDATES = 60
"""Most texts to compare with per word pair."""


class UnionFind:
    """Numbers 0 to count - 1, joined into groups pair by pair."""

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


def join_near_duplicates(texts: list[str | None], groups: UnionFind | None = None) -> UnionFind:
    """Join the numbers of texts that say nearly the same. Missing and short texts stay alone."""
    groups = groups or UnionFind(len(texts))
    first_row: dict[tuple[str, ...], int] = {}
    for row, text in enumerate(texts):
        tokens = tuple(words(text))
        if len(tokens) >= MIN_WORDS:
            groups.join(row, first_row.setdefault(tokens, row))
    distinct = list(first_row)
    word_pairs = [set(pairwise(tokens)) for tokens in distinct]
    count = Counter(pair for pairs in word_pairs for pair in pairs)
    texts_with: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, pairs in enumerate(word_pairs):
        shared_pairs = {pair for pair in pairs if count[pair] > 1}  # a misheard word gives unique pairs
        for pair in sorted(shared_pairs, key=lambda pair: (count[pair], pair))[:RAREST_PAIRS]:
            for other in texts_with[pair][:MAX_CANDIDATES]:
                a, b = first_row[distinct[i]], first_row[distinct[other]]
                if groups.find(a) != groups.find(b) and are_near_duplicates(distinct[i], distinct[other]):
                    groups.join(a, b)
        for pair in shared_pairs:
            texts_with[pair].append(i)
    return groups


def are_near_duplicates(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two lists of words are nearly equal."""
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return all(bound() >= MIN_SIMILARITY for bound in bounds)
