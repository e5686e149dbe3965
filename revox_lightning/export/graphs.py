"""ONNX and TorchScript: a net with its state as explicit inputs and outputs, for blocks of any length."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from torch.utils import _pytree as pytree

from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.kernels import backend
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.history import prepend
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.nam_wavenet import NAMWaveNet
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.series import Series
from revox_lightning.models.tcn import TCN
from revox_lightning.models.wavenet import WaveNet

_OPSET = 17
_BLOCK_SAMPLES = 64
_KINDS = (Recurrent, WaveNet, NAMWaveNet, ConvNet, TCN, FIR, LinearStart, Series)


class Explicit(nn.Module):
    """A net as a function of tensors alone: (x, controls if there are any, states...) -> (y, states...).

    x (1, channels, time), controls (1, knobs). States of zeros are the beginning, also where a net learned what it
    starts from.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = _without_transforms(net)
        with torch.no_grad(), backend.using("torch"):
            _, state = self.net(torch.zeros(1, net.channels, _BLOCK_SAMPLES), self._controls(net))
        states, self._spec = pytree.tree_flatten(state)
        own = len(net.initial) if isinstance(net, Recurrent) else 0
        starts = [part.detach() for part in net.initial] if own else [torch.zeros_like(part) for part in states]
        self.shapes = [tuple(part.shape) for part in states]
        self.starts = nn.ParameterList(nn.Parameter(part, requires_grad=False) for part in starts)

    @staticmethod
    def _controls(net: Any) -> Tensor | None:
        return torch.zeros(1, net.controls) if net.controls else None

    def inputs(self) -> tuple[Tensor, ...]:
        """An example of all inputs, at the beginning of a signal."""
        controls = self._controls(self.net)
        x = torch.zeros(1, self.net.channels, _BLOCK_SAMPLES)
        return (x, *([] if controls is None else [controls]), *(torch.zeros(shape) for shape in self.shapes))

    def names(self) -> list[str]:
        """Of the inputs."""
        return ["x", *(["controls"] if self.net.controls else []), *(f"state_{n}" for n in range(len(self.shapes)))]

    def forward(self, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        controls, states = (others[0], others[1:]) if self.net.controls else (None, others)
        state = pytree.tree_unflatten([s + start for s, start in zip(states, self.starts, strict=True)], self._spec)
        y, state = self.net(x, controls, state)
        after, _ = pytree.tree_flatten(state)
        return (y, *(s - start for s, start in zip(after, self.starts, strict=True)))


class _Direct(nn.Module):
    """A FIR as a convolution: Fourier transforms of a length that varies have no place in a graph."""

    def __init__(self, fir: FIR) -> None:
        super().__init__()
        self.controls, self.channels, self.taps = 0, fir.channels, fir.taps
        self.lookahead = self.latency_samples = fir.lookahead
        self.h = nn.Parameter(fir.h.detach().clone().flip(-1)[:, None], requires_grad=False)
        self.bias = None if fir.bias is None else nn.Parameter(fir.bias.detach()[:, 0], requires_grad=False)

    def forward(self, x: Tensor, controls: None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        window, state = prepend(x, self.taps - 1, state)
        return conv1d(window, self.h, self.bias, groups=self.channels), state


def _without_transforms(net: Any) -> Any:
    if not isinstance(net, _KINDS):
        raise UserError(
            f"a {type(net).__name__} computes sample by sample in a way that a graph cannot say: render audio through "
            "it with revox render, or train a recurrent or convolutional net"
        )
    if isinstance(net, FIR):
        return _Direct(net)
    if isinstance(net, (LinearStart, Series)):
        around = copy.copy(net)
        around._modules = {**net._modules, "fir": _Direct(net.fir)}
        return around
    return net


def write_onnx(net: Any, path: str | Path, facts: dict[str, Any]) -> None:
    """Writes an ONNX graph with inputs x, controls if any, state_0, ... and outputs y, next_state_0, ...

    x and y are (1, channels, time) of any length; zeros are the first states. `facts` become its metadata.
    Raises UserError where onnx is not installed, and for nets that no graph can hold.
    """
    onnx = _onnx()
    whole = Explicit(net.eval()).eval()
    names = whole.names()
    outputs = ["y", *(f"next_{name}" for name in names if name.startswith("state"))]
    buffer = io.BytesIO()
    with torch.no_grad(), backend.using("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's age, and lengths that are taken from the block
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            whole, whole.inputs(), buffer, dynamo=False, opset_version=_OPSET,  # type: ignore[arg-type]
            input_names=names, output_names=outputs,
            dynamic_axes={"x": {2: "time"}, "y": {2: "time"}},
        )  # fmt: skip
    model = onnx.load_model_from_string(buffer.getvalue())
    for name, value in facts.items():
        model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    content = model.SerializeToString()
    write_atomically(Path(path), lambda file: file.write(content))


def write_torchscript(net: Any, path: str | Path, facts: dict[str, Any]) -> None:
    """Writes TorchScript of the same inputs and outputs; `facts` lie in the file's extra "facts.json"."""
    whole = Explicit(net.eval()).eval()
    with torch.no_grad(), backend.using("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(whole, whole.inputs(), check_trace=False)
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files={"facts.json": json.dumps(facts)})
    write_atomically(Path(path), lambda file: file.write(buffer.getvalue()))


def _onnx() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            "format=onnx needs the packages onnx and onnxruntime: pip install 'revox_lightning[export]'"
        ) from error
    return onnx


def play_onnx(path: str | Path, x: np.ndarray, controls: np.ndarray | None, block_samples: int) -> np.ndarray:
    """x (1, channels, time) through onnxruntime, block by block with its state: y (1, channels, time)."""
    _onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = session.get_inputs()
    states = {i.name: np.zeros(i.shape, dtype=np.float32) for i in wanted if i.name.startswith("state")}
    fixed = {} if controls is None else {"controls": controls.astype(np.float32)}
    blocks = []
    for start in range(0, x.shape[-1], block_samples):
        y, *after = session.run(None, {"x": x[..., start : start + block_samples], **fixed, **states})
        states = dict(zip(states, after, strict=True))
        blocks.append(y)
    return np.concatenate(blocks, axis=-1)


@torch.no_grad()
def play_torchscript(path: str | Path, x: np.ndarray, controls: np.ndarray | None, block_samples: int) -> np.ndarray:
    """The same through the TorchScript file, which is read without this package's classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.load(str(path))
    states = [torch.zeros_like(start) for name, start in net.named_parameters() if name.startswith("starts.")]
    fixed = [] if controls is None else [torch.from_numpy(controls).float()]
    blocks = []
    for start in range(0, x.shape[-1], block_samples):
        y, *states = net(torch.from_numpy(x[..., start : start + block_samples]), *fixed, *states)
        blocks.append(y.numpy())
    return np.concatenate(blocks, axis=-1)
