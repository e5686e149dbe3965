"""Neural proxies: nets that stand in for effects, their training, and style nets that learn through them."""

import copy
import functools
import json
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from revox_lightning import audio
from revox_lightning.callbacks.checkpoints import save_atomically
from revox_lightning.commands import assemble, paper, proxies, rows, settings, show, transfer
from revox_lightning.data.effect_settings import EffectSettings
from revox_lightning.dsp import effects
from revox_lightning.errors import UserError
from revox_lightning.models.effect_proxy import EffectProxy, FullHybrid, HalfHybrid, NeuralProxy
from revox_lightning.objectives.effect_proxy import EffectProxyObjective
from revox_lightning.runs import RunFolder

torch.set_num_threads(1)
RATE_HZ = 24_000
STRATEGIES = (NeuralProxy, HalfHybrid, FullHybrid)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def knobs(batch, number=24, seed=0):
    return torch.rand(batch, number, generator=torch.Generator().manual_seed(seed))


def tiny(strategy, **more):
    torch.manual_seed(0)
    return strategy(EffectProxy("equaliser", width=4), EffectProxy("compressor", width=4), **more)


def test_proxies_have_their_published_sizes():
    sizes = {effect: sum(p.numel() for p in EffectProxy(effect).parameters()) for effect in effects.EFFECTS}
    assert sizes == {"equaliser": 171_137, "compressor": 164_993}
    assert EffectProxy("equaliser").receptive_field == 7021
    assert EffectProxy("equaliser", width=1).multiply_adds_per_sample == 4 * (13 + 1) + 1
    with pytest.raises(UserError, match=r"model\.effect=reverb: choose one of equaliser, compressor"):
        EffectProxy("reverb")


def test_makeup_gain_is_applied_and_not_learned():
    net, p = EffectProxy("compressor", width=4).eval(), knobs(2, 6)
    p[:, -1] = effects.NO_MAKEUP
    louder = p.clone()
    louder[:, -1] += 6.0 / 96.0
    x = noise(2, 2, 500)
    assert torch.allclose(net(x, louder), 10 ** (6 / 20) * net(x, p), atol=1e-6)


def test_frozen_proxies_do_not_learn_and_do_not_drift():
    for strategy in STRATEGIES:
        net = tiny(strategy).train()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        net(noise(2, 1, 2000), knobs(2), RATE_HZ)
        assert net.training and not any(p.requires_grad for p in net.parameters())
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.slow
def test_full_hybrid_sounds_like_the_effects_and_learns_from_the_proxies():
    net, x, w = tiny(FullHybrid).train(), noise(2, 2, 3000), noise(2, 2, 3000, seed=1)
    p = knobs(2).requires_grad_()
    y = net(x, p, RATE_HZ)
    exact = effects.render_exactly(x, p, RATE_HZ)
    assert (y - exact).abs().max() < 1e-6 * max(exact.abs().max().item(), 1)
    (y * w).sum().backward()
    # By hand: back through the compressor's proxy at the equaliser's exact output, then through the equaliser's.
    between = effects.one_exactly("equaliser", x, p.detach()[:, :18], RATE_HZ).requires_grad_()
    q = p.detach().clone().requires_grad_()
    (net.compressor(between, q[:, 18:]) * w).sum().backward()
    (net.equaliser(x, q[:, :18]) * between.grad).sum().backward()
    assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-7) and q.grad.abs().min() > 0
    told = p.detach().clone().requires_grad_()
    (effects.render(x, told, RATE_HZ) * w).sum().backward()
    assert torch.nn.functional.cosine_similarity(p.grad.flatten(), told.grad.flatten(), dim=0).abs() < 0.9


def test_half_hybrid_trains_through_proxies_and_plays_the_effects():
    x, p = noise(2, 1, 3000), knobs(2).requires_grad_()
    exact = effects.render_exactly(x, p, RATE_HZ)
    for strategy in (HalfHybrid, NeuralProxy):
        net, plays = tiny(strategy), tiny(NeuralProxy).eval()
        learned = net.train()(x, p, RATE_HZ)
        assert torch.allclose(learned, plays(x, p, RATE_HZ), atol=1e-7)
        learned.sum().backward()
        assert p.grad.abs().max() > 0
        played = net.eval()(x, p, RATE_HZ)
        assert torch.allclose(played, exact if strategy is HalfHybrid else learned, atol=1e-7)


def test_a_proxy_knows_one_rate_and_the_effects_any():
    with pytest.raises(UserError, match="knows 24000 Hz, not 44100"):
        tiny(NeuralProxy).eval()(noise(1, 1, 100), knobs(1), 44_100)
    assert tiny(FullHybrid).eval()(noise(1, 1, 100), knobs(1), 44_100).shape == (1, 1, 100)


@pytest.mark.parametrize("effect", effects.EFFECTS)
def test_pairs_are_an_effect_at_settings_that_are_told(effect):
    make, x = EffectSettings(effect, RATE_HZ), noise(4000).double().numpy()
    (dry, wet, p), again, other = (make(x, np.random.default_rng(seed), True) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip((dry, wet, p), again, strict=True)) and (p[:-1] != other[2][:-1]).all()
    assert 10 ** (-24 / 20) <= np.abs(dry).max() <= 10 ** (-12 / 20) and (p >= 0).all() and (p < 1).all()
    told, flat, idle = torch.from_numpy(p), torch.full((18,), 0.5), torch.tensor([1, 0, 0, 0, 0, 0.5])  # a ratio of 1
    whole = torch.cat((told, idle) if effect == "equaliser" else (flat, told))[None]
    exact = effects.render_exactly(torch.from_numpy(dry)[None, None], whole, RATE_HZ)
    assert np.abs(exact[0, 0].numpy() - wet).max() < 1e-9 * np.abs(wet).max()
    if effect == "compressor":
        assert effects.denormalised(told[None], effects.COMPRESSOR)["makeup_db"] == 0


def test_a_tiny_proxy_learns_an_effect():
    torch.manual_seed(0)
    net, objective, make = EffectProxy("equaliser", width=4), EffectProxyObjective(), EffectSettings("equaliser", 8000)
    rng, x = np.random.default_rng(0), noise(4, 1024).double().numpy()

    def batch():
        parts = zip(*(make(one, rng, True) for one in x), strict=True)
        dry, wet, p = (torch.from_numpy(np.stack(part)).float() for part in parts)
        return {"dry": dry[:, None], "wet": wet[:, None], "controls": p}

    unheard, optimiser = batch(), torch.optim.Adam(net.parameters(), 0.01)
    before = objective.total(objective.validate(net, unheard)).item()
    for _ in range(40):
        terms, state = objective(net, batch(), None)
        optimiser.zero_grad()
        objective.total(terms).backward()
        optimiser.step()
    after = objective.total(objective.validate(net, unheard)).item()
    assert state is None and after < 0.8 * before, (before, after)
    perfect = objective.validate(lambda dry, p: unheard["wet"], unheard)
    assert objective.total(perfect) == 0


@functools.cache
def composed(model):
    return settings.composed([f"model={model}"])


def a_run(place, effect, width=4, rate_hz=RATE_HZ):
    """The folder of a proxy that was trained, as far as others read it."""
    cfg = copy.deepcopy(composed("effect_proxy"))
    cfg.model.effect, cfg.model.width, cfg.data.sample_rate_hz = effect, width, rate_hz
    cfg.run_dir, cfg.audio_channels, cfg.knobs = str(place), 1, []
    net, folder = assemble.build_net(cfg), RunFolder(place)
    save_atomically({"state_dict": {f"net.{name}": value for name, value in net.state_dict().items()}}, folder.best)
    folder.write_text("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    return net


def by_proxy(strategy, **runs):
    cfg = copy.deepcopy(composed("style_transfer"))
    target = f"revox_lightning.models.effect_proxy.{strategy.__name__}"
    told = {"_target_": target} | {f"{effect}_run": str(path) for effect, path in runs.items()}
    OmegaConf.update(cfg, "model.processor", told, force_add=True)
    return cfg


def test_a_style_net_takes_its_proxies_from_their_runs_and_needs_them_no_more(tmp_path):
    widths = {"equaliser": 4, "compressor": 5}
    trained = {effect: a_run(tmp_path / effect, effect, width) for effect, width in widths.items()}
    cfg = by_proxy(HalfHybrid, **{effect: tmp_path / effect for effect in trained})
    assemble.build_net(cfg)  # as a table does, before they are trained
    found = proxies.take_over(cfg)
    assert set(found) == {"equaliser", "compressor"}
    shutil.rmtree(tmp_path / "equaliser")
    net = assemble.build_net(cfg)
    proxies.give(net, found)
    for effect, proxy in trained.items():
        own = getattr(net.processor, effect).state_dict()
        assert all(torch.equal(own[name], value) for name, value in proxy.state_dict().items())
    for model in ("style_transfer", "lstm"):
        assert proxies.take_over(composed(model)) == {}


def test_a_proxy_that_is_missing_or_of_another_kind_is_one_sentence(tmp_path):
    for effect in effects.EFFECTS:
        a_run(tmp_path / effect, effect)
    a_run(tmp_path / "fast", "equaliser", rate_hz=48_000)
    here = {effect: tmp_path / effect for effect in effects.EFFECTS}
    for runs, says in (
        ({}, r"the equaliser needs .* model.effect=equaliser, then \+model.processor.equaliser_run="),
        ({"equaliser": here["equaliser"]}, r"the compressor needs .*\+model.processor.compressor_run="),
        (here | {"equaliser": tmp_path / "none"}, "equaliser_run=.*no such folder"),
        (here | {"equaliser": here["compressor"]}, "is of the compressor: name a run"),
        (here | {"equaliser": tmp_path / "fast"}, "knows 48000 Hz and data.sample_rate_hz=24000"),
    ):
        with pytest.raises(UserError, match=says):
            proxies.take_over(by_proxy(NeuralProxy, **runs))


@pytest.mark.parametrize("model,size", [("effect_proxy", "171,137"), ("style_transfer", "281,865")])
def test_nets_that_hear_more_than_a_signal_are_shown(model, size, capsys):
    shown = show.show(copy.deepcopy(composed(model)))
    assert f"parameters             {size}" in capsys.readouterr().out and "real_time_factor" not in shown


SHORT = [
    "logger=none", "trainer=cpu", "trainer.max_epochs=1", "system.batch_size=2", "system.segment_samples=16384",
    "system.hop_samples=16384", "system.threads=1", "data.source.seconds={train: 3.0, val: 1.5, test: 1.5}",
]  # fmt: skip


def test_a_table_trains_the_proxies_before_the_rows_that_need_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(rows, "train_all", lambda jobs, at_once: asked.append(jobs) or {})
    named = [row["label"] for row in paper.Paper.read("steinmetz2022").rows if row.get("after")]
    assert len(named) == 3
    words = ["paper=steinmetz2022", f"rows={','.join(named[1:])}", "sets=music", "seeds=1", "logger=none"]
    paper.paper([*words, f"out={tmp_path / 'out'}", *SHORT[1:], f"data.cache_dir={tmp_path / 'cache'}"])
    first, after = asked
    assert len(after) == 2 and [job.label.split()[1] for job in first] == ["equaliser", "compressor"]
    for job in after:
        told = [word for word in job.words if "_run=" in word]
        assert [word.split("=")[1].strip("'") for word in told] == [str(one.folder.path.resolve()) for one in first]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from revox_lightning.commands.training import train

    folder = tmp_path_factory.mktemp("proxies")
    words = [*SHORT, f"data.cache_dir={folder / 'cache'}"]
    found = {}
    for effect in effects.EFFECTS:
        own = ["model=effect_proxy", f"model.effect={effect}", "model.width=4", f"run_dir={folder / effect}"]
        found[effect] = train(settings.composed([*own, *words]), folder / effect)
    return folder, words, found


@pytest.mark.slow
def test_training_a_proxy_leaves_its_scores_beside_no_effect(trained):
    folder, _, found = trained
    for effect, metrics in found.items():
        assert metrics == json.loads((folder / effect / "metrics.json").read_text())
        assert metrics["effect"] == effect and metrics["task"] == "proxy"
        assert metrics["test/stft_distance"] > 0 and metrics["test/esr_input"] > 0
        assert (folder / effect / "audio" / "0_effect_proxy.wav").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_plays_and_goes_on(trained, strategy):
    from revox_lightning.commands.training import train

    folder, words, _ = trained
    place = folder / strategy.__name__
    runs = {effect: folder / effect for effect in effects.EFFECTS}
    target = f"model.processor._target_=revox_lightning.models.effect_proxy.{strategy.__name__}"
    told = [f"+model.processor.{effect}_run='{path}'" for effect, path in runs.items()]
    cfg = settings.composed(["model=style_transfer", target, *told, *words, f"run_dir={place}"])
    metrics = train(cfg, place)
    assert metrics["test/stft_distance"] > 0
    net, cfg, _ = assemble.load_run(place, playing=False)
    proxy, _, _ = assemble.load_run(folder / "compressor", playing=False)
    assert torch.equal(net.processor.compressor.net.output.weight, proxy.net.output.weight), "they stay as they are"
    cfg.trainer.max_epochs = 2
    assert train(cfg, place, resume=True)["audio_seconds_trained"] > metrics["audio_seconds_trained"]
    for name in ("in", "style"):
        audio.write(folder / f"{name}.wav", noise(1, 30_000, seed=len(name)), RATE_HZ)
    transfer.transfer([f"run={place}", f"style={folder / 'style.wav'}", str(folder / "in.wav"), str(place / "out.wav")])
    assert audio.read(place / "out.wav").shape == (1, 30_000)
