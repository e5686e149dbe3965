"""A machine of parts: trained one after another, put together, played from a seed."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, evaluate, hybrid, settings, show
from revox_lightning.commands.render import render
from revox_lightning.commands.training import train
from revox_lightning.errors import UserError
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tape_hybrid import TapeHybrid
from revox_lightning.runs import RunFolder

SECONDS = {"train": 1.5, "val": 0.6, "test": 0.6}
GENERATED = {"transport": {"train": 120.0, "val": 20.0, "test": 20.0}, "noise": {"train": 3.0, "val": 0.5, "test": 0.5}}


def config(folder, cache, *words):
    seconds = [f"data.source.seconds.{split}={value}" for split, value in SECONDS.items()]
    quick = ["machine.oversampling=1", "parts.net=tape_gru", "parts.transport=gaussian", "logger=none", "trainer=cpu"]
    quick += ["report.data_sheet=false", "report.audio_seconds=0.3"]
    cfg = settings.composed(["model=tape_hybrid", *quick, *seconds, "trainer.max_epochs=1", *words])
    cfg.run_dir, cfg.data.cache_dir, cfg.linear_filter.taps = str(folder), str(cache), 64
    return cfg


@pytest.fixture(scope="module", autouse=True)
def short_material():
    """The parts choose their own data, which is longer than a test should take."""
    composed = hybrid._composed

    def shorter(cfg, part, model):
        own = composed(cfg, part, model)
        if part in GENERATED:
            own.data.source.seconds = GENERATED[part]
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hybrid, "_composed", shorter)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("hybrid")
    metrics = train(config(place / "run", place / "cache"), place / "run")
    return place, metrics


def rendered(place, name: str, *words: str) -> torch.Tensor:
    render([f"run={place / 'run'}", str(place / "in.wav"), str(place / name), *words])
    return audio.read(place / name)


@pytest.fixture(scope="module")
def place(trained):
    tone = 0.2 * torch.sin(0.05 * torch.arange(30_000))
    audio.write(trained[0] / "in.wav", torch.stack((tone, tone)), 44_100, "FLOAT")
    return trained[0]


def test_the_parts_are_kept_and_counted(trained):
    place, metrics = trained
    assert metrics["parameters"] == 12_929  # what is fitted in closed form has no parameters
    assert metrics["net/test/esr"] == RunFolder(place / "run" / "parts" / "net").read_json("metrics.json")["test/esr"]
    assert metrics["real_time_factor"] > 0


def test_the_machine_of_parts_is_heard_beside_its_target(trained):
    names = {path.name for path in (trained[0] / "run" / "audio").iterdir()}
    assert {"music_dry.wav", "music_target.wav", "speech_estimate.wav"} <= names
    assert audio.read(trained[0] / "run" / "audio" / "speech_estimate.wav").shape == (2, round(0.3 * 44_100))


def test_a_missing_example_stops_before_the_first_part(tmp_path):
    with pytest.raises(UserError, match="no audio file nothing"):
        train(config(tmp_path / "run", tmp_path / "cache", "report.examples=[nothing.wav]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_machine_has_a_run_of_its_own_in_wandb_and_its_parts_are_in_one_group(trained, tmp_path, monkeypatch):
    """The parts are finished: only the machine itself is logged, with what was measured and heard of it."""
    logged, built = {}, []

    class Experiment:
        summary: ClassVar[dict] = {}
        log = staticmethod(logged.update)

    def build(cfg, path, plain):
        built.append((path.name, plain["logger"]["group"]))
        return SimpleNamespace(experiment=Experiment())

    monkeypatch.setattr(hybrid.loggers, "build_logger", build)
    monkeypatch.setattr(hybrid.loggers, "close", lambda logger: None)
    cfg = config(trained[0] / "run", trained[0] / "cache", "logger=wandb")
    parts = []
    composed = hybrid._composed
    monkeypatch.setattr(hybrid, "_composed", lambda *words: parts.append(composed(*words)) or parts[-1])
    metrics = train(cfg, trained[0] / "run", resume=True)
    assert built == [("run", "tape_hybrid/run")]
    assert {part.logger.group for part in parts} == {"tape_hybrid/run"}
    assert logged["parameters"] == metrics["parameters"] == Experiment.summary["parameters"]
    assert {f"examples/{name}_{kind}" for name in ("music", "speech") for kind in ("dry", "target", "estimate")} <= set(
        logged
    )


def test_the_same_seed_gives_the_same_file_in_any_blocks(place):
    a, b = rendered(place, "a.wav", "seed=1"), rendered(place, "b.wav", "seed=1", "block_samples=1000")
    assert torch.equal(a, b)
    assert (a - rendered(place, "c.wav", "seed=2")).abs().max() > 1e-4
    assert (a[0] - a[1]).abs().max() > 1e-5  # each channel has a hiss of its own


def test_what_is_scaled_to_nothing_is_not_there(place):
    still = rendered(place, "d.wav", "wow_flutter=0", "hiss=0")
    assert torch.equal(still[0], still[1])
    net, _, _ = assemble.load_run(place / "run")
    assert isinstance(net, TapeHybrid)
    with torch.inference_mode():
        alone, _ = net.net(torch.cat((torch.zeros(1024), audio.read(place / "in.wav")[0]))[None, None])
    assert (alone[0, 0, 1024:] - still[0]).abs().max() < 1e-5


def test_a_finished_part_is_not_trained_again(place):
    best = RunFolder(place / "run" / "parts" / "net").best
    before = best.stat().st_mtime_ns
    (place / "run" / "metrics.json").unlink()
    train(config(place / "run", place / "cache"), place / "run", resume=True)
    assert best.stat().st_mtime_ns == before and (place / "run" / "metrics.json").exists()


@pytest.mark.parametrize("word", ["hiss=-1", "wow_flutter=nan", "wow_flutter=much", "seed=nan", "seed=0.5"])
def test_scales_are_numbers_from_nothing_on(place, word):
    with pytest.raises(UserError, match=word.split("=")[0]):
        rendered(place, "e.wav", word)


def test_what_does_not_fit_a_machine_of_parts_is_refused_in_a_sentence(place):
    with pytest.raises(UserError, match="makes wow and flutter"):
        evaluate.evaluate([f"run={place / 'run'}"])
    with pytest.raises(UserError, match="put together of"):
        show.show(config(place / "run", place / "cache"))


def test_other_nets_make_no_hiss(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "load_run", lambda *_: (Recurrent(), None, None))
    with pytest.raises(UserError, match="hiss= is for machines"):
        render(["run=x", "hiss=0.5", "in.wav", "out.wav"])
