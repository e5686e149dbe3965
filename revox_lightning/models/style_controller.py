"""From what two recordings sound like to the knobs that make one sound like the other.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.dsp import effects, style_bands
from revox_lightning.models.style_encoder import SmallEncoder

# Where training starts: broad bands without gain, a mild compressor. The published net starts in the middle of every
# range, which is a threshold of -40 dB and a ratio of 10.5.
_START = {"threshold_db": -12.0, "ratio": 2.0, "attack_seconds": 0.01, "release_seconds": 0.1}
_TAPE_START = {"drive_db": 0.5, "spacing_um": 1.0, "wow_percent": 0.1, "hiss_dbfs": -75.0}
_NEPER_DB = 8.685889638
_DB = 10.0  # responses are told to layers in this unit


class Controller(nn.Module):
    """A perceptron from both embeddings to the knobs, between 0 and 1, as published (596,504 for 1,024)."""

    def __init__(self, embedding: int, hidden: int = 256, chain: str = "studio") -> None:
        super().__init__()
        knobs = effects.CHAINS[chain]
        self.layers = _perceptron(2 * embedding, hidden, knobs)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Embeddings (batch, embedding) of both -> (batch, knobs)."""
        return torch.sigmoid(self.layers(torch.cat((x, reference), 1)))


class SmallController(nn.Module):
    """For few examples: what the bands of a `SmallEncoder` say becomes a response, and that the equaliser's knobs.

    Convolutions along frequency, the same for every band, correct the difference of the two spectra: the two
    recordings do not play the same notes. A perceptron knows equalisers from `practise`, without audio. Another one
    takes what the convolutions find and the envelopes of both to the compressor's. Those of a tape are told from the
    reference alone: a tape is heard whatever it plays.
    """

    def __init__(self, encoder: SmallEncoder, chain: str = "studio", channels: int = 48, hidden: int = 256) -> None:
        super().__init__()
        self.shape = encoder.STATISTICS, style_bands.BANDS
        self.convolutions = nn.Sequential(
            nn.Conv1d(2 * encoder.STATISTICS + 2, channels, 7, padding=3), nn.PReLU(channels),
            nn.Conv1d(channels, channels, 7, padding=6, dilation=2), nn.PReLU(channels),
            nn.Conv1d(channels, channels, 7, padding=12, dilation=4), nn.PReLU(channels),
        )  # fmt: skip
        self.correct = nn.Conv1d(channels, 1, 1)  # which begins by changing nothing
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)  # type: ignore[arg-type]
        self.equaliser = _perceptron(style_bands.BANDS, hidden, effects.EQUALISER)
        self.compressor = _perceptron(2 * encoder.envelope + 2 * channels, hidden, effects.COMPRESSOR)
        self.tape = _perceptron(encoder.embedding, hidden, effects.TAPE) if chain == "tape" else None

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Embeddings (batch, embedding) of both -> (batch, knobs)."""
        (bands, level), (wanted, wanted_level) = (self._parted(part) for part in (x, reference))
        apart = wanted[:, :1] - bands[:, :1]  # (batch, 1, bands), in nepers
        place = torch.linspace(-1, 1, self.shape[1], device=x.device).expand_as(apart)
        found = self.convolutions(torch.cat((bands / 3 + 1, wanted / 3 + 1, apart / 2, place), 1))
        response = _NEPER_DB / _DB * apart + self.correct(found)
        about = torch.cat((level, wanted_level, found.mean(2), found.amax(2)), 1)
        knobs = [self.equaliser(response[:, 0]), self.compressor(about)]
        if self.tape is not None:
            knobs.append(self.tape(torch.cat(((wanted / 3 + 1).flatten(1), wanted_level), 1)))
        return torch.sigmoid(torch.cat(knobs, 1))

    def practise(self, responses_db: Tensor, sample_rate_hz: float, steps: int, batch: int = 256) -> float:
        """Learns the knobs of equalisers from responses (number, bands), and of one less another; the error in dB.

        The error is the mean over the last tenth of the steps. No audio is played: 1,600 steps are half a minute of
        one core.
        """
        generator, errors = torch.Generator().manual_seed(0), []
        optimiser = torch.optim.Adam(self.equaliser.parameters(), 1e-3)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        hz = style_bands.centres_hz(sample_rate_hz, self.shape[1])
        for _ in range(steps):
            one, other = (responses_db[torch.randint(len(responses_db), (batch,), generator=generator)] for _ in "ab")
            p = torch.sigmoid(self.equaliser((one - other) / _DB))
            error = (effects.response_db(p, hz, sample_rate_hz) - (one - other)).abs().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
            rates.step()
            errors.append(error.item())
        last = errors[-max(steps // 10, 1) :]
        return sum(last) / len(last)

    def _parted(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The bands' numbers (batch, statistics, bands) and those of the level (batch, envelope)."""
        statistics, bands = self.shape
        return embedding[:, : statistics * bands].unflatten(1, (statistics, bands)), embedding[:, statistics * bands :]


def _perceptron(inputs: int, hidden: int, knobs: Any) -> nn.Sequential:
    """Two hidden layers; what comes out hardly moves about the start of the knobs, before the sigmoid."""
    layers = nn.Sequential(
        nn.Linear(inputs, hidden), nn.LeakyReLU(0.01),
        nn.Linear(hidden, hidden), nn.LeakyReLU(0.01),
        nn.Linear(hidden, len(knobs)),
    )  # fmt: skip
    usual = {knob.name: 1.0 if knob.name.endswith("_q") else (knob.low + knob.high) / 2 for knob in knobs}
    start = effects.normalised({name: (_START | _TAPE_START).get(name, value) for name, value in usual.items()}, knobs)
    last: Any = layers[-1]
    with torch.no_grad():
        last.weight *= 0.1
        last.bias.copy_(torch.logit(start, eps=0.01)[0])
    return layers
