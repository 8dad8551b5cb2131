import pytest
import torch
from torch import nn

from iac_core.evaluation.cost import count_macs, count_parameters


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(1, 8, 3, padding=1), 3_612_672),
        (nn.ConvTranspose2d(1, 8, 2, 2), 1_605_632),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.MaxPool2d(2)),
            451_584,
        ),
    ],
)
def test_macs_equal_a_count_by_hand(module, expected):
    assert count_macs(module, (1, 1, 224, 224)) == expected


def test_counting_leaves_the_mode_and_the_buffers_as_they_were():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = module[1].running_mean.clone()
    count_macs(module, (1, 1, 8, 8))
    assert module.training
    assert torch.equal(module[1].running_mean, before)


def test_frozen_parameters_count_in_the_total_alone():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    count = count_parameters(module)
    assert (count.total, count.trainable) == (8 + 3, 3)
