"""Weights as safetensors takes them."""

from collections.abc import Mapping

from torch import Tensor


def separate_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, none of which shares memory with another: safetensors refuses tied weights,
    which are saved once for each of their names."""
    weights: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        weights[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return weights
