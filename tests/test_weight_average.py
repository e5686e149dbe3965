"""The moving average of weights: what it is, where it goes, and that an interruption does not change it."""

import copy

import pytest
import torch
from torch import nn

from revox_lightning.errors import UserError
from revox_lightning.weight_average import WeightAverage


def checkpoint_of(net):
    return {"state_dict": {f"net.{name}": value.clone() for name, value in net.state_dict().items()}}


def moved(net, average, steps):
    for _ in range(steps):
        with torch.no_grad():
            for weight in net.parameters():
                weight += torch.randn_like(weight)
        average.update()


def test_the_memory_grows_to_its_length():
    net = nn.Linear(1, 1, bias=False)
    average = WeightAverage(net, 0.5)
    expected = None
    for step, value in enumerate((1.0, 2.0, 4.0), 1):
        nn.init.constant_(net.weight, value)
        average.update()
        decay = 0.5 * step / 1000
        expected = value if expected is None else decay * expected + (1 - decay) * value
    average.swap()
    assert net.weight.item() == pytest.approx(expected)


def test_weights_that_stand_still_are_their_own_average():
    net = nn.Linear(3, 2)
    average, before = WeightAverage(net, 0.9), copy.deepcopy(net)
    for _ in range(5):
        average.update()
    average.swap()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))


def test_swapping_twice_changes_nothing():
    net = nn.Linear(3, 2)
    average = WeightAverage(net, 0.9)
    moved(net, average, 3)
    before = copy.deepcopy(net)
    average.swap()
    assert not torch.equal(net.weight, before.weight)
    average.swap()
    assert torch.equal(net.weight, before.weight) and torch.equal(net.bias, before.bias)


def test_before_the_first_step_there_is_nothing_to_swap():
    net = nn.Linear(3, 2)
    before = copy.deepcopy(net)
    WeightAverage(net, 0.9).swap()
    assert torch.equal(net.weight, before.weight)


def test_a_checkpoint_is_the_average_and_goes_on_from_the_weights():
    net = nn.Linear(3, 2)
    average = WeightAverage(net, 0.9)
    moved(net, average, 4)
    checkpoint = checkpoint_of(net)
    average.save(checkpoint, "net.")
    other = nn.Linear(3, 2)
    again = WeightAverage(other, 0.9)
    average.swap()
    assert torch.equal(checkpoint["state_dict"]["net.weight"], net.weight)
    average.swap()
    again.load(checkpoint, "net.")
    other.load_state_dict({name.removeprefix("net."): value for name, value in checkpoint["state_dict"].items()})
    assert torch.equal(other.weight, net.weight)
    for one, its in ((net, average), (other, again)):
        torch.manual_seed(5)
        moved(one, its, 2)
        its.swap()
    assert torch.equal(other.weight, net.weight) and torch.equal(other.bias, net.bias)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_is_less_than_one(decay):
    with pytest.raises(UserError, match=r"system\.ema="):
        WeightAverage(nn.Linear(1, 1), decay)
