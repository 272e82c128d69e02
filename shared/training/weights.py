"""Weights in the form that safetensors requires."""

from collections.abc import Mapping

from torch import Tensor


def separate_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous and without shared memory: safetensors refuses tied weights, so they are saved
    once per name."""
    weights: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        weights[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return weights
