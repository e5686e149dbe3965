"""Texture: statistics of the ear, the random network, the optimisation over windows, ``revox texture``."""

import itertools
import json
import math

import pytest
import torch

from revox_lightning import audio, texture
from revox_lightning.commands import texture as command
from revox_lightning.commands import texture_row
from revox_lightning.commands.exits import guarded
from revox_lightning.data.solos import SOUNDS, sound
from revox_lightning.dsp import filterbanks
from revox_lightning.dsp import texture as ear
from revox_lightning.dsp.windows import extended, joined, windows
from revox_lightning.errors import UserError
from revox_lightning.models import shallow_random as net
from revox_lightning.report import sounds_page
from revox_lightning.texture import Options

torch.set_num_threads(1)
SECOND = ear.RATE_HZ


def noise(samples=SECOND, seed=0, batch=None):
    shape = (samples,) if batch is None else (batch, samples)
    return ear.RMS * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def modulated(hz, samples=SECOND, seed=1):
    return noise(samples, seed) * (1 + 0.9 * torch.sin(torch.arange(samples) * (2 * math.pi * hz / ear.RATE_HZ)))


@pytest.fixture(scope="module")
def statistics():
    return ear.Statistics(SECOND, bands=8)


def envelopes_at_full_rate(x, bands):
    """By the definition: analytic subbands at the audio's rate, compressed, then cut to 400 Hz; double precision."""
    samples = x.shape[-1]
    bank = filterbanks.cochlear(torch.fft.rfftfreq(samples, 1 / ear.RATE_HZ), bands).double()
    bank[:, 0] = 0
    spectrum = torch.zeros(len(x), bands, samples, dtype=torch.complex128)
    spectrum[..., : samples // 2 + 1] = 2 * torch.fft.rfft(x.double())[:, None] * bank
    envelope = (torch.fft.ifft(spectrum).abs().square() + 1e-10) ** 0.15
    low = torch.fft.rfft(envelope)[..., : samples // 100 + 1]
    return torch.fft.irfft(low, samples // 50) / 50


# ---- filters ----


@pytest.mark.parametrize("bands", [4, 8, 32])
def test_the_squares_of_cochlear_bands_add_to_one(bands):
    bank = filterbanks.cochlear(torch.linspace(0, 10_000, 5001), bands)
    assert bank.shape == (bands, 5001)
    assert bank.square().sum(0).allclose(torch.ones(5001), atol=1e-5)
    assert (bank > 0).sum(0).max() <= 2  # half overlap: never more than two at once


def test_too_few_cochlear_bands_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        filterbanks.cochlear(torch.zeros(3), 3)


def test_modulation_bands_have_their_centres_and_one_as_their_sum():
    hz = torch.linspace(0, 200, 40_001)
    bank = filterbanks.modulation(hz)
    peaks = hz[bank.argmax(1)]
    assert peaks[[0, -1]].allclose(torch.tensor([0.5, 200.0]), rtol=0.02)
    assert (peaks[1:] / peaks[:-1]).allclose(torch.full((19,), 400 ** (1 / 19)), rtol=0.03)
    inside = (hz > peaks[3]) & (hz < peaks[-4])
    assert bank.square().sum(0)[inside].mean() == pytest.approx(1, abs=1e-3)


def test_octaves_are_one_at_their_centres_and_nothing_an_octave_away():
    centres = torch.tensor([1.5625, 3.125, 6.25, 12.5, 25, 50, 100])
    assert filterbanks.octaves(centres).allclose(torch.eye(7), atol=1e-6)


# ---- statistics ----


def test_the_imposed_set_has_its_published_dimension():
    found = ear.Statistics(SECOND)(noise(batch=1))
    assert sum(value.numel() for value in found.values()) == 1739
    assert all(torch.isfinite(value).all() for value in found.values())


def test_envelopes_at_low_rates_are_those_of_the_full_rate():
    x = torch.stack([noise(2 * SECOND), modulated(7, 2 * SECOND)])
    expected = envelopes_at_full_rate(x, 32).float()
    found = ear.Statistics(2 * SECOND).envelopes(x)
    error = ((found - expected).square().mean(-1) / expected.var(-1)).sqrt()
    assert error.max() < 0.06 and error.mean() < 0.02


def test_when_things_happen_does_not_matter(statistics):
    x = modulated(5)[None]
    one, other = statistics(x), statistics(x.roll(50 * 123, -1))
    for name in one:
        assert one[name].allclose(other[name], rtol=1e-3, atol=2e-4), name


def test_of_the_level_only_powers_and_means_tell(statistics):
    one, loud = statistics(noise(batch=1)), statistics(10 * noise(batch=1))
    assert loud["subband_variance"].allclose(100 * one["subband_variance"], rtol=1e-4)
    assert loud["envelope_mean"].allclose(10**0.3 * one["envelope_mean"], rtol=1e-2)
    for name in ("envelope_variation", "envelope_correlation", "modulation_power", "modulation_c1"):
        assert loud[name].allclose(one[name], atol=0.02), name


def test_subband_variances_add_to_the_power(statistics):
    x = noise(batch=3)
    expected = (x - x.mean(-1, keepdim=True)).square().mean(-1)
    assert statistics(x)["subband_variance"].sum(-1).allclose(expected, rtol=1e-3)


@pytest.mark.parametrize("hz", [4.0, 16.0, 64.0])
def test_a_modulation_shows_in_its_band(statistics, hz):
    power = statistics(modulated(hz)[None])["modulation_power"][0].mean(0)
    centres = torch.logspace(math.log10(0.5), math.log10(200), 20)
    assert abs(math.log(float(centres[power.argmax()]) / hz)) < 0.35


def test_modulations_together_are_correlated_and_apart_are_not(statistics):
    together = statistics(modulated(8)[None])["modulation_c1"][0]
    apart = statistics(noise(batch=1))["modulation_c1"][0]
    assert together[:, 2].min() > 0.7 > 0.4 > apart[:, 2].abs().mean()  # the third of the upper six has 12.5 Hz


def test_correlations_are_those_of_the_definition():
    x = modulated(6)[None]
    found = ear.Statistics(SECOND, 8)(x)
    envelopes = ear.Statistics(SECOND, 8).envelopes(x)[0].double()
    unit = envelopes - envelopes.mean(-1, keepdim=True)
    spectrum = torch.fft.fft(unit)
    hz = torch.fft.fftfreq(400, 1 / 400)
    octave = filterbanks.octaves(hz.abs()).double()
    bands = torch.fft.ifft(spectrum[:, None] * octave).real  # (8, 7, 400)
    c1 = [torch.corrcoef(bands[[0, 1], m])[0, 1] for m in range(1, 7)]
    assert found["modulation_c1"][0, 0].double().allclose(torch.stack(c1), atol=1e-4)
    analytic = torch.fft.ifft(spectrum[:, None] * octave * 2 * (hz > 0))[2, 3:5]
    doubled = analytic[0] ** 2 / analytic[0].abs()
    scale = (doubled.real.square().mean() * analytic[1].real.square().mean()).sqrt()
    c2 = torch.stack([(doubled.real * analytic[1].real).mean(), (doubled.real * analytic[1].imag).mean()]) / scale
    assert found["modulation_c2"][0, 2, 3].double().allclose(c2, atol=1e-3)
    power = (
        torch.fft.ifft(spectrum * filterbanks.modulation(hz.abs())[9]).real.square().mean(-1)
    ) / unit.square().mean(-1)
    assert found["modulation_power"][0, :, 9].double().allclose(power, rtol=1e-3)
    assert found["envelope_kurtosis"][0].double().allclose(
        unit.pow(4).mean(-1) / unit.square().mean(-1).square(), rtol=1e-3
    )  # fmt: skip


def test_gradients_are_those_of_differences_and_finite_in_silence(statistics):
    wanted = statistics(modulated(4)[None])

    def loss(x):
        return sum(ear.errors(statistics(x), wanted).values())

    x = noise(batch=1).requires_grad_()
    now = loss(x)
    (gradient,) = torch.autograd.grad(now, x)
    slope = gradient.norm().item()
    step = 0.01 * now.item() / slope * gradient / slope
    with torch.no_grad():
        difference = (loss(x + step) - loss(x - step)).item()
    assert difference == pytest.approx(0.02 * now.item(), rel=0.02)
    silence = torch.zeros(1, SECOND, requires_grad=True)
    loss(silence).backward()
    assert torch.isfinite(silence.grad).all()


def test_empty_and_malformed_signals_are_refused(statistics):
    for samples in (0, 450, SECOND + 1):
        with pytest.raises(ValueError, match="multiple of 50"):
            ear.Statistics(samples)
    for shape in ((SECOND,), (1, SECOND - 50), (1, 0)):
        with pytest.raises(ValueError, match="expected a signal"):
            statistics(torch.zeros(shape))


def test_errors_of_equal_and_of_stored_statistics(statistics):
    found = statistics(noise(batch=1))
    assert all(float(value) == 0 for value in ear.errors(found, found).values())
    assert all(value == math.inf for value in ear.snr_db(found, found).values())
    one, other = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.0, 3.0])}
    assert float(ear.errors(one, other)["a"]) == pytest.approx(0.1)
    assert ear.snr_db(one, other)["a"] == pytest.approx(10)


def test_stored_statistics(statistics):
    t = torch.arange(SECOND, dtype=torch.float64)
    x = (ear.RMS * torch.sin(t**1.5 * 1e-3) * (1 + torch.sin(t * 2e-3))).float()
    found = {name: float(value.mean()) for name, value in statistics(x[None]).items()}
    assert found == pytest.approx(STORED, rel=2e-3, abs=2e-4)


STORED = {
    "subband_variance": 9.9e-06,
    "envelope_mean": 0.07627,
    "envelope_variation": 0.3945362,
    "envelope_skewness": 9.0179358,
    "envelope_kurtosis": 158.9224854,
    "envelope_correlation": 0.2738188,
    "modulation_power": 0.0495275,
    "modulation_c1": 0.4651767,
    "modulation_c2": 0.1609636,
}


# ---- the random network ----


def test_gram_errors_are_those_of_the_matrices():
    one, other = (torch.rand(30, frames, generator=torch.Generator().manual_seed(frames)) for frames in (12, 17))
    expected = (net.gram(one) - net.gram(other)).square().sum() / net.gram(other).square().sum()
    assert float(net.gram_error(one, other)) == pytest.approx(float(expected), rel=1e-4)
    assert float(net.gram_error(one, one)) == pytest.approx(0, abs=1e-6)
    assert float(net.gram_error(one, one[:, torch.randperm(12)])) == pytest.approx(0, abs=1e-6)


def test_the_seed_is_the_network():
    x = torch.rand(1025, 20, generator=torch.Generator().manual_seed(0))
    one, same, other = (net.ShallowRandom(8, seed)(x) for seed in (3, 3, 4))
    assert one.shape == (8, 10) and torch.equal(one, same) and not torch.equal(one, other)
    assert float(one.min()) >= 0 and not net.ShallowRandom(8).state_dict()


def test_a_spectrum_with_its_own_phase_is_its_signal():
    x = 10 * noise(8192)
    spectrum = net.spectrum(x)
    for iterations in (0, 3):
        again = net.griffin_lim(spectrum.abs(), spectrum.angle(), 8192, iterations)
        assert (again - x).abs().max() < 1e-5


# ---- windows ----


@pytest.mark.parametrize("samples", [20_000, 199_999, 200_001, 450_000, 1_234_567])
def test_windows_cover_everything_and_put_it_together_again(samples):
    size, starts = windows(samples, 200_000, 20_000, 50)
    x = extended(noise(samples), size)
    assert size % 50 == 0 and starts[0] == 0 and starts[-1] + size == len(x) >= samples
    assert all(b - a <= size - 20_000 for a, b in itertools.pairwise(starts))
    assert joined([x[at : at + size] for at in starts], starts).allclose(x, atol=1e-6)


# ---- the optimisation ----

QUICK = Options(iterations=15, bands=8, seconds=60, content_weight=0)


def test_the_loss_falls_to_a_third_and_the_content_is_heard():
    content, style = modulated(3, seed=2), noise(seed=7)
    outcome = texture.transfer(content, style, QUICK)
    before, after = (texture.measured(x, style, 8, 10.0) for x in (content, outcome.audio))
    assert outcome.finished and sum(after.values()) < sum(before.values()) / 3
    assert torch.corrcoef(torch.stack([content, outcome.audio]))[0, 1] > 0.6
    assert all(after[name] < max(before[name], 0.1) for name in before)


def test_the_level_is_that_of_the_content():
    content, style = 30 * modulated(3, seed=2), noise(seed=7)
    outcome = texture.transfer(content, style, Options(iterations=3, bands=8))
    assert outcome.audio.std() == pytest.approx(content.std().item(), rel=0.3)
    same = texture.transfer(content / 30, style, Options(iterations=3, bands=8)).audio
    assert (outcome.audio / 30 - same).abs().max() < 0.05 * same.abs().max()


def test_a_content_term_keeps_more_of_the_content():
    content, style = modulated(3, seed=2), modulated(20, seed=7)
    free, held = (
        texture.transfer(content, style, Options(iterations=10, bands=8, content_weight=weight)).audio
        for weight in (0.0, 10.0)
    )
    assert (held - content).square().sum() < 0.8 * (free - content).square().sum()


def test_the_content_has_a_weight_where_it_is_what_it_starts_from():
    weights = [Options().weight, Options(content_weight=0).weight, Options(start="noise").weight,
               Options("shallow_random").weight, Options("shallow_random", content_weight=2).weight]  # fmt: skip
    assert weights == [4, 0, 0, 0, 2]


def test_speech_in_crackle_is_still_that_speech():
    content, style = (torch.from_numpy(sound(name, 2, ear.RATE_HZ)) for name in ("speech", "crackle"))
    correlations = []
    for weight in (None, 0.0):
        options = Options(bands=8, iterations=60, content_weight=weight, seconds=600)
        outcome = texture.transfer(content, style, options)
        before, after = (texture.measured(x, style, 8, 10.0) for x in (outcome.start, outcome.audio))
        assert outcome.finished and sum(after.values()) < sum(before.values()) / 4  # the distance is half of it
        correlations.append(float(torch.corrcoef(torch.stack([content, outcome.audio]))[0, 1]))
        if weight is None:
            assert all(after[name] < before[name] for name in before)
    assert correlations[0] > 0.8 and correlations[0] > correlations[1] + 0.02


def test_it_goes_on_where_the_time_ended(tmp_path):
    content, style = modulated(3, 3 * SECOND, seed=2), noise(seed=7)
    options = Options(iterations=8, bands=8, seconds=0.01, window_seconds=2)
    state = tmp_path / "out.state"
    first = texture.transfer(content, style, options, state)
    assert not first.finished and state.is_file() and len(first.iterations) == 2
    second = texture.transfer(content, style, Options(iterations=8, bands=8, seconds=60, window_seconds=2), state)
    assert second.finished and second.iterations == [8, 8] and not state.exists()
    assert second.loss[1] < first.loss[1] <= first.loss[0] == pytest.approx(second.loss[0])


@pytest.mark.parametrize("content", [b"no such thing", None])
def test_a_state_of_something_else_is_left_aside(tmp_path, content, caplog):
    state = tmp_path / "out.state"
    if content is None:
        texture.transfer(noise(), modulated(4), Options(iterations=9, bands=8, seconds=0.0), state)
    else:
        state.write_bytes(content)
    outcome = texture.transfer(noise(seed=3), modulated(4), Options(iterations=2, bands=8), state)
    assert outcome.finished and "starts anew" in caplog.text


def test_silence_and_snippets_are_refused():
    for content, style in ((torch.zeros(SECOND), noise()), (noise(), torch.zeros(SECOND)), (noise(500), noise())):
        with pytest.raises(UserError):
            texture.transfer(content, style, QUICK)


def test_the_random_network_moves_the_spectrogram():
    rate_hz = Options("shallow_random").rate_hz
    style = torch.fft.irfft(torch.fft.rfft(noise(rate_hz)) * (torch.fft.rfftfreq(rate_hz) < 0.1), rate_hz)
    content = noise(rate_hz, seed=4)
    outcome = texture.transfer(content, style, Options("shallow_random", iterations=10, filters=128))
    assert outcome.finished and outcome.loss[1] < outcome.loss[0] / 10
    powers = [torch.fft.rfft(x).abs().square() for x in (content, outcome.audio)]
    shares = [float(power[rate_hz // 8 :].sum() / power.sum()) for power in powers]
    assert shares[1] < shares[0] - 0.02
    assert torch.corrcoef(torch.stack([content, outcome.audio]))[0, 1] > 0.8  # the content's phase


# ---- the command ----


@pytest.fixture
def files(tmp_path):
    audio.write(tmp_path / "style.wav", 10 * noise(22_050)[None], 22_050)
    x = 10 * torch.stack([modulated(3, 44_100, seed=2), modulated(3, 44_100, seed=3)])
    audio.write(tmp_path / "in.wav", x, 44_100)
    return [f"style={tmp_path / 'style.wav'}", f"content={tmp_path / 'in.wav'}", str(tmp_path / "out.wav")]


def test_a_command_leaves_audio_figures_and_a_page(files, tmp_path, capsys):
    command.texture([*files, "bands=8", "iterations=10"])
    said = capsys.readouterr().out
    assert "modulation power" in said and "correlation with the content" in said
    x, y = audio.read(tmp_path / "in.wav"), audio.read(tmp_path / "out.wav")
    assert y.shape == x.shape and audio.info(tmp_path / "out.wav").sample_rate_hz == 44_100
    high = torch.fft.rfft(y - x)[:, round(10_100 * x.shape[-1] / 44_100) :]
    assert high.abs().square().sum() < 1e-6 * torch.fft.rfft(x).abs().square().sum()  # the content's, as it was
    assert ((y - x)[0] - (y - x)[1]).abs().max() < 1e-6  # and so is what differs between channels
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["loss"][1] < figures["loss"][0] and 0 < figures["correlation_with_content"] <= 1
    page = (tmp_path / "out.html").read_text()
    assert page.count('type="text/plain"') == 3 and "modulation power" in page
    assert not (tmp_path / "out.state").exists()


def test_noise_becomes_the_style_whatever_the_content(files, tmp_path):
    command.texture([*files, "bands=8", "iterations=5", "start=noise"])
    y = audio.read(tmp_path / "out.wav")
    assert torch.equal(y[0], y[1]) and y.std() == pytest.approx(0.1, rel=0.3)


def test_bad_words_are_refused_in_one_sentence(files, tmp_path, capsys):
    audio.write(tmp_path / "silent.wav", torch.zeros(1, 44_100), 44_100)
    for words in (
        files[:2], files[1:], [*files, "loud=1"], [*files, "texture=vgg"], [*files, "iterations=0"], [*files, "seconds=x"],
        [*files, "start=end"], [*files[:2], str(tmp_path / "in.wav")], [*files, "bands=3"], [*files, "content_weight=nan"],
        [f"style={tmp_path / 'silent.wav'}", *files[1:]], [files[0], "content=none.wav", files[2]],
    ):  # fmt: skip
        assert guarded(lambda words=words: command.texture(words)) == 2, words
        assert capsys.readouterr().err.count("error:") == 1
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("name", SOUNDS)
def test_built_in_sounds_follow_their_seed(name):
    one, same, other = (sound(name, 1.5, 8000, seed) for seed in (0, 0, 1))
    assert one.shape == (12_000,) and one.dtype == "float32" and abs(one).max() == pytest.approx(0.5)
    assert (one == same).all() and abs(one - other).max() > 0.05
    assert (one[-6000:].std() > 1e-3) and len(sound(name, 0.01, 8000)) == 80


def test_a_row_of_a_table_leaves_its_figures(tmp_path, capsys):
    audio.write(tmp_path / "style.wav", 10 * noise(44_100)[None], 22_050)
    words = ["content=guitar", f"style={tmp_path / 'style.wav'}", "audio_seconds=1.5", "bands=8", "iterations=3"]
    texture_row.texture_row([*words, f"run_dir={tmp_path / 'row'}"])
    found = json.loads((tmp_path / "row" / "metrics.json").read_text())
    assert found["test/loss_ratio"] > 1 and found["test/distance"] < found["test/distance_start"]
    assert found["test/iterations"] == 3 and 0 <= found["test/classes_nearer"] <= 9
    assert audio.info(tmp_path / "row" / "style.wav").frames == 33_075
    told, files = texture_row.described(words)
    assert files == [tmp_path / "style.wav"] and told["iterations"] == 3 and told["audio_seconds"] == 1.5
    assert texture_row.described(["content=guitar", "style=drums"])[1] == []
    with pytest.raises(UserError, match="time limit"):
        texture_row.texture_row([*words, "iterations=100000", "seconds=1", f"run_dir={tmp_path / 'other'}"])
    assert (tmp_path / "other" / "out.state").exists() and not (tmp_path / "other" / "metrics.json").exists()


@pytest.mark.parametrize(
    "words,says",
    [
        ([], "needs content="), (["content=guitar"], "needs style="), (["content=a", "style=b", "run_dir=c", "x=1"], "no x=1"),
        (["content=guitar", "style=drums"], "run_dir=FOLDER"), (["content=guitar", "style=drums", "audio_seconds=x"], "audio_"),
        (["content=guitar", "style=drums", "bands=x"], "bands=x"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused(words, says):
    with pytest.raises(UserError, match=says):
        texture_row.described(words)
        texture_row.texture_row(words)


def test_names_on_a_page_are_only_names(tmp_path):
    hostile = "</script><script>window.hacked=1</script>"
    rows = [(hostile, 10 * noise(2000)[None], 8000), ("b", 10 * noise(2000)[None], 8000)]
    sounds_page.page(tmp_path / "page.html", hostile, rows, ["a", hostile], [[hostile, hostile]])
    page = (tmp_path / "page.html").read_text()
    assert hostile not in page and page.count('type="text/plain"') == 1  # one sound under two names is kept once


@pytest.mark.slow
@pytest.mark.parametrize("hz", [0.0, 12.0])
def test_a_stationary_noise_is_made_again_from_noise(hz):
    style = modulated(hz, 5 * SECOND, seed=3)
    outcome = texture.transfer(noise(5 * SECOND), style, Options(start="noise", iterations=200, seconds=600))
    shares = texture.measured(outcome.audio, style, 32, 10.0)
    assert sum(-10 * math.log10(share) for share in shares.values()) / len(shares) > 20
