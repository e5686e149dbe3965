"""Active learning: knobs, designs, the ascent, the rounds, and the command."""

import csv
import math
import sys

import numpy as np
import pytest
import torch
from scipy.signal import butter, lfilter
from torch import nn

from revox_lightning import audio
from revox_lightning.active import ascent, knobs
from revox_lightning.active.ascent import Candidate
from revox_lightning.active.campaign import Campaign, Plan
from revox_lightning.active.knobs import Knob, read_knob
from revox_lightning.commands import active, assemble
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.report import plots
from revox_lightning.tape.knobs import KNOBS, turned
from revox_lightning.tape.machine import TapeMachine

torch.set_num_threads(1)
GAIN, SPEED = Knob("gain", -6.0, 12.0), Knob("speed", positions=("3.75", "7.5", "15"))


class Gain(nn.Module):
    """Plays x times a function of its knobs."""

    channels, controls = 1, 2

    def __init__(self, of):
        super().__init__()
        self.of, self.unused = of, nn.Parameter(torch.zeros(1))

    def forward(self, x, controls=None, state=None):
        return x * self.of(controls)[:, None, None], state


def test_knobs_know_their_places_both_ways():
    for text in KNOBS.values():
        knob = read_knob("it", text)
        for control in (0.0, 0.5, 1.0) if len(knob.positions) != 2 else (0.0, 1.0):
            assert knob.control(knob.value(control)) == pytest.approx(control)
    assert GAIN.value(0.5) == 3.0 and SPEED.value(0.5) == "7.5"


@pytest.mark.parametrize("text", ["", "3", "3:3", "9:1", "a:b", "a,a", "a,", "1:inf", "1:2:3"])
def test_a_knob_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=r"knob\.it="):
        read_knob("it", text)


@pytest.mark.parametrize("knob,value", [(GAIN, 13), (GAIN, "loud"), (SPEED, "30")])
def test_a_place_beside_the_knob_is_refused(knob, value):
    with pytest.raises(UserError, match=knob.name):
        knob.control(value)


@pytest.mark.parametrize("design", [knobs.spread, knobs.at_random])
def test_designs_reach_everywhere_and_repeat_by_seed(design):
    points = design([GAIN, SPEED], 30, 3)
    assert points.shape == (30, 2) and set(points[:, 1]) == {0, 0.5, 1}
    assert points[:, 0].min() < 0.2 and points[:, 0].max() > 0.8
    assert (design([GAIN, SPEED], 30, 3) == points).all() and (design([GAIN, SPEED], 30, 4) != points).any()


@pytest.mark.parametrize("count,turning,expected", [(20, 2, 18), (12, 1, 12), (9, 2, 9), (7, 0, 3)])
def test_a_grid_is_full_and_has_all_positions(count, turning, expected):
    points = knobs.grid([*[GAIN] * turning, SPEED], count)
    assert len(points) == expected == len(np.unique(points, axis=0)) and set(points[:, -1]) == {0, 0.5, 1}


def test_a_grid_without_room_is_refused():
    with pytest.raises(UserError, match="more than 5"):
        knobs.grid([GAIN, SPEED], 5)


def test_the_virtual_machine_turns_its_knobs():
    machine = turned(TapeMachine(), {"record_level_db": 3, "over_peak_db": 2.0, "speed_ips": "15", "playback": "iec"})
    assert (machine.record_level_db, machine.speed_ips, machine.equalisation.playback) == (3.0, 15.0, "iec")
    assert machine.bias.over_peak_db == 2.0 and machine.aligned_over_peak_db == TapeMachine().bias.over_peak_db
    for wrong in ({"gain": 1.0}, {"speed_ips": "fast"}, {"record_level_db": 100.0}):
        with pytest.raises(UserError):
            turned(TapeMachine(), wrong)
    with pytest.raises(UserError, match="bias"):
        turned(TapeMachine(bias=None), {"over_peak_db": 2.0})


def test_disagreement_is_the_unbiased_variance_over_the_nets():
    nets = [Gain(lambda c, k=k: 1 + k * c[:, 0]) for k in (0.0, 1.0, 2.0)]
    x, controls = torch.full((2, 1, 50), 0.5), torch.tensor([[0.0, 0.3], [1.0, 0.3]])
    found = ascent.disagreement(nets, x, controls)
    assert found.tolist() == pytest.approx([0.0, 0.25])
    relative = ascent.disagreement(nets, x, controls, "relative")
    assert relative.tolist() == pytest.approx([0.0, 0.25 / (0.5 * 2) ** 2])
    assert ascent.disagreement(nets, 3 * x, controls, "relative").tolist() == pytest.approx(relative.tolist())
    with pytest.raises(UserError, match="acquisition"):
        ascent.disagreement(nets, x, controls, "mean")


def test_the_ascent_finds_the_place_where_nets_differ_at_each_position_of_a_switch():
    # They differ most at gain 0.7, ten times as much where the switch is on.
    nets = [Gain(lambda c, k=k: k * (1 + 9 * c[:, 0]) * torch.exp(-8 * (c[:, 1] - 0.7) ** 2)) for k in (-1.0, 1.0)]
    which = [Knob("bright", positions=("off", "on")), Knob("gain")]
    found = ascent.climb(nets, torch.ones(1, 1, 8), which, restarts=4, steps=250, seed=1)
    assert len(found) == 8 and {c.controls[0] for c in found} == {0.0, 1.0}
    assert all(abs(c.controls[1] - 0.7) < 0.05 for c in found)
    assert found == ascent.climb(nets, torch.ones(1, 1, 8), which, restarts=4, steps=250, seed=1)
    chosen = ascent.choose(found, 4)
    assert [c.controls[0] for c in chosen] == [1.0, 0.0], "one of each cluster, the best first"


def test_switches_alone_are_enumerated():
    nets = [Gain(lambda c, k=k: k * c[:, 0]) for k in (0.0, 1.0)]
    found = ascent.climb(nets, torch.ones(1, 1, 8), [SPEED], restarts=5, steps=9)
    assert [c.controls for c in found] == [(0.0,), (0.5,), (1.0,)]


def test_no_more_are_chosen_than_asked_for():
    far = [Candidate((x, 0.0), x) for x in (0.0, 0.3, 0.6, 0.9)]
    assert [c.score for c in ascent.choose(far, 2)] == [0.9, 0.6] and ascent.choose(far[:1], 3) == far[:1]


def listed(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def dry(tmp_path):
    noise = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    audio.write(tmp_path / "dry.wav", 0.2 * noise, 8000, subtype="FLOAT")
    return tmp_path / "dry.wav"


def plan(dry, recordings=6, **more):
    return Plan(
        (Knob("gain"), Knob("tone")), dry, recordings=recordings, start=3, per_round=2, ensemble=2, steps=5, **more
    )


def recorded(place, path, number):
    x = audio.read(path.parents[1].parent / "dry.wav")
    path.parent.mkdir(exist_ok=True)
    late = 10 * number
    audio.write(path, nn.functional.pad(x, (late, 0))[:, : x.shape[1]] * (0.2 + place["gain"]), 8000, subtype="FLOAT")


def test_rounds_go_on_where_they_stopped(dry, tmp_path):
    trained = []

    def train(manifest, path, seed):
        trained.append((manifest.parent.name, seed, len(listed(manifest))))
        return Gain(lambda c: (1 + seed) * c[:, 0] + c[:, 1])

    campaign = Campaign(tmp_path / "run", plan(dry))
    missing = campaign.advance(None, train)
    assert len(missing) == 3 and not trained, "a person is asked to record first"
    for setting in missing:
        recorded(campaign.place(setting), campaign.wet(setting), setting.number)
    again = Campaign(tmp_path / "run", plan(dry)).advance(None, train)
    assert 1 <= len(again) <= 2 and trained == [("round_01", 0, 3), ("round_01", 1, 3)]
    assert all(math.isfinite(s.score) and s.round == 1 for s in again)
    assert Campaign(tmp_path / "run", plan(dry)).advance(recorded, train) == []
    rows = listed(tmp_path / "run" / "recordings.csv")
    assert [int(row["delay_samples"]) for row in rows] == [10, 20, 30, 40, 50, 60], "each is aligned by itself"
    settings = campaign.settings()
    assert [s.number for s in settings] == [1, 2, 3, 4, 5, 6] and settings[:3] == missing


@pytest.mark.parametrize("design,count", [("random", 6), ("grid", 6)])
def test_other_designs_ask_nobody(dry, tmp_path, design, count):
    campaign = Campaign(tmp_path / "run", plan(dry, design=design))
    assert len(campaign.advance(None, None)) == count
    assert campaign.advance(recorded, None) == [] and (tmp_path / "run" / "recordings.csv").is_file()


def test_what_cannot_be_read_is_said_in_one_sentence(dry, tmp_path):
    campaign = Campaign(tmp_path / "run", plan(dry))
    (first, *_) = campaign.advance(None, None)
    for setting in campaign.settings():
        recorded(campaign.place(setting), campaign.wet(setting), 1)
    audio.write(campaign.wet(first), torch.zeros(1, 8000), 8000)
    with pytest.raises(UserError, match="do not go together"):
        campaign.advance(None, None)
    (tmp_path / "run" / "settings.csv").write_text("number,round\n1,0\n")
    with pytest.raises(UserError, match="damaged"):
        campaign.settings()


def test_a_wandering_tape_is_followed_setting_by_setting(dry, tmp_path):
    b, a = butter(4, 0.3)
    noise = lfilter(b, a, np.random.default_rng(0).standard_normal(6 * 16000))
    audio.write(dry, torch.from_numpy(0.1 * noise)[None].float(), 16000, subtype="FLOAT")

    def slower(place, path, number):
        path.parent.mkdir(exist_ok=True)
        at = 0.999 * np.arange(len(noise)) - 40 * number
        wet = 0.1 * np.interp(at, np.arange(len(noise)), noise, left=0)
        audio.write(path, torch.from_numpy(wet)[None].float(), 16000, subtype="FLOAT")

    campaign = Campaign(tmp_path / "run", plan(dry, recordings=2, design="random", align="varying"))
    assert campaign.advance(slower, None) == []
    for row in listed(tmp_path / "run" / "recordings.csv"):
        x, y = (audio.read(row[side])[:, 2000:-2000] for side in ("dry", "wet"))
        assert float((x - y).square().mean() / x.square().mean()) < 0.02
        assert row["delay_samples"] == "0"


TINY = [
    "recordings=4", "start=3", "per_round=1", "ensemble=2", "restarts=2", "steps=2", "ascent_seconds=0.2", "size=2",
    "model=lstm", "trainer.max_epochs=1", "trainer=cpu", "logger=none", "report.data_sheet=false", "report.examples=[]",
    "linear_filter.taps=64", "linear_filter.lookahead_samples=8", "data.gap_seconds=0.05", "report.audio_seconds=0.2",
]  # fmt: skip


@pytest.mark.slow
def test_the_loop_runs_unattended_with_the_virtual_machine(dry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    monkeypatch.setattr(active, "_MEMBER", [])
    noise = torch.randn(1, 66150, generator=torch.Generator().manual_seed(0))
    audio.write(dry, 0.1 * noise, 22050, subtype="FLOAT")
    run = tmp_path / "run"
    words = [f"run={run}", "machine=a77_7.5ips", f"dry={dry}", "knob.record_level_db=-6:6", "knob.speed_ips=7.5,15"]
    active.active([*words, *TINY])
    torch.set_num_threads(1)
    net, cfg, _ = assemble.load_run(run / "model_004")
    assert net.controls == 2 and list(cfg.knobs) == ["record_level_db", "speed_ips"]
    before = (run / "model_004" / "metrics.json").stat().st_mtime_ns
    active.active([f"run={run}"])
    assert (run / "model_004" / "metrics.json").stat().st_mtime_ns == before, "what is done stays"
    active.active([f"run={run}", "recordings=5"])
    assert (run / "model_005" / "metrics.json").is_file()
    with pytest.raises(UserError, match="goes on as it began"):
        active.active([f"run={run}", "seed=1"])
    assert "recorded:" in capsys.readouterr().out


def test_a_person_is_told_what_to_record(dry, tmp_path, capsys):
    active.active([f"run={tmp_path / 'run'}", f"dry={dry}", "knob.gain=0:10", "knob.bright=off,on", "start=3"])
    out = capsys.readouterr().out
    assert "wet/001.wav" in out and "gain" in out and "3 recordings are missing" in out
    assert len(listed(tmp_path / "run" / "settings.csv")) == 3


@pytest.mark.parametrize(
    "words,says",
    [
        (["dry={dry}"], "needs dry=FILE and its knobs"),
        (["dry={dry}", "knob.gain=7"], "knob.gain=7"),
        (["dry={dry}", "knob.gain=0:1", "design=best"], "design=best"),
        (["dry={dry}", "knob.gain=0:1", "ensemble=1"], "ensemble=1"),
        (["dry={dry}", "knob.gain=0:1", "steps=many"], "steps=many"),
        (["dry={dry}", "knob.gain=0:1", "model=lsmt"], "there is no model=lsmt"),
        (["dry=nowhere.wav", "knob.gain=0:1"], "nowhere.wav"),
        (["machine=a77_7.5ips", "knob.treble=0:1"], "no knob 'treble'"),
        (["machine=a78"], "a78"),
        (["machine=a77_7.5ips", "word"], "active needs"),
    ],
)
def test_bad_words_get_one_sentence_and_leave_nothing(dry, tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.setattr(sys, "argv", ["revox"])
    given = [f"run={tmp_path / 'run'}", *(word.format(dry=dry) for word in words)]
    assert guarded(lambda: active.active(given)) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "run").exists()
