"""Splits in which neither the people nor the seed videos of the test clips occur in training.

Clips are the edges of a graph between two kinds of groups. Clips of a test person and a training video, or vice versa,
fit on neither side and are left out. Neighbors in the graph go to the same side to keep this number low: 1 or 2 % of
the clips if each video was watched by four people; most of them if everybody watched every video.
"""

from collections import Counter, defaultdict, deque

from shared.errors import UserError
from shared.training.sampling import derive_seed

Pairs = dict[str, tuple[str, str]]
"""{id: its group of the first kind, its group of the second kind}."""


def crossed_splits(pairs: Pairs, folds: int, fold: int, valid_share: float, seed: int) -> dict[str, str]:
    """{id: split} of one fold, "" for clips that are left out. Test has about 1 / `folds` of the groups of either kind,
    valid about `valid_share` of the others; no two of train, valid and test share a group of either kind.

    The same groups always get the same splits, in any order. Raises UserError if a split would be empty.
    """
    order = _neighbors_first(pairs, seed)
    sizes = Counter(first for first, _ in pairs.values())
    done, firsts = 0, set()
    for group in order:  # the fold's part of the order, measured in clips
        firsts |= {group} if int(done * folds / len(pairs)) == fold else set()
        done += sizes[group]
    test, rest = _hold_out(pairs, firsts, 1 / folds, seed)
    start = max((order.index(group) for group in firsts), default=0) + 1
    remaining = Counter(first for first, _ in rest.values())
    others, held = set(), 0
    for group in order[start:] + order[:start]:
        if remaining[group] and held < valid_share * len(rest):
            others.add(group)
            held += remaining[group]
    valid, train = _hold_out(rest, others, valid_share, seed)
    parts = {"test": test, "valid": valid, "train": train}
    for name, part in parts.items():
        if not part:
            raise UserError(
                f"no clip is left for {name}: there are too few groups of both kinds for {folds} folds, or every group "
                "of one kind meets every group of the other; give fewer --folds, or one group"
            )
    return dict.fromkeys(pairs, "") | {clip: name for name, part in parts.items() for clip in part}


def _hold_out(pairs: Pairs, firsts: set[str], share: float, seed: int) -> tuple[Pairs, Pairs]:
    """The clips of the first groups `firsts` in second groups that hold about this share of all clips, preferring
    groups with most clips in `firsts`; and the clips of neither."""
    inside, total = Counter[str](), Counter[str]()
    for first, second in pairs.values():
        inside[second] += first in firsts
        total[second] += 1
    ranked = sorted(total, key=lambda name: (-inside[name] / total[name], derive_seed("crossed", seed, name)))
    seconds: set[str] = set()
    held = 0
    for name in ranked:
        if inside[name] < total[name] and (held >= share * len(pairs) or not inside[name]):
            break
        seconds.add(name)
        held += total[name]
    held_out = {clip: pair for clip, pair in pairs.items() if pair[0] in firsts and pair[1] in seconds}
    rest = {clip: pair for clip, pair in pairs.items() if pair[0] not in firsts and pair[1] not in seconds}
    return held_out, rest


def _neighbors_first(pairs: Pairs, seed: int) -> list[str]:
    """The groups of the first kind in breadth-first order along shared groups of the second kind."""
    with_second, with_first = defaultdict(set), defaultdict(set)
    for first, second in pairs.values():
        with_second[second].add(first)
        with_first[first].add(second)

    def shuffled(names: set[str]) -> list[str]:
        return sorted(names, key=lambda name: (derive_seed("crossed", seed, name), name))

    order: dict[str, None] = {}
    for start in shuffled(set(with_first)):
        queue = deque([start])
        while queue:
            group = queue.popleft()
            if group not in order:
                order[group] = None
                near = Counter(other for second in with_first[group] for other in with_second[second])
                queue.extend(sorted(near, key=lambda name: (-near[name], derive_seed("crossed", seed, name), name)))
    return list(order)
