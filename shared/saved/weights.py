"""The weights of a saved folder: the header of model.safetensors is compared with the model before reading."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import UserError
from shared.saved.checksum import inside
from shared.text import one_line

if TYPE_CHECKING:
    from torch import nn

FILE = "model.safetensors"
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""{torch dtype name: safetensors name}."""


@dataclass(frozen=True)
class WeightFile:
    """The header of model.safetensors."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    how: str
    """What to do if the file does not fit."""

    @classmethod
    def read(cls, folder: Path, how: str) -> "WeightFile":
        """UserError if the file is missing or its header is damaged."""
        from safetensors import SafetensorError, safe_open

        path = inside(folder, FILE)
        try:
            with safe_open(path, "pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
                dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: damaged ({one_line(error, 200)}); {how}") from None
        return cls(path, shapes, dtypes, how)

    def part(self, prefix: str) -> "WeightFile":
        """The tensors with names that start with `prefix`, without it."""
        names = [name for name in self.shapes if name.startswith(prefix)]
        cut = len(prefix)
        shapes = {name[cut:]: self.shapes[name] for name in names}
        return WeightFile(self.path, shapes, {name[cut:]: self.dtypes[name] for name in names}, self.how)

    def elements(self) -> int:
        """Number of elements in all tensors."""
        return sum(_product(shape) for shape in self.shapes.values())

    def check(self, module: "nn.Module", what: str) -> None:
        """UserError unless the tensors match `module` by name, shape and type."""
        expected = module.state_dict()
        wrong = [f"{name} is missing" for name in expected if name not in self.shapes]
        wrong += [f"{name} is not expected" for name in self.shapes if name not in expected]
        for name in expected.keys() & self.shapes.keys():
            shape, dtype = tuple(expected[name].shape), DTYPES.get(str(expected[name].dtype).removeprefix("torch."))
            if shape != self.shapes[name] or dtype != self.dtypes[name]:
                found = f"{self.dtypes[name]} {list(self.shapes[name])}"
                wrong.append(f"{name} is {found} where the configuration gives {dtype} {list(shape)}")
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UserError(
                f"{self.path}: not the weights of the {what} that its configuration describes "
                f"({wrong[0]}{more}); {self.how}"
            )

    def load_into(self, module: "nn.Module", what: str, prefix: str = "") -> None:
        """Load the tensors under `prefix` into `module`. UserError unless they fit it and are finite."""
        import torch
        from safetensors import SafetensorError, safe_open

        part = self.part(prefix)
        part.check(module, what)
        try:
            with safe_open(self.path, "pt") as file:
                state = {name: file.get_tensor(prefix + name) for name in part.shapes}
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{self.path}: damaged ({one_line(error, 200)}); {self.how}") from None
        for name, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise UserError(f"{self.path}: {prefix}{name} holds values that are not finite; {self.how}")
        module.load_state_dict(state)


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
