"""The model contract as a type; docs/adding_a_model.md says it in words."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn


class Net(Protocol):
    """What every model has. Cutting a signal anywhere and carrying the state gives the same samples as one call.

    channels: audio channels in and out. controls: number of knobs. side_channels: further audio inputs, after the
    channels. receptive_field: samples of input that reach one output, None for recurrent nets. latency_samples:
    the output at n estimates the wet signal at n - latency_samples.
    """

    @property
    def channels(self) -> int: ...
    @property
    def controls(self) -> int: ...
    @property
    def side_channels(self) -> int: ...
    @property
    def receptive_field(self) -> int | None: ...
    @property
    def latency_samples(self) -> int: ...
    @property
    def multiply_adds_per_sample(self) -> int: ...

    def __call__(self, x: Tensor, controls: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time), state; controls (batch, knobs) or
        (batch, knobs, time).

        The state is a tensor or a nested tuple of tensors; None is silence before the start.
        """
        ...

    # Of nn.Module, which every model is.
    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def buffers(self) -> Iterator[Tensor]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def cpu(self) -> Any: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
