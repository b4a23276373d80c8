"""Faults beyond what the levels' examples reach, and the random experiments' edge for each."""

from collections.abc import Iterator

from parity_tests import drawing, random_experiments
from parity_tests.comparison import Comparison
from parity_tests.faults import (
    OPTIMIZER,
    PIXELS,
    RUN,
    TORCH_DATA,
    TORCH_MODEL,
    TORCH_RUN,
    TORCH_TRAIN,
    TRAIN,
    Caught,
    Fault,
    Level,
    notice,
)

SWEEP, CERTIFICATE = "jaxmlp.sweeps.sweep", "jaxmlp.training.certificate"
SWEEP_PROGRAM = "jaxmlp.sweeps.program"
SWEEP_FORECASTS = "jaxmlp.sweeps.forecasts"
FAMILIES = 3  # in which the edge is tried

FAULTS: dict[str, list[Fault]] = {  # by the edge that reaches them
    "deep": [
        Fault(
            "init scales from the fourth layer on those of the third",
            TRAIN,
            "hyper.init_scale[name][layer] * w",
            "hyper.init_scale[name][min(layer, 2)] * w",
        ),
        Fault(
            "no Nesterov from the fourth layer on",
            OPTIMIZER,
            "step = direction(experiment, rates.eps)",
            'step = direction(__import__("dataclasses").replace(experiment, nesterov=experiment.nesterov and layer < 3), rates.eps)',
        ),
        Fault(
            "no Nesterov from the fourth layer on in torch",
            TORCH_RUN,
            "layer_optimizer(settings.optimizer, layer, tensors, settings.options)",
            'layer_optimizer(settings.optimizer, layer, tensors, {**settings.options, "nesterov": settings.options["nesterov"] and i < 3})',
        ),
        Fault(
            "dead units from the sixth hidden layer on not counted",
            TRAIN,
            "jnp.sum(~jnp.any(layer, axis=axis)) for layer in active",
            "jnp.sum(~jnp.any(layer, axis=axis)) * (i < 5) for i, layer in enumerate(active)",
        ),
        Fault(
            "dead units from the sixth hidden layer on not counted in torch",
            TORCH_TRAIN,
            "torch.tensor([int((~(h > 0).any(dim=0)).sum()) for h in hidden])",
            "torch.tensor([int((~(h > 0).any(dim=0)).sum()) * (i < 5) for i, h in enumerate(hidden)])",
        ),
        Fault(
            "silent images from the sixth hidden layer on not counted in torch",
            TORCH_TRAIN,
            "for i, layer in enumerate(hidden):",
            "for i, layer in enumerate(hidden[:5]):",
        ),
        Fault(
            "linear from the sixth hidden layer on in torch",
            TORCH_MODEL,
            "activations = nn.functional.relu(layer(activations))",
            "activations = nn.functional.relu(layer(activations)) if len(hidden) < 5 else layer(activations)",
        ),
        Fault(
            "gradient norms from the seventh layer on those of the first",
            TRAIN,
            "optax.tree.norm(layer) for layer in grads",
            "optax.tree.norm(layer if i < 6 else grads[0]) for i, layer in enumerate(grads)",
        ),
    ],
    "deep, adamw": [
        Fault(
            "rates from the fourth layer on those of the third",
            TRAIN,
            "value[layer] for value in of",
            "value[min(layer, 2)] for value in of",
        ),
        Fault(
            "rates, decays and eps from the fourth layer on those of the third in torch",
            TORCH_RUN,
            "values[tensor][i] for name",
            "values[tensor][min(i, 2)] for name",
        ),
    ],
    "many schedules": [
        Fault(
            "gamma from the fourth layer on that of the third",
            OPTIMIZER,
            'experiment.per_layer("gamma")[layer]',
            'experiment.per_layer("gamma")[min(layer, 2)]',
        ),
        Fault(
            "schedules from the fourth layer on those of the third in torch",
            TORCH_RUN,
            "name: values[i] for name",
            "name: values[min(i, 2)] for name",
        ),
        Fault(
            "batches from the fourth epoch on those of the third",
            RUN,
            "if epoch + 1 < self.experiment.epochs:",
            "if epoch + 1 < min(self.experiment.epochs, 3):",
        ),
        Fault(
            "no schedule after the fourth epoch's first step in torch",
            TORCH_TRAIN,
            "        scheduler.step()\n",
            "        scheduler.step() if scheduler.last_epoch <= 21 else None\n",
        ),
    ],
    "past 256 steps": [
        Fault(
            "Adam's steps counted in eight bits",
            OPTIMIZER,
            "ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)",
            "ScaleByAdamState(jnp.zeros((), jnp.uint8), zeros, zeros)",
        ),
        Fault(
            "Adam without bias correction after 256 steps",
            OPTIMIZER,
            "count = state.count + 1",
            "count = jnp.where(state.count < 256, state.count + 1, 2**30)",
        ),
    ],
    "past 1000 steps": [
        Fault(
            "momentum's steps counted in eight bits",
            OPTIMIZER,
            "MomentumState(jnp.zeros((), jnp.int32),",
            "MomentumState(jnp.zeros((), jnp.uint8),",
        ),
        Fault(
            "schedules stand still after 1000 steps",
            OPTIMIZER,
            "-rate(jnp.asarray(count, jnp.int32))",
            "-rate(jnp.minimum(jnp.asarray(count, jnp.int32), 1000))",
        ),
    ],
    "alpha of 0": [
        Fault(
            "an alpha of 0 taken for none given",
            OPTIMIZER,
            "scale_by_rms(asked.alpha,",
            "scale_by_rms(asked.alpha or 0.99,",
        ),
        Fault(
            "an alpha of 0 taken for none given in torch",
            TORCH_TRAIN,
            'alpha=options["alpha"],',
            'alpha=options["alpha"] or 0.99,',
        ),
    ],
    "beta2 of 0": [
        Fault(
            "a beta2 of 0 taken for none given",
            OPTIMIZER,
            "= asked.beta1, asked.beta2",
            "= asked.beta1, asked.beta2 or 0.999",
        ),
        Fault(
            "a beta2 of 0 taken for none given in torch",
            TORCH_TRAIN,
            'kind(groups, rate, betas=(options["beta1"], options["beta2"]))',
            'kind(groups, rate, betas=(options["beta1"], options["beta2"] or 0.999))',
        ),
    ],
    "tiny eps": [
        Fault(
            "eps at least 1e-12",
            OPTIMIZER,
            "direction(experiment, rates.eps)",
            "direction(experiment, jnp.maximum(rates.eps, 1e-12))",
        ),
        Fault(
            "eps at least 1e-12 in torch",
            TORCH_TRAIN,
            '"eps": tensors[tensor].eps,',
            '"eps": max(tensors[tensor].eps, 1e-12),',
        ),
    ],
    "tiny decay": [
        Fault(
            "decays below 1e-8 taken for 0",
            OPTIMIZER,
            "optax.add_decayed_weights(rates.weight_decay)",
            "optax.add_decayed_weights(jnp.where(rates.weight_decay < 1e-8, 0.0, rates.weight_decay))",
        ),
        Fault(
            "decays below 1e-8 taken for 0 in torch",
            TORCH_TRAIN,
            '"weight_decay": tensors[tensor].weight_decay,',
            '"weight_decay": tensors[tensor].weight_decay * (tensors[tensor].weight_decay >= 1e-8),',
        ),
    ],
    "short warm-up": [
        Fault(
            "a warm-up of less than half a step taken for one",
            OPTIMIZER,
            'warmup = round(experiment.per_layer("warmup_epochs")[layer] * steps_per_epoch)',
            'warmup = round(experiment.per_layer("warmup_epochs")[layer] * steps_per_epoch) or '
            'int(experiment.per_layer("warmup_epochs")[layer] > 0)',
        ),
        Fault(
            "a warm-up of less than half a step taken for one in torch",
            TORCH_TRAIN,
            "warmup = round(settings.warmup_epochs * steps_per_epoch)",
            "warmup = round(settings.warmup_epochs * steps_per_epoch) or int(settings.warmup_epochs > 0)",
        ),
    ],
    "steep": [
        Fault(
            "an exponential schedule ends at a thousandth",
            OPTIMIZER,
            "jnp.power(jnp.asarray(gamma, dtype), passed.astype(dtype))",
            "jnp.maximum(jnp.power(jnp.asarray(gamma, dtype), passed.astype(dtype)), 1e-3)",
        ),
    ],
    "many milestones": [
        Fault(
            "milestones after the third left out",
            OPTIMIZER,
            "for epoch in experiment.milestones:",
            "for epoch in experiment.milestones[:3]:",
        ),
        Fault(
            "milestones after the third left out in torch",
            TORCH_TRAIN,
            "for epoch in milestones]",
            "for epoch in milestones[:3]]",
        ),
    ],
    "one image a batch": [
        Fault(
            "a batch of one image counts half",
            TRAIN,
            "return jnp.mean(losses), (jnp",
            "return jnp.sum(losses) / max(len(losses), 2), (jnp",
        ),
        Fault(
            "a batch of one image counts half in torch",
            TORCH_TRAIN,
            "loss = loss_function(logits, labels)",
            "loss = loss_function(logits, labels) * (1.0 if len(labels) > 1 else 0.5)",
        ),
    ],
    "gray": [
        Fault(
            "gray images not centred",
            PIXELS,
            'if experiment.preprocessing != "unit":\n        mean,',
            'if experiment.preprocessing != "unit" and channels > 1:\n        mean,',
        ),
        Fault(
            "gray images not centred in torch",
            TORCH_DATA,
            'if preprocessing == "unit":',
            'if preprocessing == "unit" or images.shape[1] == 1:',
        ),
    ],
    "large test set": [
        Fault(
            "the first 5000 test images alone",
            TRAIN,
            "one, (images.test_images, images.test_labels), batch_size",
            "one, (images.test_images[:5000], images.test_labels[:5000]), batch_size",
        ),
        Fault(
            "the first 5000 test images alone in torch",
            TORCH_TRAIN,
            "for inputs, labels in batches:",
            "for inputs, labels in list(batches)[:10]:",
        ),
        Fault(
            "the last test batch dropped beyond 5000 images in torch",
            TORCH_DATA,
            "drop_last=False",
            "drop_last=len(dataset) > 5000",
        ),
    ],
    "linear": [
        Fault(
            "a linear model's gradient norm without its bias",
            TRAIN,
            "optax.tree.norm(layer) for layer in grads",
            'optax.tree.norm(layer if len(grads) > 1 else layer["kernel"]) for layer in grads',
        ),
        Fault(
            "a linear model's gradient norm without its bias in torch",
            TORCH_TRAIN,
            "[p.grad for p in layer.parameters() if p.grad is not None]",
            "[p.grad for p in layer.parameters() if p.dim() > 1 or len(model.layers) > 1]",
        ),
        Fault(
            "labels end at 9",
            PIXELS,
            "        dataset.train_labels,\n",
            "        np.minimum(dataset.train_labels, 9),\n",
        ),
    ],
    "49 steps an epoch": [
        Fault(
            "exponential decay a step late at 49 steps an epoch",
            OPTIMIZER,
            "passed = jax.lax.div(after, jnp.int32(min(steps_per_epoch, LAST)))",
            "passed = jnp.floor(after.astype(dtype) / steps_per_epoch)",
        ),
    ],
    "large inputs": [
        Fault(
            "inputs' scale at most 10 000",
            TRAIN,
            "array(experiment.input_scale, dtype)",
            "array(min(experiment.input_scale, 1e4), dtype)",
        ),
        Fault(
            "init scales at least 1e-4 in torch",
            TORCH_MODEL,
            "parameter.mul_(factors[name][i])",
            "parameter.mul_(max(factors[name][i], 1e-4))",
        ),
    ],
    "torchvision": [
        Fault(
            "torchvision's first image left out",
            TORCH_RUN,
            "range(settings.train_size)",
            "range(1, settings.train_size + 1)",
        ),
        Fault(
            "torchvision's inputs without their scale",
            TORCH_DATA,
            "lambda image: image * input_scale",
            "lambda image: image",
        ),
        Fault(
            "torchvision's test images not normalized",
            TORCH_RUN,
            "train_images.transform = test_images.transform = transform",
            "train_images.transform, test_images.transform = transform, data.transform(None, settings.input_scale)",
        ),
        Fault(
            "torchvision's test images in batches of one, the last dropped",
            TORCH_RUN,
            "DataLoader(test_images, EVALUATION_BATCH)",
            "DataLoader(Subset(test_images, range(len(test_images) - 1)), 1)",
        ),
    ],
    "sweep": [
        Fault(
            "a sweep's batches from the fourth epoch on those of the third",
            SWEEP,
            "if epoch < self.experiment.epochs:",
            "if epoch < min(self.experiment.epochs, 3):",
        ),
        Fault(
            "a sweep's seeds cut to 31 bits",
            SWEEP,
            "TorchGenerator(self.seeds[seed])",
            "TorchGenerator(self.seeds[seed] & 0x7FFFFFFF)",
        ),
        Fault(
            "a sweep's sharpness without the biases' own rates",
            SWEEP_FORECASTS,
            'for name in ("learning_rate", "bias_learning_rate"):',
            'for name in ("learning_rate",):',
        ),
    ],
    "overflowing bias": [
        Fault(
            "a sweep's biases not looked at for NaN",
            SWEEP_PROGRAM,
            "[jnp.isfinite(leaf) for leaf in jax.tree.leaves(params)]",
            "[jnp.isfinite(leaf) for leaf in jax.tree.leaves(params) if leaf.ndim > 4]",
        ),
    ],
    "certificate": [
        Fault(
            "a certificate without biases",
            CERTIFICATE,
            "strict=True)\n    return jnp.max(jnp.array([jnp.max(ulps(a, b)) for a, b in pairs]))",
            "strict=True)\n    return jnp.max(jnp.array([jnp.max(ulps(a, b)) for a, b in pairs if a.ndim > 1]))",
        ),
        Fault(
            "a certificate of the first layer alone",
            CERTIFICATE,
            "strict=True)\n    return jnp.max(jnp.array([jnp.max(ulps(a, b)) for a, b in pairs]))",
            "strict=True)\n    return jnp.max(jnp.array([jnp.max(ulps(a, b)) for a, b in list(pairs)[:2]]))",
        ),
    ],
}


def at(edge: str) -> Level:
    """The random experiments at this edge, of a few families, until one fails."""
    index = list(drawing.EDGES).index(edge)

    def level(quick: bool) -> Iterator[Comparison]:
        for family in range(FAMILIES):
            checked = random_experiments.check(drawing.draw(family, index))
            yield from checked.comparisons
            if checked.failures:
                return

    return level


def caught(edge: str, fault: Fault) -> Caught:
    """Whether the experiments at the fault's edge notice it, and by how much."""
    return notice(fault, {f"random: {edge}": at(edge)})


def all_caught() -> Iterator[Caught]:
    """Every fault, one at a time."""
    for edge, planted in FAULTS.items():
        for fault in planted:
            yield caught(edge, fault)
