"""Audio through a model block by block: any length in constant memory, with the same samples as one call."""

from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.history import delay


def detach(state: Any) -> Any:
    """The same state (None, tensor or nested tuple of tensors) cut off from the graph that computed it.

    >>> detach((torch.ones(2, requires_grad=True), None))[0].requires_grad
    False
    """
    if isinstance(state, tuple):
        return tuple(detach(part) for part in state)
    return state if state is None else state.detach()


def stream(
    net: Net, x: Tensor, controls: Tensor | None = None, state: Any = None, block_samples: int = 65536
) -> tuple[Tensor, Any]:
    """`net(x, controls, state)` in blocks of at most `block_samples`; the same y and state.

    x (batch, channels, time) -> y (batch, channels, time). Raises UserError for an empty signal or block.
    """
    if block_samples < 1 or x.shape[-1] < 1:
        raise UserError(f"cannot stream {x.shape[-1]} samples in blocks of {block_samples}: both must be at least 1")
    moving = controls is not None and controls.ndim == 3 and controls.shape[-1] == x.shape[-1]
    blocks = []
    for start in range(0, x.shape[-1], block_samples):
        now = slice(start, start + block_samples)
        y, state = net(x[..., now], controls[..., now] if moving and controls is not None else controls, state)
        blocks.append(y)
    return torch.cat(blocks, dim=-1), state


class Player:
    """Plays takes chunk by chunk and hands back estimate and target aligned in time.

    A net with a latency estimates the wet signal of `latency_samples` ago, so the target is delayed by as much and
    the first `latency_samples` of each take, which estimate what lies before it, are dropped. The last
    `latency_samples` of the wet signal are estimated only if that much more dry signal (silence will do) is played.
    The caller sets the net's eval mode.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self._reset()

    def _reset(self) -> None:
        self._state, self._late_wet = None, None
        self._to_drop = self.net.latency_samples

    @torch.no_grad()
    def step(
        self, dry: Tensor, wet: Tensor | None, controls: Tensor | None = None, first: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Play the next chunk of a take; `first` starts a new one.

        dry, wet (batch, channels, time), or wet None. Returns the pair (y_hat, y), y None where wet is, both
        (batch, channels, time or fewer): a chunk within the latency at the start of a take gives an empty pair.
        Raises UserError when dry and wet differ in length.
        """
        if wet is not None and wet.shape[-1] != dry.shape[-1]:
            raise UserError(f"dry has {dry.shape[-1]} samples and wet {wet.shape[-1]}: cut both to the same length")
        if first:
            self._reset()
        y_hat, self._state = self.net(dry, controls, self._state)
        dropped = min(self._to_drop, dry.shape[-1])
        self._to_drop -= dropped
        if wet is None:
            return y_hat[..., dropped:], None
        y, self._late_wet = delay(wet, self.net.latency_samples, self._late_wet)
        return y_hat[..., dropped:], y[..., dropped:]


class Streamer:
    """One signal through a net in real time: blocks of any size, one after another, at the least cost per block.

    Where the net has a compiled loop (`fused_stream`), its weights are packed once, here, and the state stays in the
    loop; else the net itself is called. The net is set to eval mode and must not be trained meanwhile.
    controls (knobs,) stand still.

    >>> from revox_lightning.models.recurrent import Recurrent
    >>> streamer = Streamer(Recurrent())
    >>> streamer.play(torch.zeros(1, 64)).shape, streamer.play(torch.zeros(1, 1)).shape
    (torch.Size([1, 64]), torch.Size([1, 1]))
    """

    def __init__(self, net: Net, controls: Tensor | None = None) -> None:
        self._net, self._state = net.eval(), None
        self._controls = None if controls is None else controls[None]
        make = getattr(net, "fused_stream", None)
        self._stream = None if make is None else make(self._controls)
        self._play = None if self._stream is None else self._stream.play
        self._channels = net.channels

    def play(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The next block: x (channels, time) -> y (channels, time), which is `out` where the caller has a place for it.

        Raises UserError for an empty block, or a place of another shape or kind.
        """
        channels, frames = x.shape
        if channels != self._channels or frames < 1:
            raise UserError(f"a block of {channels} channels and {frames} samples: give {self._channels} and some")
        # Every microsecond here counts: a block of 64 samples takes a small net some 15.
        if out is None:
            out = torch.empty(channels, frames, dtype=x.dtype, device=x.device)
        elif out.shape != x.shape or out.dtype is not x.dtype or not out.is_contiguous():
            raise UserError(f"a place of {tuple(out.shape)} {out.dtype} for {tuple(x.shape)} {x.dtype} in one piece")
        if self._play is not None and x.dtype is torch.float32 and x.is_cpu:
            if not x.is_contiguous():
                x = x.contiguous()
            self._play(x.data_ptr(), out.data_ptr(), frames)
            return out
        with torch.inference_mode():
            y, self._state = self._net(x[None], self._controls, self._state)
        return out.copy_(y[0])
