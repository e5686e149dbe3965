"""The published tape models: their own outputs, the real recorder they were trained on, and files that are none."""

import json

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.dsp.pulses import find_pulses, pulse_trajectory, resolve_period
from revox_lightning.errors import UserError
from revox_lightning.export import mikkonen
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.recurrent import Recurrent

torch.set_num_threads(1)
RATE, SKIP, EPSILON = 44_100, 8192, 1e-5


@pytest.fixture
def weights(golden):
    return golden / "tape" / "gru_best.npz"


def settled(net, x: torch.Tensor) -> torch.Tensor:
    """What the net plays before its delay line, after the published silence."""
    _, state = net(torch.zeros(1, 1, net.preroll_samples))
    return net(x, None, state)[0]


def esr(y: torch.Tensor, y_hat: torch.Tensor) -> float:
    y, y_hat = y[SKIP:].double(), y_hat[SKIP:].double()
    return float((y - y_hat).square().mean() / (y.square().mean() + EPSILON))


def clip(golden, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    folder = golden / "tape" / "real_tape"
    return tuple(audio.read(folder / f"akai_maxell_7.5ips_{number}_{side}.flac") for side in ("input", "target"))


def test_every_published_net_loads(weights):
    names = mikkonen.names(weights)
    nets = {name: mikkonen.load(weights, name) for name in names}
    assert len(names) == 32
    for name, net in nets.items():
        assert isinstance(net, Delayed if name.startswith("DiffDel") else Recurrent)
        assert sum(weight.numel() for weight in net.parameters()) == (12_929 if name.startswith("GRU") else 12_928)


@torch.no_grad()
def test_before_the_delay_they_play_as_published(golden, weights):
    expected = np.load(golden / "tape" / "real_tape" / "gru_reference_outputs_predelay.npz")
    x = clip(golden, 1)[0][None, :1, :88_200]
    assert len(expected.files) == 5
    for key in expected.files:
        played = settled(mikkonen.load(weights, key.split("/")[0]), x)
        assert np.abs(played[0, 0].numpy() - expected[key]).max() < 1e-5


def as_published(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pulses at their largest samples, whole numbers, as the authors' trajectories have them."""
    near = np.round(places).astype(int)[:, None] + np.arange(-3, 4)
    return near[:, 3] - 3 + x[near].argmax(axis=1)


def own_trajectory(dry: np.ndarray, wet: np.ndarray) -> np.ndarray:
    """Delay of each wet sample by our own tracker, its constant part that between the largest samples of the pulses."""
    found = resolve_period(pulse_trajectory(dry[1], wet[1], RATE), dry[0], wet[0], RATE)
    played, recorded = (find_pulses(x[1], RATE) for x in (dry, wet))
    delay = found.at(recorded)
    partner = np.abs(played[None] - (recorded - delay)[:, None]).argmin(axis=1)
    matched = np.abs(played[partner] - (recorded - delay)) < 5
    peaks = as_published(wet[1], recorded)[matched] - as_published(dry[1], played[partner[matched]])
    return found.shifted(float(np.mean(peaks - delay[matched]))).per_sample(wet.shape[1])


@pytest.mark.parametrize("number, count", [(1, 1), *(pytest.param(n, 5, marks=pytest.mark.slow) for n in (1, 2, 3))])
@torch.no_grad()
def test_the_real_recorder_is_met_as_published_and_no_worse_by_our_own_trajectory(golden, weights, number, count):
    folder = golden / "tape" / "real_tape"
    published = json.loads((folder / "expected_esr.json").read_text())
    dry, wet = clip(golden, number)
    stored = np.load(folder / "trajectories.npz")[f"clip{number}_delay_samples_per_sample"]
    own = own_trajectory(dry.double().numpy(), wet.double().numpy())
    stored, own = (torch.from_numpy(delay).float()[None, None] for delay in (stored, own))
    assert (own - stored)[..., SKIP:-SKIP].abs().max() < 2
    nets = sorted(name for name in published if "GRU" in name)  # those with a delay first
    assert len(nets) == 5
    for name in nets[:count]:
        expected = published[name][f"clip{number}"]["ESR_eps1e-5"]
        net = mikkonen.load(weights, name)
        p = settled(net, dry[None, :1])
        plain = net.line if isinstance(net, Delayed) else DelayLine(8192)
        assert esr(wet[0], plain(p, stored)[0][0, 0]) == pytest.approx(expected, rel=0.02)
        assert esr(wet[0], DelayLine(8192)(p, own)[0][0, 0]) <= 1.001 * expected  # written with four digits
        if isinstance(net, Delayed):  # the whole net does what its parts do
            _, state = net(torch.zeros(1, 1, net.preroll_samples))
            torch.testing.assert_close(
                net(dry[None, :1], stored, state)[0][..., SKIP:], plain(p, stored)[0][..., SKIP:]
            )
    still, _ = DelayLine(8192)(dry[None, :1], stored)
    assert esr(wet[0], still[0, 0]) == pytest.approx(published["dry_delayed"][f"clip{number}"]["ESR_eps1e-5"], rel=0.02)


def arrays(model: str = "DiffDelGRU", hidden: int = 4) -> dict[str, np.ndarray]:
    net = Recurrent("gru", hidden, skip=False, bias=model == "GRU")
    parts = {"rec": "GRU", "lin": "output"}
    named = {f"{parts[key.split('.')[0]]}.{key.split('.')[1]}": weight for key, weight in net.state_dict().items()}
    return {f"{model}_ESR_toy_1/{key}": weight.numpy() for key, weight in named.items()}


@pytest.mark.parametrize("model", ["GRU", "DiffDelGRU"])
@torch.no_grad()
def test_round_trip(tmp_path, model):
    path, stored = tmp_path / "nets.npz", arrays(model)
    np.savez(path, **stored)
    net = mikkonen.load(path, f"{model}_ESR_toy_1", max_delay_samples=100)
    again = {key.removeprefix("core."): weight.numpy() for key, weight in net.state_dict().items()}
    assert np.array_equal(again["rec.weight_hh_l0"], stored[f"{model}_ESR_toy_1/GRU.weight_hh_l0"])
    assert np.array_equal(again["lin.weight"], stored[f"{model}_ESR_toy_1/output.weight"])
    assert ("lin.bias" in again) == (model == "GRU") and net.preroll_samples == 1024
    assert net(torch.randn(1, 1, 50))[0].shape == (1, 1, 50)


def broken() -> dict[str, dict[str, np.ndarray]]:
    good, first = arrays(), "DiffDelGRU_ESR_toy_1/"
    return {
        "no weights": {"pulses": np.zeros(3)},
        "whole numbers": {f"{first}output.weight": np.zeros((1, 4), int)},
        "not a number": good | {f"{first}output.weight": np.full((1, 4), np.nan, np.float32)},
        "a missing weight": {key: value for key, value in good.items() if "hh" not in key},
        "another size": good | {f"{first}output.weight": np.zeros((1, 5), np.float32)},
        "a bias too many": good | {f"{first}output.bias": np.zeros(1, np.float32)},
        "a second layer": good | {f"{first}GRU.weight_ih_l1": np.zeros((12, 4), np.float32)},
        "another net": {key.replace("DiffDelGRU", "TCN"): value for key, value in good.items()},
        "another run": {key.replace("toy_1", "toy_2"): value for key, value in good.items()},
    }


@pytest.mark.parametrize("name", broken())
def test_a_file_that_holds_no_such_net_is_one_sentence(tmp_path, name):
    path, stored = tmp_path / "nets.npz", broken()[name]
    np.savez(path, **stored)
    wanted = "TCN_ESR_toy_1" if name == "another net" else "DiffDelGRU_ESR_toy_1"
    with pytest.raises(UserError, match=r"nets\.npz") as refusal:
        mikkonen.load(path, wanted)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_npz_is_one_sentence(tmp_path, content):
    path = tmp_path / "nets.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"nets\.npz"):
        mikkonen.names(path)
