"""A tape in four knobs: nothing at zero, what each knob's unit says, the same at every rate, gradients, the net."""

import json

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import settings, transfer
from revox_lightning.data import corruption
from revox_lightning.dsp import effects, interpolation, tape_effect
from revox_lightning.errors import UserError
from revox_lightning.measure.noise import noise_level_dbfs
from revox_lightning.measure.speed import demodulate, wow_and_flutter
from revox_lightning.models import effect_tcn, style_transfer
from revox_lightning.objectives.style import StyleTransferObjective

torch.set_num_threads(1)
RATES = (24_000, 44_100, 48_000)
OFF = (0.0, 0.0, 0.0, tape_effect.QUIETEST_DBFS)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def knobs(*values, batch=1):
    return [torch.full((batch,), value, dtype=torch.float64) for value in values]


def tone(hz, rate_hz, seconds=1.0, level=0.1):
    return level * torch.sin(2 * np.pi * hz * torch.arange(round(seconds * rate_hz), dtype=torch.float64) / rate_hz)


def test_at_zero_nothing_happens():
    x = noise(2, 2, 3001)
    assert (tape_effect.taped(x, 24_000, *knobs(*OFF, batch=2)) - x).abs().max() < 1e-14
    assert (tape_effect.taped(x.float(), 24_000, *knobs(*OFF, batch=2)) - x).abs().max() < 1e-6
    assert not tape_effect.taped(torch.zeros(1, 1, 500), 24_000, *knobs(6.0, 10.0, 1.0, OFF[3])).any()


@pytest.mark.parametrize("values", [(2.0, 3.0, 0.3, -50.0), OFF, (6.0, 10.0, 1.0, -40.0)])
def test_gradients_in_double_precision(values):
    torch.manual_seed(0)
    x = (1e-2 * noise(2, 2, 16)).requires_grad_()
    p = [(value + 1e-3).requires_grad_() for value in knobs(*values, batch=2)]
    chain = lambda x, *p: tape_effect.taped(x, 24_000, *p)  # noqa: E731
    assert torch.autograd.gradcheck(chain, (x, *p), eps=1e-7, atol=1e-5, rtol=1e-4)


def test_gradients_are_finite_on_silence():
    x, p = torch.zeros(1, 1, 300, requires_grad=True), [value.requires_grad_() for value in knobs(3.0, 1.0, 0.3, -60.0)]
    tape_effect.taped(x, 24_000, *p).square().sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in (x, *p))


def test_drive_is_the_gain_lost_at_the_rms_and_keeps_the_loudness():
    x = noise(1, 1, 4096)
    x[..., 1000:] = 0.0
    slow = torch.sin(torch.linspace(0, 2 * np.pi, 8000, dtype=torch.float64))[None, None]  # nothing above half the rate
    for drive_db in (1.0, 6.0):
        y = tape_effect.saturated(slow, *knobs(drive_db))
        assert torch.allclose(y.square().mean(), slow.square().mean(), rtol=1e-9)
        gain_db = 20 * torch.log10((y / slow)[0, 0])
        at_rms = (slow[0, 0] - slow.square().mean().sqrt()).abs()[:2000].argmin()
        assert gain_db[20] - gain_db[at_rms] == pytest.approx(drive_db, abs=0.02)
        driven = tape_effect.saturated(x, *knobs(drive_db))
        assert torch.allclose(driven.square().mean(), x.square().mean(), rtol=1e-9)
        assert torch.allclose(tape_effect.saturated(10 * x, *knobs(drive_db)), 10 * driven, rtol=1e-9)


@pytest.mark.parametrize("rate_hz", RATES)
def test_spacing_loses_55_db_a_wavelength(rate_hz):
    x = tone(10_000, rate_hz, 0.2)[None, None]
    y = tape_effect.dulled(x, rate_hz, *knobs(3.0))
    inside = slice(rate_hz // 20, -rate_hz // 20)
    loss_db = 20 * torch.log10(y[..., inside].square().mean().sqrt() / x[..., inside].square().mean().sqrt())
    wavelength_um = tape_effect.TAPE_UM_PER_SECOND / 10_000
    assert loss_db.item() == pytest.approx(-54.575 * 3 / wavelength_um, abs=0.02)


@pytest.mark.parametrize("rate_hz", RATES)
def test_wow_and_hiss_read_what_they_are_told(rate_hz):
    x = tone(3150, rate_hz, 12.0)[None, None]
    y = tape_effect.wavering(x, rate_hz, *knobs(0.3))[0, 0].numpy()
    assert wow_and_flutter(demodulate(y, rate_hz)) == pytest.approx(0.3, rel=0.1)
    hiss = tape_effect.hissing(torch.zeros(1, 1, 5 * rate_hz, dtype=torch.float64), rate_hz, *knobs(-57.0))[0, 0]
    beyond_db = 0.7 if rate_hz == 24_000 else 0.0
    assert noise_level_dbfs(hiss.numpy(), rate_hz, "a") == pytest.approx(-57.0 - beyond_db, abs=0.1)


def test_wow_is_read_as_the_house_reads():
    x, moved = noise(1, 2, 2000), 0.01 * 24_000 * 0.8 * tape_effect.unit_wow(2000, 24_000, seed=3)
    y = tape_effect.wavering(x, 24_000, *knobs(0.8), seed=3)[0]
    for channel, signal in zip(y, x[0], strict=True):
        wanted = interpolation.read_at(signal.numpy(), np.arange(2000) - moved)
        assert np.abs(channel.numpy() - wanted).max() < 1e-9
    assert np.abs(moved).max() > 1


@pytest.mark.parametrize("rate_hz", RATES[1:])
def test_every_rate_hears_the_same(rate_hz):
    """Samples of 24 kHz and of another rate at the same moments, of music that both hold; hiss to their last octave."""
    values = knobs(3.0, 2.0, 0.5, OFF[3])
    chord = [sum(tone(hz, rate, 1.0) for hz in (220, 331, 1500))[None, None] for rate in (24_000, rate_hz)]
    slow, fast = (tape_effect.taped(x, rate, *values) for x, rate in zip(chord, (24_000, rate_hz), strict=True))
    step = np.gcd(24_000, rate_hz)
    pair = [y[0, 0, :: rate // step] for y, rate in ((slow, 24_000), (fast, rate_hz))]
    assert (pair[0] - pair[1])[20:-20].abs().max() < 2e-3 * pair[0].abs().max()
    spectra = [np.fft.rfft(tape_effect.unit_hiss(2, 10 * rate, rate, 0)) / rate for rate in (24_000, rate_hz)]
    assert np.allclose(spectra[0][:, 300:119_000], spectra[1][:, 300:119_000], atol=1e-9)


def test_noise_is_the_seed_s_and_each_channel_s_own():
    first, again, other = (tape_effect.unit_hiss(2, 4000, 24_000, seed) for seed in (0, 0, 1))
    assert (first == again).all() and abs(np.corrcoef(first[0], other[0])[0, 1]) < 0.1
    assert abs(np.corrcoef(first)[0, 1]) < 0.1
    assert not np.allclose(tape_effect.unit_wow(4000, 24_000, 0), tape_effect.unit_wow(4000, 24_000, 1), atol=1e-5)
    long = tape_effect.unit_hiss(1, 62 * 8000, 8000, 0)
    assert np.array_equal(long[:, : 2 * 8000], long[:, 60 * 8000 :])


def test_the_chain_ends_with_a_tape_where_28_knobs_are_told():
    x, p = noise(2, 1, 6000).float(), torch.rand(2, 28, generator=torch.Generator().manual_seed(1))
    exact = effects.render_exactly(x, p, 24_000)
    assert (effects.render(x, p, 24_000) - exact).abs().max() < 2e-3 * exact.abs().max()
    studio = effects.render(x, p[:, :24], 24_000)
    assert torch.equal(effects.render(x, p, 24_000), effects.taped(studio, p[:, 24:], 24_000))
    told = {name: value.item() for name, value in effects.denormalised(p[:1]).items()}
    assert len(told) == 28 and torch.allclose(effects.normalised(told), p[:1], atol=1e-6)
    with pytest.raises(ValueError, match="wow_percent is 2"):
        effects.normalised(told | {"wow_percent": 2.0})


def test_a_corruption_tells_the_tape_it_has_drawn():
    x = noise(48_000).numpy()
    x[:1200] *= 0.3  # the peak lies not where it is faded in
    x[:1200] *= 0.3  # so that fading in hardly moves the peak
    x[24_000:] = 0.0
    plain, make = corruption.Corruption(24_000), corruption.Corruption(24_000, chain="tape")
    drawn = [make(x, np.random.default_rng(seed), False) for seed in range(12)]
    drawn = [(heard, wanted, truth[-4:]) for heard, wanted, truth in drawn]
    assert any(not told.any() for *_, told in drawn) and all(((told >= 0) & (told <= 1)).all() for *_, told in drawn)
    for seed, (heard, wanted, told) in enumerate(drawn):
        assert np.array_equal(heard, plain(x, np.random.default_rng(seed), False)[0])
        assert np.abs(wanted).max() == pytest.approx(10 ** (corruption.PEAK_DBFS / 20))
        if told[3] > 0.45:  # what remains in the silence, above what the equalisers ring on
            wanted_dbfs = -100 + 60 * told[3] - 0.7
            assert noise_level_dbfs(wanted[30_000:46_000], 24_000, "a") == pytest.approx(wanted_dbfs, abs=1.5)


def test_a_net_with_a_tape_learns_what_it_was_told():
    torch.manual_seed(0)
    net = style_transfer.style_transfer("small", style_transfer.Automatic(), chain="tape")
    batch = {"dry": noise(2, 1, 20_000).float(), "wet": noise(2, 1, 20_000, seed=1).float()}
    objective = StyleTransferObjective()
    assert "tape" not in objective(net, batch | {"controls": torch.zeros(2, 0)}, None)[0]
    truth = torch.cat((torch.zeros(2, 97), torch.ones(2, 5), torch.rand(2, 4)), 1)
    for telling in (False, True):
        objective.begin_epoch(0 if telling else 3, 4)
        net.zero_grad()
        terms, _ = objective(net, batch | {"controls": truth}, None)
        objective.total(terms).backward()
        last = net.controller.tape[-1].weight.grad
        assert last.shape == (4, 256) and last.isfinite().all() and (last.abs().amax(1) > 0).all()
        assert ("mrstft" in terms) != telling
    objective.begin_epoch(3, 4)
    terms, _ = objective(net, batch | {"controls": truth}, None)
    assert torch.allclose(objective.total(terms), terms["mrstft"] + 100 * terms["mae"] + 30 * terms["tape"])


def test_words_for_the_chain():
    for chain in ("studio", "tape"):
        cfg = settings.composed(["model=style_transfer", f"model.chain={chain}"])
        assert cfg.data.corruption.chain == chain
    with pytest.raises(UserError, match="chain=wire"):
        style_transfer.style_transfer("small", style_transfer.Automatic(), chain="wire")
    with pytest.raises(UserError, match="EndToEnd has nets"):
        style_transfer.style_transfer("small", effect_tcn.EndToEnd(1, width=4), chain="tape")


def test_a_transfer_tells_its_tape_and_renders_it_again(tmp_path, capsys):
    audio.write(tmp_path / "in.wav", noise(2, 30_000).float(), 44_100)
    told = {name: value.item() for name, value in effects.denormalised(torch.full((1, 28), 0.5)).items()}
    told |= {"threshold_db": 0.0, "ratio": 1.0, "hiss_dbfs": -100.0}
    (tmp_path / "knobs.json").write_text(json.dumps({"knobs": told, "peak": 0.25}))
    transfer.transfer([f"knobs={tmp_path / 'knobs.json'}", str(tmp_path / "in.wav"), str(tmp_path / "a.wav")])
    out = capsys.readouterr().out
    assert "drive 3.0 dB, spacing 5.0 um at 7.5 ips, wow 0.50 % weighted, hiss -100 dB (A)" in out
    assert json.loads((tmp_path / "a.json").read_text())["knobs"] == pytest.approx(told)
    transfer.transfer([f"knobs={tmp_path / 'a.json'}", str(tmp_path / "in.wav"), str(tmp_path / "b.wav")])
    a, b = (audio.read(tmp_path / name) for name in ("a.wav", "b.wav"))
    assert (a - b).abs().max() < 1e-6
