"""Published weights of the diffusion U-Nets of Mikkonen et al., DAFx 2023, as .npz of their own parameter names."""

import re
from pathlib import Path

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.export import mikkonen
from revox_lightning.models.unet_1d import UNet1d

_NAMES = (
    (r"embedding\.RFF_freq", "embed.frequency"),
    (r"embedding\.MLP\.(\d+)\.(\w+)", r"embed.layers.\1.\2"),
    (r"init_conv\.weight", "first.weight"),
    (r"downs\.(\d+)\.0\.(.+)", r"down.\1.\2"),
    (r"downs\.(\d+)\.2\.conv1x1\.weight", r"write_in.\1.weight"),
    (r"middle\.0\.0\.(.+)", r"middle.\1"),
    (r"ups\.(\d+)\.0\.(.+)", r"up.\1.\2"),
    (r"ups\.(\d+)\.2\.conv1x1\.weight", r"read_out.\1.weight"),
)
_BLOCK = (
    ("film.output_layer", "scale"),
    ("first_conv.1", "enter"),
    ("res_conv", "around"),
    ("H.", "layers."),
    (".conv.", "."),
)


def load(path: str | Path, factors: tuple[int, ...] | None = None) -> UNet1d:
    """The published net in `path`, ready to use; raises UserError where the file holds anything else.

    `factors` of the levels' rates stand in no file; None: those of the published nets, by the number of levels.
    """
    try:
        arrays = {name: torch.from_numpy(values) for name, values in mikkonen.arrays(path).items()}
    except (TypeError, UserError) as error:
        raise UserError(f"{path} cannot be read as the weights of a U-Net: {str(error)[:300]}.") from error
    levels = sum(bool(re.fullmatch(r"downs\.\d+\.0\.first_conv\.1\.weight", name)) for name in arrays)
    if levels < 2 or "embedding.MLP.0.bias" not in arrays:
        raise UserError(f"{path} holds no weights of a published U-Net: it lacks downs.*.0.first_conv.1.weight.")
    if factors is None:
        factors = (2, 2, 4, 4) if levels == 4 else (4,) * levels
    try:
        widths = [len(arrays[f"downs.{i}.0.first_conv.1.weight"]) for i in range(levels)]
        net = UNet1d(widths, factors, arrays["embedding.MLP.0.bias"].numel())
        net.load_state_dict(renamed(arrays, levels))
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        what = str(error).splitlines()[1:2]
        raise UserError(f"{path} does not fit a U-Net of {levels} levels: {' '.join(what).strip()}") from error
    return net.eval()


def renamed(arrays: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The weights under this package's names; theirs counts the way up from the bottom, ours from the top."""
    weights = {}
    for name, value in arrays.items():
        if name.endswith("resample.kernel"):
            continue
        for pattern, ours in _NAMES:
            if re.fullmatch(pattern, name):
                weights[_in_block(re.sub(pattern, ours, name), levels)] = value
                break
        else:
            raise UserError(f"the weights hold {name}, which no published U-Net has.")
    if "embed.frequency" in weights:
        weights["embed.frequency"] = weights["embed.frequency"].flatten()
    return weights


def _in_block(name: str, levels: int) -> str:
    for theirs, ours in _BLOCK:
        name = name.replace(theirs, ours)
    group, _, rest = name.partition(".")
    if group not in ("up", "read_out"):
        return name
    index, _, rest = rest.partition(".")
    # The read-out of level i is numbered i - 1: the top level has none of its own.
    return f"{group}.{levels - 1 - int(index) - (group == 'read_out')}.{rest}"
