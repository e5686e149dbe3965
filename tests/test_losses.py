import math

import pytest
import torch
from auraloss.freq import MultiResolutionSTFTLoss

from revox_lightning import losses
from revox_lightning.errors import UserError
from revox_lightning.losses import Losses

torch.set_num_threads(1)
RATE_HZ = 44_100
NAMES = ("esr", "dc", "esr_preemphasis", "esr_a_weighting", "mse", "mae", "mrstft")
STORED = {
    "esr": 0.0102124,
    "dc": 0.00244373,
    "esr_preemphasis": 0.0152811,
    "esr_a_weighting": 0.0101674,
    "mse": 0.000406086,
    "mae": 0.0126097,
    "mrstft": 1.3144,
}


def pair(frames=8192):
    """A decaying chord and a mildly saturated, offset version of it, `(2, 1, frames)` each."""
    t = torch.arange(frames, dtype=torch.float64) / RATE_HZ
    tones = [torch.sin(2 * torch.pi * f * t) * torch.exp(-5 * t) for f in (110.0, 554.4, 3300.0)]
    y = torch.stack([0.3 * sum(tones), 0.2 * sum(tones[1:])])[:, None].float()
    return torch.tanh(1.5 * y) / 1.4 + 0.01, y


def of(name, y_hat, y):
    return Losses({name: 1.0}, RATE_HZ)(y_hat, y)[name]


@pytest.mark.parametrize("name", NAMES)
def test_empty_input_is_refused(name):
    with pytest.raises(ValueError, match="shape"):
        of(name, torch.zeros(2, 1, 0), torch.zeros(2, 1, 0))


@pytest.mark.parametrize("name", NAMES)
def test_malformed_input_is_refused(name):
    for shapes in (((2, 1, 999), (2, 1, 1000)), ((2, 2, 999), (2, 1, 999)), ((999,), (999,))):
        with pytest.raises(ValueError, match="shape"):
            of(name, *map(torch.zeros, shapes))


@pytest.mark.parametrize("name", NAMES)
def test_identical_input_scores_perfectly(name):
    assert of(name, pair()[1], pair()[1]).item() == 0.0
    assert of(name, torch.zeros(1, 1, 4096), torch.zeros(1, 1, 4096)).item() == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_stored_input_gives_the_stored_score(name):
    assert of(name, *pair()).item() == pytest.approx(STORED[name], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_finite_and_points_home(name):
    y_hat, y = pair()
    y_hat.requires_grad_()
    value = of(name, y_hat, y)
    value.backward()
    assert y_hat.grad is not None
    assert y_hat.grad.isfinite().all()
    step = y_hat.grad * (0.02 * value.detach() / y_hat.grad.square().sum())
    assert of(name, (y_hat - step).detach(), y) < value


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name):
    y_hat, y = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = of(name, y_hat.bfloat16(), y.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(of(name, y_hat.bfloat16().float(), y.bfloat16().float()).item(), rel=1e-6)


def test_esr_and_dc_are_ratios_over_the_whole_batch():
    y_hat, y = pair()
    y[1] *= 1e-3  # one nearly silent item must not dominate
    expected = ((y - y_hat) ** 2).mean() / ((y**2).mean() + 1e-5)
    assert losses.esr(y_hat, y).item() == pytest.approx(expected.item())
    assert losses.dc(y + 0.1, y).item() == pytest.approx(0.01 / ((y**2).mean().item() + 1e-5), rel=1e-4)
    assert losses.mse(y + 0.1, y).item() == pytest.approx(0.01, rel=1e-4)
    assert losses.mae(y - 0.1, y).item() == pytest.approx(0.1, rel=1e-4)


def test_preemphasis_is_the_difference_equation():
    x = torch.tensor([[[1.0, 2.0, -1.0]]])
    torch.testing.assert_close(losses.preemphasis(x, 0.85), torch.tensor([[[1.0, 1.15, -2.7]]]))


def test_a_weighting_follows_the_standard():
    """IEC 61672-1:2013, table 3, in dB."""
    table = {
        20: -50.5,
        31.5: -39.4,
        63: -26.2,
        100: -19.1,
        1000: 0.0,
        2500: 1.3,
        10_000: -2.5,
        16_000: -6.6,
        20_000: -9.3,
    }
    for frequency_hz, expected_db in table.items():
        gain = losses.a_weighting(torch.tensor(float(frequency_hz)))
        assert 20 * math.log10(gain) == pytest.approx(expected_db, abs=0.2)


def test_a_weighted_error_counts_as_much_as_it_is_heard():
    t = torch.arange(RATE_HZ) / RATE_HZ
    y = torch.sin(2 * torch.pi * 1000 * t)[None, None]
    for frequency_hz, gain_db in ((50, -30.2), (10_000, -2.5)):
        error = 0.1 * torch.sin(2 * torch.pi * frequency_hz * t)
        weighted_db = 10 * math.log10(losses.esr_a_weighting(y + error, y, RATE_HZ).item() / 0.01)
        assert weighted_db == pytest.approx(gain_db, abs=0.5)


def test_mrstft_is_auraloss_with_quarter_hops():
    y_hat, y = pair()
    sizes = list(losses.FFT_SIZES)
    reference = MultiResolutionSTFTLoss(sizes, [size // 4 for size in sizes], sizes)
    assert losses.mrstft(y_hat, y).item() == pytest.approx(reference(y_hat, y).item(), rel=1e-6)


def test_mrstft_leaves_out_what_does_not_fit():
    y_hat, y = pair(600)
    reference = MultiResolutionSTFTLoss([1024, 512], [256, 128], [1024, 512])
    assert losses.mrstft(y_hat, y).item() == pytest.approx(reference(y_hat, y).item(), rel=1e-6)
    with pytest.raises(UserError, match="more than 256 samples"):
        losses.mrstft(y_hat[..., :256], y[..., :256])


def coloured(*shape, seed=0):
    """Low-passed noise, and a saturated, slightly noisy version of it that wants a gradient."""
    noise = torch.randn(*shape[:-1], shape[-1] + 7, generator=torch.Generator().manual_seed(seed))
    y = 0.5 * torch.nn.functional.avg_pool1d(noise.flatten(0, 1), 8, 1).view(shape)
    return (torch.tanh(1.2 * y) + 0.01 * noise[..., 7:]).requires_grad_(), y


def auraloss_of(y_hat, y):
    sizes = [size for size in losses.FFT_SIZES if y.shape[-1] > size // 2]
    return MultiResolutionSTFTLoss(sizes, [size // 4 for size in sizes], sizes)(y_hat, y)


@pytest.mark.parametrize("shape", [(40, 1, 2048), (2, 1, 8192), (3, 2, 5000), (2, 1, 1025), (1, 1, 257)])
def test_mrstft_has_the_value_and_the_gradient_of_auraloss(shape):
    y_hat, y = coloured(*shape)
    value, expected = losses.mrstft(y_hat, y), auraloss_of(y_hat, y)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient, reference = (torch.autograd.grad(loss, y_hat)[0] for loss in (value, expected))
    assert (gradient - reference).norm() < 1e-5 * reference.norm()


def test_mrstft_of_quiet_passages_has_the_gradient_of_auraloss():
    y_hat, y = coloured(2, 1, 8192)
    y = y * (torch.arange(8192) > 4000)
    y_hat = (y_hat * (torch.arange(8192) > 2500)).detach().requires_grad_()  # below the least power of a bin: none
    gradient, reference = (torch.autograd.grad(loss(y_hat, y), y_hat)[0] for loss in (losses.mrstft, auraloss_of))
    assert (gradient - reference).norm() < 1e-5 * reference.norm()
    assert gradient[..., :400].abs().max() == 0.0


@pytest.mark.parametrize("noise_floor_db", [None, -30.0])
def test_the_gradient_of_mrstft_is_that_of_finite_differences(noise_floor_db):
    y_hat, y = (signal.detach().double() for signal in coloured(2, 1, 300))
    assert torch.autograd.gradcheck(lambda x: losses.mrstft(x, y, noise_floor_db), y_hat.requires_grad_())


def test_the_target_of_mrstft_is_a_constant():
    y, y_hat = coloured(1, 1, 2048)
    assert not losses.mrstft(y_hat, y).requires_grad
    with torch.no_grad():
        assert losses.mrstft(y, y_hat).item() == pytest.approx(auraloss_of(y, y_hat).item(), rel=1e-5)


def test_a_noise_floor_takes_the_hiss_out_of_the_log_term():
    generator = torch.Generator().manual_seed(0)
    y = pair(32_768)[1]
    hiss_db = -60.0
    noisy = [y + 10 ** (hiss_db / 20) * torch.randn(y.shape, generator=generator) for _ in range(2)]
    assert losses.mrstft(y, noisy[0]) > 1.0  # a noiseless estimate is punished for not guessing the noise
    assert losses.mrstft(y, noisy[0], hiss_db) < 0.25
    assert losses.mrstft(0.5 * y, noisy[0], hiss_db) > 0.8
    below = losses.mrstft(y, y, -200.0) + losses.mrstft(0.5 * y, y, -200.0) - losses.mrstft(0.5 * y, y)
    assert abs(below.item()) < 1e-5  # a floor below everything changes nothing
    silence = losses.mrstft(y * 1e-6, y * 1e-6, hiss_db)
    assert silence.item() == 0.0


def test_only_weighted_terms_are_computed_and_summed():
    y_hat, y = pair()
    both = Losses({"esr": 0.75, "dc": 0.25, "mrstft": 0.0}, RATE_HZ)
    terms = both(y_hat, y)
    assert set(terms) == {"esr", "dc"}
    expected = 0.75 * losses.esr(y_hat, y) + 0.25 * losses.dc(y_hat, y)
    assert both.total(terms).item() == pytest.approx(expected.item())
    assert not both.state_dict()
    assert not list(both.parameters())


def test_unknown_or_missing_weights_are_said():
    with pytest.raises(UserError, match=r"unknown loss 'ers'.*esr, dc, esr_preemphasis"):
        Losses({"ers": 1.0}, RATE_HZ)
    with pytest.raises(UserError, match="nothing to train on"):
        Losses({"esr": 0.0}, RATE_HZ)
