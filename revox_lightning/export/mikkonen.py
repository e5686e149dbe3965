"""The published recurrent tape models of Mikkonen et al., DAFx 2023: one .npz of many nets, `<name>/<parameter>`."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.recurrent import Recurrent

PREROLL_SAMPLES = 1024  # of silence, by which the authors' player settles a net
_LARGEST_BYTES = 256 * 2**20
_NAMES = {"GRU": "rec", "output": "lin"}


def names(path: str | Path) -> list[str]:
    """The nets in `path`, as `GRU_ESR_akai_2`: model, loss, data and run. Raises UserError for another file."""
    return sorted(_read(path))


def load(path: str | Path, name: str, max_delay_samples: int = 8192) -> Recurrent | Delayed:
    """The net `name` of `path`, ready to play: a GRU, or a GRU before a delay line ("DiffDelGRU...").

    The line interpolates linearly, as published. Raises UserError where the file cannot be read, lacks that net, or
    holds another architecture under its name.
    """
    stored = _read(path)
    if name not in stored:
        raise UserError(f"{path} holds no net {name!r}: choose one of {', '.join(sorted(stored))}")
    model, found = name.split("_")[0], stored[name]
    if model not in ("GRU", "DiffDelGRU"):
        raise UserError(f"{path}: {name} is a {model}, and only a GRU or a DiffDelGRU loads")
    with torch.device("meta"):  # sizes without memory: a wrong one shows before anything is allocated
        recurrent = found.get("rec.weight_hh_l0")
        hidden = max(recurrent.shape[-1], 1) if recurrent is not None and recurrent.ndim == 2 else 1
        net = Recurrent("gru", hidden, skip=False, bias=model == "GRU", preroll_samples=PREROLL_SAMPLES)
    expected = {key: tuple(weight.shape) for key, weight in net.state_dict().items()}
    shapes = {key: tuple(weight.shape) for key, weight in found.items()}
    if shapes != expected:
        wrong = sorted(key for key in expected.keys() | shapes.keys() if expected.get(key) != shapes.get(key))
        raise UserError(f"{path}: {name} is not a {model} of one layer: see its {', '.join(wrong)}")
    net.load_state_dict(found, assign=True)
    return (net if model == "GRU" else Delayed(net, DelayLine(max_delay_samples))).eval()


def arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises UserError for another file, and for one larger than any net."""
    try:
        with open(path, "rb") as file, np.load(file) as content:  # a damaged file is closed, too
            if sum(part.file_size for part in content.zip.infolist()) > _LARGEST_BYTES:  # as it says itself, unpacked
                raise ValueError("it is too large")
            return {key: np.asarray(content[key]) for key in content.files}
    except OSError as error:
        raise UserError(f"cannot read the model file {path}: {error.strerror or 'it is no .npz file'}") from error
    except Exception as error:
        raise UserError(f"{path} is not an .npz file of weights ({type(error).__name__})") from error


def _read(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """All weights of a file, by net and by the names of `Recurrent`."""
    nets: dict[str, dict[str, Tensor]] = {}
    for key, values in arrays(path).items():
        matched = re.fullmatch(r"([^/]+)/(\w+)\.(\w+)", key)
        if matched is None or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise UserError(
                f"{path}: {key} is no weight of a published tape model, or holds values that are no numbers"
            )
        net, part, parameter = matched.groups()
        nets.setdefault(net, {})[f"{_NAMES.get(part, part)}.{parameter}"] = torch.from_numpy(values).float()
    return nets
