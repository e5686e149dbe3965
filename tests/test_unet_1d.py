"""The U-Net of the diffusion models, and the published weights."""

import numpy as np
import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.export import mikkonen_unet
from revox_lightning.models.denoiser import Denoiser
from revox_lightning.models.unet_1d import Embedding, Resample, UNet1d, windowed_sinc

NOISE = {"widths": (8, 16, 16, 16, 16, 16), "factors": (4,) * 6, "embedding": 32}


@pytest.mark.parametrize(("form", "count"), [({}, 76_952), (NOISE, 127_832)])
def test_size_as_published(form, count):
    assert sum(p.numel() for p in UNet1d(**form).parameters()) == count


@torch.no_grad()
def test_the_batch_does_not_mix_and_any_length_goes():
    torch.manual_seed(0)
    net, level = UNet1d(), torch.tensor([-2.0, 0.0, 1.0])
    for samples in (512, 500, 77, 1):
        x = torch.randn(3, samples)
        y = net(x, level)
        assert y.shape == x.shape and torch.isfinite(y).all()
        torch.testing.assert_close(y[1:2], net(x[1:2], level[1:2]), rtol=0, atol=2e-6)


@torch.no_grad()
def test_silence_stays_silence_as_nothing_but_the_embedding_has_a_bias():
    assert not UNet1d()(torch.zeros(2, 64), torch.zeros(2)).any()


@torch.no_grad()
def test_it_is_told_of_the_noise():
    torch.manual_seed(0)
    net, x = UNet1d(), torch.randn(1, 128)
    assert (net(x, torch.tensor([0.0])) - net(x, torch.tensor([0.5]))).abs().max() > 1e-5


def test_every_weight_learns_but_the_frequencies():
    torch.manual_seed(0)
    net = UNet1d()
    net(torch.randn(2, 256), torch.zeros(2)).square().sum().backward()
    without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == {"embed.frequency"}


def test_a_width_for_each_level():
    with pytest.raises(UserError, match="for each level"):
        UNet1d(widths=(8, 8), factors=(2, 2, 2))


def test_an_embedding_repeats_with_whole_turns():
    embed = Embedding(8)
    with torch.no_grad():
        embed.frequency.fill_(2.0)
        torch.testing.assert_close(embed(torch.tensor([0.1])), embed(torch.tensor([0.6])))


@pytest.mark.parametrize(("down", "up"), [(2, 1), (4, 1), (1, 2), (1, 4), (3, 2)])
def test_resampling_equals_torchaudio(down, up):
    from torchaudio.transforms import Resample as Theirs

    theirs = Theirs(down, up)
    torch.testing.assert_close(windowed_sinc(down, up), theirs.kernel, rtol=0, atol=2e-7)
    x = torch.randn(2, 3, 101)
    torch.testing.assert_close(Resample(down, up)(x), theirs(x), rtol=0, atol=2e-6)


def test_a_tone_below_the_cutoff_passes_and_one_above_dies():
    n = torch.arange(4096)
    low, high = (torch.sin(2 * torch.pi * f * n)[None, None] for f in (0.02, 0.2))
    middle = slice(100, -100)
    assert Resample(4, 1)(low)[..., middle].std() == pytest.approx(0.5**0.5, rel=0.01)
    assert Resample(4, 1)(high)[..., middle].std() < 0.003


def arrays(net: UNet1d) -> dict[str, np.ndarray]:
    """Weights of a small net of two levels under the published names."""
    block = {"scale": "film.output_layer", "enter": "first_conv.1", "around": "res_conv"}
    out = {}
    for name, value in net.state_dict().items():
        room, _, rest = name.partition(".")
        index, _, inner = rest.partition(".")
        if room in ("down", "up", "middle"):
            if room == "middle":
                inner, index = rest, "0"
            part, _, tail = inner.partition(".")
            tail = tail.replace(".weight", ".conv.weight") if part == "layers" else tail
            at = 1 - int(index) if room == "up" else int(index)
            room = room if room == "middle" else f"{room}s"
            new = f"{room}.{at}.0.{block.get(part, 'H')}.{tail}"
        else:
            new = {
                "embed.frequency": "embedding.RFF_freq",
                "first.weight": "init_conv.weight",
                "write_in.0.weight": "downs.0.2.conv1x1.weight",
                "read_out.0.weight": "ups.0.2.conv1x1.weight",
            }.get(name) or name.replace("embed.layers", "embedding.MLP")
        out[new] = value.numpy()
    return out


@torch.no_grad()
def test_published_names_are_read_back(tmp_path):
    torch.manual_seed(0)
    net = UNet1d((4, 6), (2, 2), 8)
    np.savez(tmp_path / "net.npz", **arrays(net))
    x, level = torch.randn(2, 40), torch.tensor([0.1, -1.0])
    assert torch.equal(mikkonen_unet.load(tmp_path / "net.npz", (2, 2))(x, level), net(x, level))


def test_other_files_are_refused(tmp_path):
    net = UNet1d((4, 6), (2, 2), 8)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "more.npz", **arrays(net), extra=np.zeros(3))
    short = arrays(net)
    short["init_conv.weight"] = short["init_conv.weight"][:2]
    np.savez(tmp_path / "short.npz", **short)
    (tmp_path / "text.npz").write_text("no weights")
    for name, word in (("other", "lacks"), ("more", "extra"), ("short", "does not fit"), ("text", "cannot be read")):
        with pytest.raises(UserError, match=word):
            mikkonen_unet.load(tmp_path / f"{name}.npz")


PUBLISHED = {"real": (1e-4, 1e-5, 1e-2, 7.0), "noise": (8e-4, 5e-5, 0.1, 10.0)}


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_the_published_weights_give_the_published_outputs(golden, name):
    place = golden / "tape" / "unet"
    data, low, high, rho = PUBLISHED[name]
    net = mikkonen_unet.load(place / f"{name}_ema.npz")
    denoiser = Denoiser(net, data, low, high, rho, steps=10, rate_hz=100, segment_samples=512, overlap_samples=100)
    with np.load(place / f"{name}_io.npz") as content:
        io = {key: torch.from_numpy(content[key]) for key in content.files}
    sigma = io["sigma"][:, 0]
    c = denoiser.preconditioning(sigma)
    same(net(c.inner * io["x"], c.level), io["net_out"])
    same(denoiser.denoise(io["x"], sigma), io["denoised"])
    same(denoiser.schedule(), io["euler10_schedule"])


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
