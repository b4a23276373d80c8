"""The stand-in has CIFAR-10's statistics; how networks fare on it is in the README's table."""

import hashlib

import numpy as np
import pytest

from jaxmlp.data import synthetic

# CIFAR-10's training set, pixels in [0, 1]: means and deviations as published; the eigenvalues'
# shares measured there on the first 10 000 images, the spectrum on the first 5000.
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DOMINANT = 0.841  # share of the largest eigenvalue of the uncentred second moment
SECOND = 0.028  # the next one's
SPECTRUM = {2: 0.251, 4: 0.0425, 8: 0.0068}  # power at so many cycles per image, over that at 1


@pytest.fixture(scope="module")
def made():
    return synthetic.synthetic_cifar10()


@pytest.fixture(scope="module")
def sample(made):
    return made[0][:10_000].astype(np.float32) / 255


def test_it_has_cifar_10s_sizes_and_balanced_shuffled_classes(made):
    images, labels, test_images, test_labels = made
    assert images.shape == (50_000, 3, 32, 32)
    assert test_images.shape == (10_000, 3, 32, 32)
    assert images.dtype == test_images.dtype == np.uint8
    assert (np.bincount(labels) == 5000).all()
    assert (np.bincount(test_labels) == 1000).all()
    assert (np.bincount(labels[:1000], minlength=10) > 60).all()


def test_channel_means_and_deviations_are_within_5_percent(made):
    sums = np.stack([np.bincount(made[0][:, c].ravel(), minlength=256) for c in range(3)])
    share, values = sums / sums.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    np.testing.assert_allclose(mean, MEAN, rtol=0.05)
    np.testing.assert_allclose(np.sqrt(share @ values**2 - mean**2), DEVIATION, rtol=0.05)


def test_power_falls_with_frequency_as_in_photographs(sample):
    """Within a factor of 1.5 of CIFAR-10's over three octaves, in which it falls 150-fold."""
    power = (np.abs(np.fft.fft2(sample[:2000])) ** 2).mean(axis=(0, 1))
    cycles = np.hypot(*np.meshgrid(*[np.fft.fftfreq(32, 1 / 32)] * 2))
    ring = {at: power[np.abs(cycles - at) < 0.5].mean() for at in (1, *SPECTRUM)}
    for at, expected in SPECTRUM.items():
        assert expected / 1.5 < ring[at] / ring[1] < 1.5 * expected


def test_one_eigenvalue_of_the_second_moment_dominates(sample):
    flat = sample.reshape(len(sample), -1)
    eigenvalues = np.linalg.eigvalsh(flat.T @ flat)[::-1]
    share = eigenvalues / eigenvalues.sum()
    assert share[0] == pytest.approx(DOMINANT, rel=0.05)
    assert SECOND / 3 < share[1] < 3 * SECOND


def test_training_and_test_images_are_different_ones(made):
    digests = [{hashlib.sha1(i.tobytes()).digest() for i in made[k]} for k in (0, 2)]
    assert len(digests[0]) == 50_000
    assert len(digests[1]) == 10_000
    assert not digests[0] & digests[1]


def test_it_is_the_same_at_every_call():
    draws = [np.random.default_rng(synthetic.SEED) for _ in range(2)]
    labels = np.arange(10, dtype=np.int32)
    first, second = (
        synthetic._images(draw, synthetic._class_means(draw), synthetic._layouts(draw), labels)
        for draw in draws
    )
    np.testing.assert_array_equal(first, second)
