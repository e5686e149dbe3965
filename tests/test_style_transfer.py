"""Production style transfer: the net, its data, its training, and the command that applies it."""

import json

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, evaluate, settings, transfer
from revox_lightning.commands.exits import guarded
from revox_lightning.data import corruption, dry, performer
from revox_lightning.data.takes import Take
from revox_lightning.dsp import effects, style_bands
from revox_lightning.dsp.loudness import Loudness, loudness
from revox_lightning.dsp.time_stretch import shifted, stretched
from revox_lightning.errors import UserError
from revox_lightning.models import effect_tcn, style_controller, style_encoder, style_transfer
from revox_lightning.objectives.style import StyleTransferObjective

RATE_HZ = 24_000


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_encoder_and_controller_have_their_published_sizes():
    encoder = style_encoder.PublishedEncoder()
    assert sum(p.numel() for p in encoder.parameters()) == 9_147_330
    with torch.inference_mode():
        embedding = encoder.eval()(noise(2, 20_000))
    assert embedding.shape == (2, 1024) and torch.allclose(embedding.norm(dim=1), torch.ones(2))
    assert sum(p.numel() for p in style_controller.Controller(1024).parameters()) == 596_504


def test_nets_in_the_place_of_effects_have_their_published_sizes():
    sizes = [sum(p.numel() for p in effect_tcn.EffectTCN(knobs).parameters()) for knobs in (18, 6, 24)]
    assert sizes == [171_137, 164_993, 174_209] and effect_tcn.EffectTCN.receptive_field == 7021
    x, p = noise(2, 2, 9000), torch.rand(2, 24)
    for nets in (1, 2):
        net = effect_tcn.EndToEnd(nets, width=4).eval()
        y = net(x, p, RATE_HZ)
        later = torch.cat((x[..., :8000], noise(2, 2, 1000, seed=5)), 2)
        assert y.shape == x.shape and torch.allclose(net(later, p, RATE_HZ)[..., :8000], y[..., :8000], atol=1e-6)


def test_knobs_have_units_and_come_back():
    p = torch.rand(1, 24, generator=torch.Generator().manual_seed(0))
    knobs = {name: value.item() for name, value in effects.denormalised(p).items()}
    assert torch.allclose(effects.normalised(knobs), p, atol=1e-6)
    with pytest.raises(ValueError, match="ratio is 50"):
        effects.normalised(knobs | {"ratio": 50.0})


@pytest.mark.parametrize("rate_hz", [8000, 24_000, 48_000])
def test_the_chain_equals_its_exact_twin(rate_hz):
    x, p = noise(2, 2, 6000), torch.rand(2, 24, generator=torch.Generator().manual_seed(1))
    exact = effects.render_exactly(x, p, rate_hz)
    assert (effects.render(x, p, rate_hz) - exact).abs().max() < 1e-4 * exact.abs().max()


def test_perturbation_finds_the_gradient_in_the_mean():
    torch.manual_seed(0)
    x = noise(64, 1, 500).clone()
    x[:] = x[:1]
    p = torch.full((64, 24), 0.6)
    found = []
    for processor in (style_transfer.Automatic(), style_transfer.SPSA()):
        told = p.clone().requires_grad_()
        processor(x, told, RATE_HZ).square().sum().backward()
        found.append(told.grad.mean(0))
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=0)
    assert cosine > 0.8, cosine


def test_the_bands_cover_the_spectrum_once():
    bands = style_bands.bands(96)
    assert torch.allclose(bands.sum(0), torch.ones(96)) and ((bands > 0).sum(1) <= 2).all()
    assert (bands > 0).any(1)[:-1].all()


def corrupted(number=2, samples=40_000):
    """A batch of two halves each, as the data hands it over."""
    make = corruption.Corruption(RATE_HZ)
    made = [make(noise(samples, seed=n).double().numpy(), np.random.default_rng(n), False) for n in range(number)]
    dry, wet, truth = (torch.from_numpy(np.stack(part)).float() for part in zip(*made, strict=True))
    return {"dry": dry[:, None], "wet": wet[:, None], "controls": truth}


@pytest.mark.parametrize("telling", [True, False])
def test_gradients_reach_every_weight(telling):
    torch.manual_seed(0)
    net = style_transfer.style_transfer("small", style_transfer.Automatic())
    torch.nn.init.normal_(net.controller.correct.weight, std=0.1)  # which begins at 0
    objective = StyleTransferObjective()
    objective.begin_epoch(0 if telling else 1, 4)
    terms, _ = objective(net, corrupted(), None)
    assert ("response" in terms) == telling and ("mrstft" in terms) != telling
    objective.total(terms).backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().max() > 0, name
    with pytest.raises(UserError, match="size=huge"):
        style_transfer.style_transfer("huge", style_transfer.Automatic())


def test_some_recordings_end_early_where_that_is_asked_for():
    x = noise(30_000).double().numpy()
    levels = []
    for share in (0.0, 1.0):
        make = corruption.Corruption(RATE_HZ, ends_early=share)
        spectra = [np.abs(np.fft.rfft(make(x, np.random.default_rng(seed), True)[0])) for seed in range(4)]
        levels.append([20 * np.log10(one[-500:].mean() / one.mean()) for one in spectra])
    assert min(levels[0]) > -45 and np.median(levels[1]) < min(levels[0]) - 20


def test_the_truth_is_what_the_knobs_have_to_do():
    """Where nothing was equalised, the input compressed with the told knobs is the target."""
    make, x, worst = corruption.Corruption(RATE_HZ), noise(20_000).double().numpy(), []
    make._faded = lambda part: part
    for seed in range(60):
        heard, wanted, truth = make(x, np.random.default_rng(seed), False)
        if truth[: style_bands.BANDS].any():
            continue
        how = dict(zip((knob.name for knob in effects.COMPRESSOR), truth[style_bands.BANDS :], strict=True))
        y = corruption.dynamics.compressor_exactly(heard[None], RATE_HZ, **how)[0]
        worst.append(np.abs(y - wanted).max() / np.abs(wanted).max())
    assert len(worst) >= 2 and np.median(worst) < 1e-6  # an expander, which is not undone, may be among them


def test_the_response_told_is_that_of_the_spectra():
    make, x = corruption.Corruption(RATE_HZ), noise(1 << 17).double().numpy()
    seen = 0
    for seed in range(12):
        heard, wanted, truth = make(x, np.random.default_rng(seed), False)
        how = truth[style_bands.BANDS :]
        if how[1] > 1 or not truth[: style_bands.BANDS].any():
            continue  # compressed
        level = [10 * np.log10(np.abs(np.fft.rfft(part)[1:].reshape(64, -1) ** 2).mean(1)) for part in (heard, wanted)]
        centres = (np.arange(64) + 0.5) * RATE_HZ / 128
        told = np.interp(centres, make._hz.numpy(), truth[: style_bands.BANDS])
        apart = level[1] - level[0] - told - how[5]
        assert np.median(np.abs(apart)) < 1.0, seed
        seen += 1
    assert seen >= 2


def test_a_controller_practises_equalisers():
    torch.manual_seed(0)
    encoder = style_encoder.SmallEncoder()
    controller = style_controller.SmallController(encoder)
    responses = corruption.Corruption(RATE_HZ).responses(300)
    assert responses.shape == (300, 96) and 0.1 < (responses == 0).all(1).float().mean() < 0.4
    first = controller.practise(responses, RATE_HZ, steps=5, batch=64)
    assert controller.practise(responses, RATE_HZ, steps=150, batch=64) < 0.6 * first


def test_what_comes_out_is_as_loud_as_the_reference():
    net = style_transfer.style_transfer("small", style_transfer.Automatic()).eval()
    x, reference = noise(2, 1, 48_000), 0.1 * noise(2, 1, 30_000, seed=1)
    with torch.inference_mode():
        y, p = net(x, reference)
        again = effects.render(x, p, RATE_HZ)
    assert (loudness(y, RATE_HZ) - loudness(reference, RATE_HZ)).abs().max() < 0.01
    assert (again - y).abs().max() < 1e-4 * y.abs().max()  # the knobs say it, too


def test_loudness_is_what_the_meter_reads():
    x = torch.cat((noise(1, 2, 48_000), 0.001 * noise(1, 2, 48_000, seed=1)), 2)  # the second half lies under the gate
    meter = Loudness(RATE_HZ, 2)
    meter.update(x[0].numpy())
    assert loudness(x, RATE_HZ).item() == pytest.approx(meter.lufs, abs=0.01)
    assert loudness(torch.zeros(1, 1, 9000), RATE_HZ).item() == pytest.approx(-70, abs=0.01)
    told = x.double().requires_grad_()
    loudness(told, RATE_HZ).sum().backward()
    assert told.grad.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda v: loudness(v * x.double()[..., :9000], RATE_HZ), (torch.ones(1, 2, 1).double().requires_grad_(),)
    )


@pytest.mark.parametrize("tempo", [0.8, 1.0, 1.25])
def test_tempo_keeps_the_pitch_and_pitch_the_tempo(tempo):
    x = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    y = stretched(x, RATE_HZ, tempo)
    assert y.size == round(x.size / tempo) and _pitch_hz(y) == pytest.approx(440, abs=3)
    z = shifted(x, RATE_HZ, 200)
    assert z.size == x.size and _pitch_hz(z) == pytest.approx(440 * 2 ** (2 / 12), abs=3)


def _pitch_hz(x):
    x = x[2000:-2000]
    return np.abs(np.fft.rfft(x * np.hanning(x.size), 1 << 17)).argmax() * RATE_HZ / (1 << 17)


def test_pairs_are_the_same_for_the_same_seed_and_have_their_peak():
    make, x = corruption.Corruption(RATE_HZ), noise(12_000).double().numpy()
    pairs = [make(x, np.random.default_rng(seed), True) for seed in (0, 0, 1)]
    assert all((a == b).all() for a, b in zip(pairs[0], pairs[1], strict=True))
    assert not np.array_equal(pairs[0][0], pairs[2][0])
    for part in pairs[0][:2]:
        assert part.shape == x.shape and np.abs(part).max() == pytest.approx(10 ** (-12 / 20))
    assert not make(np.zeros(1000), np.random.default_rng(0), False)[0].any()


def test_a_folder_or_the_built_in_performers(tmp_path):
    with pytest.raises(UserError, match="choose one of music, speech"):
        dry.Dry(kind="noise")
    with pytest.raises(UserError, match="no recording"):
        dry.Dry(root=str(tmp_path)).takes()
    source = dry.Dry(kind="speech", seconds={"train": 0.5, "val": 0.5, "test": 0.5}, cache_dir=str(tmp_path / "cache"))
    takes = source.takes()
    assert [take.split for take in takes] == ["train", "val", "test"] and isinstance(takes[0], Take)
    assert source.takes() == takes and source.floor_energy("test") is None
    (tmp_path / "mine" / "test").mkdir(parents=True)
    audio.write(tmp_path / "mine" / "test" / "a.wav", noise(1, 3000), RATE_HZ)
    how = {"built_in": True, "kind": "speech", "cache_dir": str(tmp_path / "cache")}
    beside = dry.Dry(root=str(tmp_path / "mine"), seconds={"train": 0.5, "val": 0.5, "test": 0.5}, **how).takes()
    assert [take.split for take in beside] == ["test", "train", "val"] and beside[0].name == "a"
    with pytest.raises(UserError, match="at most 10000"):
        dry.Dry(kind="speech", seconds={"train": 1e6, "val": 0.5, "test": 0.5}).takes()


def test_pieces_stay_what_they_are():
    for make in (performer.piece, dry._speak):
        halves = [make(8.0, 8000, seed).reshape(2, -1).std(1) for seed in range(4)]
        assert np.max(np.abs(20 * np.log10([a / b for a, b in halves]))) < 6
        assert np.array_equal(make(1.0, 8000, 1), make(1.0, 8000, 1))
        assert not np.array_equal(make(1.0, 8000, 1), make(1.0, 8000, 2))


TINY = [
    "model=style_transfer", "logger=none", "trainer.max_epochs=1", "system.batch_size=2",
    "system.segment_samples=16384", "system.hop_samples=16384", "system.threads=1",
    "data.source.seconds={train: 3.0, val: 1.5, test: 1.5}", "objective.practice_steps=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from revox_lightning.commands.training import train

    folder = tmp_path_factory.mktemp("style")
    cfg = settings.composed([*TINY, f"data.cache_dir={folder / 'cache'}", f"run_dir={folder / 'run'}"])
    metrics = train(cfg, folder / "run")
    return folder / "run", metrics


def test_hops_and_warm_ups_are_refused(tmp_path):
    for word in ("system.warmup_samples=100", "system.hop_samples=600"):
        with pytest.raises(UserError, match="whole segments"):
            assemble.build_data(settings.composed([*TINY, f"data.cache_dir={tmp_path}", word]))


def test_training_leaves_scores_beside_input_and_rules(run):
    folder, metrics = run
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert metrics["test/stft_distance"] > 0 and metrics["test/stft_distance_rules"] > 0
    assert (folder / "audio" / "0_style_transfer.wav").exists()


def test_a_run_is_evaluated_on_its_own_split_and_on_other_recordings(run, tmp_path):
    folder, metrics = run
    again = evaluate.evaluate([f"run={folder}"])
    told = [name for name in again if name.startswith("test/") and again[name] is not None]
    assert [again[name] for name in told] == pytest.approx([metrics[name] for name in told], rel=1e-5)
    (tmp_path / "mine").mkdir()
    audio.write(tmp_path / "mine" / "a.wav", noise(1, 40_000), RATE_HZ)
    other = evaluate.evaluate([f"run={folder}", f"data.root={tmp_path / 'mine'}", "data.limit_hz=5000"])
    assert other["passages"] == 40 and other["test/stft_distance"] != metrics["test/stft_distance"]
    assert len(list((folder / "evaluations").glob("*/metrics.json"))) >= 1


def test_a_transfer_is_repeated_from_its_edited_knobs(run, tmp_path, capsys):
    audio.write(tmp_path / "in.wav", noise(2, 40_000), 44_100)
    audio.write(tmp_path / "style.wav", 0.3 * noise(1, 30_000, seed=2), 22_050)
    files = [str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    transfer.transfer([f"run={run[0]}", f"style={tmp_path / 'style.wav'}", *files])
    assert "threshold" in capsys.readouterr().out and (tmp_path / "out.png").stat().st_size > 1000
    assert (tmp_path / "out.html").read_text().count("reference (style)") == 1
    first = audio.read(tmp_path / "out.wav")
    assert first.shape == (2, 40_000)
    transfer.transfer([f"knobs={tmp_path / 'out.json'}", files[0], str(tmp_path / "again.wav")])
    assert (audio.read(tmp_path / "again.wav") - first).abs().max() < 1e-5
    content = json.loads((tmp_path / "out.json").read_text())
    content["knobs"]["makeup_db"] -= 20
    (tmp_path / "out.json").write_text(json.dumps(content))
    transfer.transfer([f"knobs={tmp_path / 'out.json'}", files[0], str(tmp_path / "soft.wav")])
    assert audio.read(tmp_path / "soft.wav").abs().max() == pytest.approx(first.abs().max().item() / 10, rel=0.01)


def test_bad_input_is_refused_in_one_sentence(run, tmp_path, capsys):
    audio.write(tmp_path / "in.wav", noise(1, 20_000), 24_000)
    audio.write(tmp_path / "silent.wav", torch.zeros(1, 20_000), 24_000)
    (tmp_path / "bad.json").write_text('{"knobs": {"ratio": 2}, "peak": 1}')
    source, out = str(tmp_path / "in.wav"), str(tmp_path / "out.wav")
    capsys.readouterr()
    for words in (
        [source, out],
        [f"run={run[0]}", f"style={tmp_path / 'silent.wav'}", source, out],
        [f"knobs={tmp_path / 'bad.json'}", source, out],
        [f"knobs={tmp_path / 'none.json'}", source, out],
        [f"knobs={tmp_path / 'none.json'}", source, source],
        [f"run={run[0]}", f"style={source}", "loud=1", source, out],
    ):
        assert guarded(lambda words=words: transfer.transfer(words)) == 2
        assert capsys.readouterr().err.count("error:") == 1
    assert not (tmp_path / "out.wav").exists()
