import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iac_core.data.intensities import (
    LEAST_HU,
    MOST_HU,
    CtStatistics,
    clip_to_histogram,
    foreground_histogram,
    zscore,
)
from iac_core.errors import ConfigError


def test_a_masked_volume_keeps_its_zeros_and_they_count_for_nothing():
    image = np.random.default_rng(0).gamma(2, 100, size=(1, 20, 20, 5)).astype(np.float32)
    image[:, :8] = 0
    out = zscore(image, (0.5, 99.5), nonzero=True)
    assert (out[:, :8] == 0).all()
    inner = out[:, 8:]
    assert inner.mean() == pytest.approx(0, abs=1e-4)
    assert inner.std() == pytest.approx(1, abs=1e-3)
    alone = zscore(image[:, 8:], (0.5, 99.5), nonzero=False)
    assert np.allclose(inner, alone, atol=1e-5)


def test_an_empty_channel_becomes_zeros():
    assert (zscore(np.zeros((1, 3, 3, 2), dtype=np.float32), (1, 99), nonzero=True) == 0).all()


@given(st.integers(0, 999))
def test_statistics_of_histograms_are_those_of_the_voxels(seed):
    generator = np.random.default_rng(seed)
    images = [
        np.rint(generator.normal(40 * n, 30 + n, size=(2, 6, 5, 4))).astype(np.float32)
        for n in range(3)
    ]
    masks = [generator.random((6, 5, 4)) < 0.6 for _ in images]
    counts = sum(
        foreground_histogram(image, mask).astype(np.int64)
        for image, mask in zip(images, masks, strict=True)
    )
    found = CtStatistics.from_histogram(counts, (0.5, 99.5))
    for channel in range(2):
        voxels = np.concatenate(
            [image[channel][mask] for image, mask in zip(images, masks, strict=True)]
        )
        assert found.mean[channel] == pytest.approx(voxels.mean(), abs=1e-3)
        assert found.deviation[channel] == pytest.approx(voxels.std(), abs=1e-3)
        low, high = np.percentile(voxels, (0.5, 99.5), method="inverted_cdf")
        assert (found.low[channel], found.high[channel]) == (low, high)


def test_ct_is_clipped_centred_and_scaled():
    statistics = CtStatistics(
        low=np.array([-50.0]), high=np.array([150.0]),
        mean=np.array([50.0]), deviation=np.array([25.0]),
    )  # fmt: skip
    image = np.array([-1000.0, 50.0, 75.0, 3000.0], dtype=np.float32).reshape(1, 1, 2, 2)
    assert statistics.normalise(image).ravel().tolist() == [-4.0, 0.0, 1.0, 4.0]


def test_metal_and_air_beyond_the_range_are_stored_at_its_ends():
    image = np.array([-3000.0, 0.0, 30000.0], dtype=np.float32).reshape(1, 3, 1, 1)
    clipped = clip_to_histogram(image)
    assert clipped.ravel().tolist() == [LEAST_HU, 0, MOST_HU]
    counts = foreground_histogram(clipped, np.ones((3, 1, 1), dtype=bool))
    assert counts.sum() == 3
    assert counts[0, 0] == counts[0, -1] == 1


def test_training_patients_without_foreground_are_refused():
    counts = np.zeros((1, MOST_HU - LEAST_HU + 1), dtype=np.int64)
    with pytest.raises(ConfigError, match="no foreground voxel; give the split other"):
        CtStatistics.from_histogram(counts, (0.5, 99.5))
