"""What a training leaves beside its figures: the data sheet beside the machine's, and examples to hear."""

import json
import math

import pytest
import torch
from omegaconf import OmegaConf

from revox_lightning import audio
from revox_lightning.commands import portrait, settings, subjects
from revox_lightning.errors import UserError
from revox_lightning.measure.tape import excerpt, measuring_tape
from revox_lightning.models.fir import FIR
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.shaped_noise import ShapedNoise
from revox_lightning.models.tape_hybrid import TapeHybrid
from revox_lightning.report import examples
from revox_lightning.runs import RunFolder

RATE = 8_000
QUICK = ["machine.hysteresis=null", "machine.bias=null", "machine.asperity=null"]
FEW = ("alignment", "sweep_-20", "silence", "modulation_noise", "speed", "noise")


class Steady:
    """A transport that runs evenly but for 1 Hz of wow."""

    rate_hz, block_samples, excursion_seconds = 100.0, 50, 1e-3

    def block(self, number, seed, rows, carry):
        n = number * self.block_samples + torch.arange(self.block_samples)
        return 1e-4 * torch.sin(2 * torch.pi * n / self.rate_hz).expand(rows, -1), torch.zeros(rows, 0)


@pytest.fixture(autouse=True)
def short_tape(monkeypatch):
    monkeypatch.setattr(subjects, "measuring_tape", lambda *words: excerpt(measuring_tape(*words), FEW))


def config(tmp_path, *words):
    cfg = settings.composed(["model=tcn", "size=100", f"data.sample_rate_hz={RATE}", *QUICK, *words])
    cfg.data.cache_dir, cfg.report.audio_seconds, cfg.knobs = str(tmp_path / "cache"), 0.5, []
    OmegaConf.resolve(cfg)
    return cfg


def wire() -> FIR:
    net = FIR(1)
    net.load(torch.full((1, 1), 0.5))
    return net


def hybrid() -> TapeHybrid:
    noise = ShapedNoise(1, 64, RATE).fit([1e-4 * torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))])
    return TapeHybrid(wire(), Steady(), noise, sample_rate_hz=RATE, channels=2, max_delay_samples=100)


def test_the_model_stands_beside_its_machine_which_is_measured_once(tmp_path, monkeypatch):
    cfg, folder = config(tmp_path), RunFolder(tmp_path / "run")
    found = portrait.draw(cfg, folder, wire(), None)
    sheets = json.loads((folder.path / "data_sheet.json").read_text())["sheets"]
    assert [sheet["name"] for sheet in sheets] == ["tcn", "machine"]
    assert sheets[0]["level"]["gain_1k_db"] == [pytest.approx(-6.02, abs=0.01)]
    assert found["sheet/wow_flutter_percent_machine"] > 0.02 > 1e-4 > found["sheet/wow_flutter_percent"]
    assert 50 < found["sheet/signal_to_noise_db_machine"] < 60
    table = (folder.path / "data_sheet.md").read_text()
    assert "| figure | unit | tcn | machine |" in table and "What did tcn miss of the machine?" in table
    assert (folder.path / "data_sheet.png").stat().st_size > 20_000
    monkeypatch.setattr(subjects, "_machine_sheet", lambda *_: pytest.fail("measured again"))
    assert portrait.draw(cfg, folder, wire(), None) == found
    with pytest.raises(BaseException, match="measured again"):  # another machine is another sheet
        portrait.draw(config(tmp_path, "machine.hiss=null"), folder, wire(), None)


def test_music_and_speech_are_left_dry_from_the_machine_and_from_the_model(tmp_path):
    cfg, folder = config(tmp_path, "report.data_sheet=false"), RunFolder(tmp_path / "run")
    assert portrait.draw(cfg, folder, wire(), None) == {}
    kinds = ("dry", "target", "estimate")
    paths = {path.name: path for path in (folder.path / "audio").iterdir()}
    assert sorted(paths) == sorted(f"{name}_{kind}.wav" for name in ("music", "speech") for kind in kinds)
    dry, target, estimate = (audio.read(paths[f"speech_{kind}.wav"]) for kind in kinds)
    assert dry.shape == (1, RATE // 2) and not torch.equal(dry, target)
    torch.testing.assert_close(estimate, 0.5 * dry, rtol=0, atol=1e-6)
    first = target.clone()
    portrait.draw(cfg, folder, wire(), None)
    assert torch.equal(audio.read(paths["speech_target.wav"]), first)  # of a fixed seed


def test_recordings_have_no_machine_and_the_users_own_files_are_played(tmp_path):
    x = 0.1 * torch.randn(2, 12_000, generator=torch.Generator().manual_seed(0))
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        audio.write(tmp_path / place / "song.wav", x, 12_000, "FLOAT")
    own = [str(tmp_path / place / "song.wav") for place in ("a", "b")]
    cfg, folder = config(tmp_path, "data=recordings"), RunFolder(tmp_path / "run")
    cfg.report.examples = own
    found = portrait.draw(cfg, folder, wire(), None)
    assert set(found) <= {"sheet/wow_flutter_percent", "sheet/signal_to_noise_db"}
    names = sorted(path.name for path in (folder.path / "audio").iterdir())
    assert names == ["song_2_dry.wav", "song_2_estimate.wav", "song_dry.wav", "song_estimate.wav"]
    assert audio.info(folder.path / "audio" / "song_estimate.wav").sample_rate_hz == RATE
    assert audio.read(folder.path / "audio" / "song_estimate.wav").shape == (2, RATE // 2)


def test_what_a_machine_of_parts_makes_up_is_measured_and_heard(tmp_path):
    cfg, folder, net = config(tmp_path, "data=virtual_transport"), RunFolder(tmp_path / "run"), hybrid()
    settings_ = subjects.Settings(speed_seconds=5.0)
    (_, machine), (_, model) = subjects.of_net(net, cfg, folder, settings_, lambda what: None)
    assert model["channels"] == ["left", "right"] and machine["mode"] == "second_pass"
    # 0.1 ms of 1 Hz: a speed of 0.063 % peak.
    assert model["speed"]["unweighted_two_sigma_percent"] == pytest.approx(200 * math.pi * 1e-4, rel=0.1)
    noise_db = -18 - 3.01 - 6.02 + 80
    assert model["noise"]["re_0_vu_db"]["unweighted"] == pytest.approx([noise_db] * 2, abs=0.5)
    assert any("unsteady stages" in note for note in model["notes"]) and (net.wow_flutter, net.hiss) == (1.0, 1.0)
    cfg.report.data_sheet = False
    portrait.draw(cfg, folder, net, None)
    left, right = audio.read(folder.path / "audio" / "music_estimate.wav")
    assert 1e-4 < (left - right).abs().max() < 0.002  # two hisses, one tape


@pytest.mark.parametrize("gain", [float("nan"), 0.0, 1e6])
def test_what_cannot_be_measured_or_played_spoils_no_training(tmp_path, caplog, monkeypatch, gain):
    monkeypatch.setattr(portrait.log, "propagate", True)
    broken = FIR(1)
    for value in broken.state_dict().values():
        value.fill_(gain)
    cfg = config(tmp_path)
    cfg.report.examples = [str(tmp_path / "gone.wav")]
    portrait.draw(cfg, RunFolder(tmp_path / "run"), broken, None)
    assert "no examples of this model" in caplog.text
    assert ("no data sheet of this model" in caplog.text) == (not gain > 0)


@pytest.mark.parametrize(
    "given,sentence", [(["nothing.wav"], "no audio file nothing.wav"), ("song.wav", "give a list")]
)
def test_a_missing_example_is_one_sentence_before_training(tmp_path, given, sentence):
    cfg = config(tmp_path)
    cfg.report.examples = given
    with pytest.raises(UserError, match=sentence):
        portrait.check(cfg)


def test_an_example_of_many_channels_is_refused(tmp_path):
    audio.write(tmp_path / "many.wav", torch.zeros(3, 100), RATE)
    with pytest.raises(UserError, match="3 channels"):
        examples.check([str(tmp_path / "many.wav")])


def test_a_net_and_audio_of_other_channels_are_refused():
    with pytest.raises(UserError, match="the net takes 2 channels"):
        examples.played(Recurrent(channels=2), torch.zeros(1, 10), torch.zeros(1, 0))
