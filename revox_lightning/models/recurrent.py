"""Wright, Damskägg & Välimäki, "Real-time black-box modelling with recurrent neural networks", DAFx 2019."""

import operator

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.kernels import recurrent as fused
from revox_lightning.models.knobs import with_knobs

UNITS = {"lstm": nn.LSTM, "gru": nn.GRU}
NAM_SIZES = {"standard": (24, 1), "lite": (8, 2), "feather": (16, 1), "nano": (12, 1)}  # hidden units, layers


class Recurrent(nn.Module):
    """An LSTM or GRU with a linear read-out and a skip connection: y[n] = W h[n] + b + x[n].

    Knobs are concatenated to the input at each sample. `rec` and `lin` are named as in the published weight files.
    Mikkonen et al. (DAFx 2023) leave `skip` out, and `bias` before a delay line; their player starts settled, by
    `preroll_samples` of silence. With `initial_state` what it starts from is learned (Neural Amp Modeler), else zero.
    Raises UserError for an unknown unit.

    >>> import torch
    >>> y, (h, c) = Recurrent("lstm", hidden=32)(torch.zeros(4, 1, 100))
    >>> y.shape, h.shape
    (torch.Size([4, 1, 100]), torch.Size([1, 4, 32]))
    """

    kernel = "recurrent"
    receptive_field = None
    latency_samples = 0

    def __init__(
        self,
        unit: str = "lstm",
        hidden: int = 32,
        layers: int = 1,
        skip: bool = True,
        channels: int = 1,
        controls: int = 0,
        side_channels: int = 0,
        bias: bool = True,
        preroll_samples: int = 0,
        initial_state: bool = False,
    ) -> None:
        super().__init__()
        if unit not in UNITS:
            raise UserError(f"unknown recurrent unit {unit!r}: choose one of {', '.join(UNITS)}")
        self.unit, self.skip, self.preroll_samples = unit, skip, preroll_samples
        self.channels, self.controls, self.side_channels = channels, controls, side_channels
        self.rec = UNITS[unit](channels + side_channels + controls, hidden, operator.index(layers))  # true is one
        self.lin = nn.Linear(hidden, channels, bias=bias)
        parts = (2 if unit == "lstm" else 1) * initial_state
        self.initial = nn.ParameterList(torch.zeros(layers, 1, hidden) for _ in range(parts))

    def forward(
        self, x: Tensor, controls: Tensor | None = None, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time) and the state (h, c) or (h,)."""
        u = with_knobs(x, controls, self.controls)  # (batch, inputs, time)
        if state is None and len(self.initial):
            state = tuple(part.expand(-1, len(u), -1).contiguous() for part in self.initial)
        library = backend.fused("recurrent", u, self.lin.weight, *(state or ()))
        if library is not None and fused.fits(self.rec, u, state):
            return fused.play(library, u, state, self.rec, self.lin, self.skip)
        u = u.permute(2, 0, 1)  # (time, batch, inputs)
        # Mixed precision stays outside on a CPU: oneDNN's bfloat16 LSTM refuses some of these shapes.
        with torch.autocast(x.device.type, enabled=x.is_cuda and torch.is_autocast_enabled("cuda")):
            if self.unit == "gru":
                h, last = self.rec(u, None if state is None else state[0])
                carried = (last,)
            else:
                h, carried = self.rec(u, state)
        y = self.lin(h).permute(1, 2, 0)  # (batch, channels, time)
        if self.skip:
            y = y + x[:, : self.channels]
        return y, carried

    def fused_stream(self, controls: Tensor | None = None) -> fused.Stream | None:
        """The compiled loop for one signal with the present weights; None where there is none (with knobs, say)."""
        library = backend.fused("recurrent", self.lin.weight)
        if library is None or controls is not None or self.controls or self.side_channels or len(self.initial):
            return None
        return fused.Stream(library, self.rec, self.lin, self.skip)

    @property
    def output_layer(self) -> nn.Linear:
        return self.lin

    @property
    def multiply_adds_per_sample(self) -> int:
        """Weights times signals; each matrix is used once a sample."""
        return sum(weight.numel() for weight in self.parameters() if weight.ndim == 2)


def nam_lstm(size: str = "standard", **others) -> Recurrent:
    """Neural Amp Modeler's LSTMs: "standard", "lite", "feather" or "nano", which learn what they start from.

    Their input gates start nearly shut and their forget gates nearly open. Raises UserError for another size.

    >>> nam_lstm("lite").rec
    LSTM(1, 8, num_layers=2)
    """
    if size not in NAM_SIZES:
        raise UserError(f"unknown NAM LSTM size {size!r}: choose one of {', '.join(NAM_SIZES)}")
    hidden, layers = NAM_SIZES[size]
    how = {"hidden": hidden, "layers": layers, "skip": False, "initial_state": True, "preroll_samples": 4096}
    net = Recurrent("lstm", **{**how, **others})
    with torch.no_grad():
        for name, bias in net.rec.named_parameters():
            if name.startswith("bias"):
                bias[:hidden] -= 2
                bias[hidden : 2 * hidden] += 2
    return net
