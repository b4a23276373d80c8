"""The levels, from the ground up. A failure names the tensor, its index, both values, the bound."""

import pytest

from parity_tests import environment, levels
from parity_tests.comparison import require


def test_a_seed_gives_the_weights_and_the_batch_order_of_torch_bit_for_bit(quick):
    require(levels.seeds(quick))


def test_pixels_become_the_same_floats_and_batches_bit_for_bit(quick):
    require(levels.preprocessing(quick))


def test_on_exact_inputs_both_sides_give_the_exact_numbers(quick):
    require(levels.exact(quick))


def test_activations_logits_and_losses_are_within_their_rounding_errors(quick):
    require(levels.forward(quick))


@pytest.mark.smoke
def test_gradients_are_within_their_rounding_errors(quick):
    require(levels.gradients(quick))


def test_learning_rates_are_those_of_torch_schedulers_at_every_step(quick):
    require(levels.schedules(quick))


def test_parameters_and_buffers_are_those_of_torch_optimizers_after_every_step(quick):
    require(levels.optimizers(quick))


def test_whole_trajectories_stay_together(quick):
    require(levels.trajectories(quick))


@pytest.mark.smoke
def test_the_commands_report_the_same(quick):
    if environment.jax_setting("disable_jit"):
        pytest.skip("the commands' runs are always compiled")
    require(levels.runs(quick))
