"""The steps of many samples, concatenated and held once: a batch takes one indexing operation per array."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

Part = TypeVar("Part", bound=Any)
"""ModalityFeatures."""
KEYS = ("sequence", "times", "quality")
"""What each step of a modality has. Text has no times: (0,)."""


class Place(NamedTuple):
    """Where the steps of a sample are stored."""

    steps: "PackedSteps"
    number: int
    """Index of the sample among the packed samples."""


class PackedSteps:
    """The steps of one modality of N samples, after one step of zeros that serves as padding."""

    def __init__(self, starts: np.ndarray, lengths: np.ndarray, arrays: dict[str, np.ndarray]):
        self.starts, self.lengths = starts, lengths
        """int64 (N,): index of the first step and number of steps of each sample."""
        self.arrays = arrays
        """{key: (1 + steps, ...)}."""

    @classmethod
    def empty(cls, lengths: np.ndarray, kinds: Mapping[str, tuple[tuple[int, ...], Any]]) -> Self:
        """Allocate memory for samples of int64 (N,) steps, which `put` fills. kinds: {key: (shape of a step,
        dtype)}."""
        total = 1 + int(lengths.sum())
        arrays = {key: np.zeros((total, *shape), dtype) for key, (shape, dtype) in kinds.items()}
        return cls(1 + lengths.cumsum() - lengths, lengths, arrays)

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self:
        """The steps of these parts, in order: shared memory if they are already packed together, otherwise copies."""
        packed = parts[0].place.steps if parts[0].place else None
        if packed and all(part.place and part.place.steps is packed for part in parts):
            numbers = [part.place.number for part in parts if part.place]
            return cls(packed.starts[numbers], packed.lengths[numbers], packed.arrays)
        kinds = {key: (getattr(parts[0], key).shape[1:], getattr(parts[0], key).dtype) for key in KEYS}
        copies = cls.empty(np.array([part.steps for part in parts]), kinds)
        for number, part in enumerate(parts):
            copies.put(number, part)
        return copies

    def put(self, number: int, part: Part) -> Part:
        """Copy the steps of a sample to their place. Returns the part with views of them."""
        start, length = self.starts[number], self.lengths[number]
        views: dict[str, Any] = {}
        for key, array in self.arrays.items():
            values = getattr(part, key)
            if len(values):  # text has no times
                views[key] = array[start : start + length]
                views[key][:] = values
        packed = replace(part, **views)
        object.__setattr__(packed, "place", Place(self, number))
        return packed
