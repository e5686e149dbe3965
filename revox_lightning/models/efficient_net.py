"""EfficientNet-B2 for pictures of one channel, without its classifier.

M. Tan, Q. V. Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019: table 1, width
1.1 and depth 1.2 times B0's; the blocks are those of M. Sandler et al., "MobileNetV2", CVPR 2018, with squeeze and
excitation (J. Hu et al., CVPR 2018) by a quarter of their input's channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = 1408  # of what comes out
_STEM = 32
_STAGES = (  # expansion, channels, blocks, stride, kernel
    (1, 16, 2, 1, 3),
    (6, 24, 3, 2, 3),
    (6, 48, 3, 2, 5),
    (6, 88, 4, 2, 3),
    (6, 120, 4, 1, 5),
    (6, 208, 5, 2, 5),
    (6, 352, 2, 1, 3),
)


class EfficientNetB2(nn.Module):
    """(batch, 1, height, width) -> (batch, 1408, height / 32, width / 32), rounded up; 7,700,418 parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(1, _STEM, 3, stride=2)]
        channels = _STEM
        for expansion, out, blocks, stride, kernel in _STAGES:
            for n in range(blocks):
                layers.append(_Block(channels, out, expansion, kernel, stride if n == 0 else 1))
                channels = out
        self.layers = nn.Sequential(*layers, _convolution(channels, CHANNELS, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Block(nn.Module):
    """Wide inside: 1 x 1, depthwise, weighed by channel, 1 x 1; added to its input where the shapes are the same."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_convolution(channels, wide, 1)]
        layers += [
            _convolution(wide, wide, kernel, stride, groups=wide),
            _Excitation(wide, channels // 4),
            _convolution(wide, out, 1, active=False),
        ]
        self.layers = nn.Sequential(*layers)
        self._added = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self._added else y


class _Excitation(nn.Module):
    """Every channel weighed, between 0 and 1, by what the means of all say."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(means))))


def _convolution(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if active else []))
