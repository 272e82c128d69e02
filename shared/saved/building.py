"""Build a model from the description in a saved folder within the size of its weights.

A description may request a layer with 10^9 channels, or 10^6 layers. The weights next to it show how large the model
is: a far larger tensor, or far more tensors, are refused before they take memory.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from shared.errors import UserError
from shared.saved.weights import WeightFile
from shared.text import one_line

SPARE_ELEMENTS = 2**24
"""Elements that a tensor may have beyond the weights: filter banks, masks, activations of a small trial input."""
SPARE_TENSORS = 256
NEVER_LARGER = {
    "_scaled_dot_product_flash_attention_for_cpu",
    "_unsafe_view",
    "all",
    "any",
    "cat",
    "cumsum",
    "index_add",
    "mean",
    "native_batch_norm",
    "native_group_norm",
    "native_layer_norm",
    "slice",
    "sum",
    "view",
}
"""Operations with a result that has no more elements than their inputs together."""
PADDING = {"constant_pad_nd", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3))}


class _TooLarge(Exception):
    pass


class _Bounds(TorchDispatchMode):
    """Refuses an operation if its result would have more than `most` elements, judged by shape."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise PyTorch spends more than a second on importing its compiler to disable it here. Nothing
        compiles."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _at_most(func, args) <= self.most:
            return func(*args, **kwargs)
        try:
            device = {"device": torch.device("meta")} if "device" in kwargs else {}
            result = func(*tree_map(_meta, args), **{**tree_map(_meta, kwargs), **device})
        except Exception:  # the operation needs values or has no shape rule, or will fail in the same way below
            result = None
        for part in tree_leaves(result):
            if isinstance(part, torch.Tensor) and part.numel() > self.most:
                raise _TooLarge(f"a tensor of shape {list(part.shape)}")
        return func(*args, **kwargs)


def _at_most(func: Any, args: tuple[Any, ...]) -> float:
    """Upper bound on the elements in an operation's result, from the shapes and the integers in its arguments.

    For most operations, this avoids PyTorch's shape rules: they are written in Python, and the first one imports
    PyTorch's compiler."""
    name, is_pointwise, is_never_larger = _traits(func)
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        return math.prod(args[-2].shape[:-1]) * args[-1].shape[-1]
    if name == "convolution":
        return _of_convolution(*args)
    if name in PADDING:
        return _of_padding(*args)
    parts = [*_leaves(args)]
    sizes = [part.shape for part in parts if isinstance(part, torch.Tensor)]
    if is_pointwise:  # the inputs are broadcast
        return math.prod(max(lengths) for lengths in zip_longest(*map(reversed, sizes), fillvalue=1))
    if is_never_larger:
        return sum(map(math.prod, sizes))
    # No result has more elements than the product of its inputs and the integers (sizes, repeats, padding).
    numbers = [abs(part) for part in parts if isinstance(part, int | float) and not isinstance(part, bool)]
    steps = [1 / number for number in numbers if 0 < number < 1]  # arange
    return math.prod(1 + number for number in [*map(math.prod, sizes), *numbers, *steps])


@functools.cache
def _traits(func: Any) -> tuple[str, bool, bool]:
    """The name of an operation, whether it is elementwise, and whether its result has no more elements than its
    inputs."""
    name = func._schema.name.removeprefix("aten::")
    in_place = name.endswith("_") and all(argument.name != "size" for argument in func._schema.arguments)
    return name, torch.Tag.pointwise in func.tags, name in NEVER_LARGER or in_place


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """The leaves of nested lists: PyTorch's `tree_leaves` takes three times as long."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _of_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> int:
    """Of an x of (B, C, ...), with weights of (O, C / groups, ...), or of (C, O / groups, ...) if transposed."""
    lengths = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, output_padding, strict=False)
    if transposed:
        sides, channels = [n * s + d * (k - 1) + o for n, k, s, _, d, o in lengths], weight.shape[1] * groups
    else:
        sides, channels = [(n + 2 * p) // s + 1 for n, _, s, p, _, _ in lengths], weight.shape[0]
    return x.shape[0] * channels * math.prod(sides)


def _of_padding(x: torch.Tensor, padding: list[int], *_: Any) -> int:
    """padding: numbers before and after, from the last dimension on."""
    ends = [*map(sum, zip(padding[::2], padding[1::2], strict=True))]
    return math.prod(length + end for length, end in zip_longest(reversed(x.shape), ends, fillvalue=0))


def _meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


@contextlib.contextmanager
def bounded(where: str, weights: WeightFile) -> Iterator[None]:
    """Inside this block, tensors and modules are limited by the size of `weights`. Any error, also in a library,
    becomes a one-line UserError that begins with `where`."""
    most_parts, most_elements = 4 * len(weights.shapes) + SPARE_TENSORS, 4 * weights.elements() + 4 * SPARE_ELEMENTS
    thread, parts, elements = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, value: Any) -> None:
        nonlocal parts, elements
        if threading.get_ident() != thread or value is None:
            return
        parts += 1
        elements += value.numel() if isinstance(value, torch.Tensor) else 0
        if parts > (4 if isinstance(value, nn.Module) else 1) * most_parts:
            raise _TooLarge(f"more than {parts - 1} layers")
        if elements > most_elements:
            raise _TooLarge(f"more than {most_elements} numbers")

    with contextlib.ExitStack() as stack:
        for register in (
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
            hooks.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        try:
            with _Bounds(weights.elements() + SPARE_ELEMENTS):
                yield
        except UserError as error:
            text = str(error)
            raise error if text.startswith(where) else UserError(f"{where}: {text}") from None
        except _TooLarge as error:
            size = f"the weights have {weights.elements()} numbers in {len(weights.shapes)} tensors"
            raise UserError(f"{where}: asks for {error}, but {size}; {weights.how}") from None
        except Exception as error:  # libraries raise errors of any type for values that make no sense
            reason = f"{type(error).__name__}: {one_line(error, 160)}"
            raise UserError(f"{where}: these values make no model ({reason}); {weights.how}") from None
