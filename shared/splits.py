"""Splits that keep together what belongs together: no person, or no seed video, on both sides of a comparison."""

from dataclasses import replace

from shared.clips import Clip, Source
from shared.errors import UserError
from shared.order import derive_seed
from shared.registry import nearest

SHARES = {"test": 0.15, "valid": 0.15}
"""The rest is for training."""


def assign(source: Source, group: str | None = None) -> Source:
    """Give every clip a split when none has one, whole groups at a time; a source with splits is returned as it is.

    group: name of the group that must not be torn; by default the first the source has, and without any each clip is
    its own. The same groups always fall to the same splits, whatever their order. Fewer than three groups stay in
    train: nothing could be held out.
    """
    without = sum(not clip.split for clip in source.clips)
    if without < len(source.clips):
        note = f"{without} clips have no split and are in none of them" if without else ""
        return replace(source, notes=[*source.notes, note]) if note else source
    if group is not None and group not in source.group_names:
        raise UserError(f"--split_by {group}: the source has no such group; {nearest(group, source.group_names)}")
    group = group or (source.group_names[0] if source.group_names else None)

    def belongs_to(clip: Clip) -> str:
        return (clip.groups.get(group) if group else None) or f"clip {clip.id}"

    names = sorted({belongs_to(clip) for clip in source.clips}, key=lambda name: derive_seed("split", name))
    split = dict.fromkeys(names, "train")
    if len(names) >= 3:
        start = 0
        for part, share in SHARES.items():
            count = max(1, round(share * len(names)))
            split |= dict.fromkeys(names[start : start + count], part)
            start += count
    clips = [replace(clip, split=split[belongs_to(clip)]) for clip in source.clips]
    kept = f"groups of {group!r} are kept whole" if group else "there are no groups, so each clip stands alone"
    note = f"no splits given: about 70 / 15 / 15 % train / valid / test were drawn; {kept}"
    return replace(source, clips=clips, notes=[*source.notes, note])
