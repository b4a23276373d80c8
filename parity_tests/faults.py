"""Faults planted one at a time in the source of either side, and the level that notices each.

A fault is an edit of one place in one module, made in memory and taken back afterwards.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity_tests import sides
from parity_tests.comparison import Comparison
from parity_tests.levels import LEVELS

OURS = ("jaxmlp", "torchref", "parity_tests")
Level = Callable[[bool], Iterator[Comparison]]
MARGIN = 10  # no tolerance may stand above a tenth of a fault that it must catch


class Fault(NamedTuple):
    name: str
    module: str
    old: str
    new: str


RNG, PIXELS, TRAIN = "jaxmlp.torch_rng", "jaxmlp.training.preprocessing", "jaxmlp.training.step"
RUN = "jaxmlp.training.run"
MODEL, OPTIMIZER = "jaxmlp.training.model", "jaxmlp.training.optimizer"
TORCH_MODEL, TORCH_DATA, TORCH_TRAIN = "torchref.model", "torchref.data", "torchref.train"
TORCH_RUN = "torchref.run"

FAULTS: dict[str, list[Fault]] = {  # by the first level that notices them
    "seeds": [
        Fault("init bound off by the root of 3", RNG, "math.sqrt(3.0) * (math", "1.0 * (math"),
        Fault(
            "weight transposed",
            RNG,
            "weight.reshape(fan_out, fan_in).T",
            "weight.reshape(fan_in, fan_out)",
        ),
        Fault(
            "uniform draws rounded to float32 too early",
            RNG,
            "(fraction * (2 * bound) - bound)",
            "(fraction.astype(np.float32) * np.float32(2 * bound) - np.float32(bound))",
        ),
        Fault(
            "float64 draws without the fused multiply-add",
            RNG,
            "return total + (((product - (total - part)) + (addend - part)) + product_error)",
            "return total",
        ),
        Fault(
            "batch order shifted by one",
            RNG,
            "yield order.reshape",
            "yield np.roll(order, 1).reshape",
        ),
        Fault(
            "the test iterator's draw forgotten",
            RNG,
            "        yield order.reshape(-1, batch_size)\n        generator.int64()\n",
            "        yield order.reshape(-1, batch_size)\n",
        ),
        Fault(
            "shuffled by the workers' seed",
            RNG,
            "        generator.int64()\n        order =",
            "        order =",
        ),
        Fault(
            "every layer gets the first init scale",
            TRAIN,
            "hyper.init_scale[name][layer] * w",
            "hyper.init_scale[name][0] * w",
        ),
        Fault(
            "biases get the weights' init scale",
            TRAIN,
            "hyper.init_scale[name][layer] * w",
            'hyper.init_scale["kernel"][layer] * w',
        ),
        Fault(
            "init scale left out in torch",
            TORCH_MODEL,
            "parameter.mul_(factors[name][i])",
            "parameter.mul_(1.0)",
        ),
        Fault(
            "labels shifted in torch", TORCH_DATA, "self.labels[chosen]", "self.labels[chosen - 1]"
        ),
        Fault(
            "the shuffle's last words halved beyond 2000 images",
            RNG,
            "self.words(len(steps)) % remaining",
            "(self.words(len(steps)) >> np.uint32(count >= 2000)) % remaining",
        ),
    ],
    "preprocessing": [
        Fault(
            "images flattened as height, width, channel",
            PIXELS,
            "dataset.train_images.reshape(len",
            "dataset.train_images.transpose(0, 2, 3, 1).reshape(len",
        ),
        Fault(
            "input scale applied twice",
            PIXELS,
            "return input_scale * inputs",
            "return input_scale * (input_scale * inputs)",
        ),
        Fault("pixels over 256", PIXELS, "Fraction(1, 255)", "Fraction(1, 256)"),
        Fault(
            "pixels times the rounded 1/255",
            PIXELS,
            "jax.lax.reduce_precision(values * high, kind.nexp, kind.nmant) + values * low",
            "values * (1 / 255)",
        ),
        Fault(
            "deviation over n - 1",
            TORCH_DATA,
            "/ (255 * count) ** 2",
            "/ (255**2 * count * (count - 1))",
        ),
        Fault(
            "mean subtracted after the division",
            TORCH_DATA,
            "(images - mean) / deviation",
            "images / deviation - mean",
        ),
        Fault(
            "centred by the rounded mean of all channels",
            PIXELS,
            "return np.array(means),",
            "return np.full(len(means), np.mean(means)),",
        ),
        Fault(
            "labels shifted",
            PIXELS,
            "        dataset.train_labels,\n",
            "        np.roll(dataset.train_labels, 1),\n",
        ),
        Fault(
            "statistics of the first 1000 images", TORCH_DATA, ".split(1000)", ".split(1000)[:1]"
        ),
        Fault("statistics without the last image", TORCH_DATA, ".split(1000)", ".split(1000)[:50]"),
        Fault(
            "centring divides, too",
            PIXELS,
            'if experiment.preprocessing == "center":',
            'if experiment.preprocessing == "none":',
        ),
    ],
    "exact": [
        Fault(
            "half as ReLU's subgradient at 0",
            MODEL,
            "nnx.relu(layer(activations))",
            "jax.numpy.maximum(layer(activations), 0)",
        ),
        Fault(
            "a slope of 1e-4 below 0",
            TORCH_MODEL,
            "nn.functional.relu(layer(activations))",
            "nn.functional.leaky_relu(layer(activations), 1e-4)",
        ),
        Fault(
            "ReLU on the logits",
            TORCH_MODEL,
            "return self.layers[-1](activations), hidden",
            "return self.layers[-1](activations).relu(), hidden",
        ),
        Fault(
            "logits off by a part in 100 000",
            TORCH_MODEL,
            "return self.layers[-1](activations), hidden",
            "return self.layers[-1](activations) * 1.00001, hidden",
        ),
        Fault(
            "decoupled for coupled decay, after momentum",
            OPTIMIZER,
            "links = (step, decay) if experiment.optimizer in DECOUPLED else (decay, step)",
            "links = (step, decay)",
        ),
        Fault(
            "coupled for decoupled decay",
            OPTIMIZER,
            "links = (step, decay) if experiment.optimizer in DECOUPLED else (decay, step)",
            "links = (decay, step)",
        ),
        Fault(
            "decay left out",
            OPTIMIZER,
            "optax.add_decayed_weights(rates.weight_decay)",
            "optax.identity()",
        ),
        Fault(
            "rates of two layers swapped",
            TRAIN,
            "value[layer] for value in of",
            "value[-1 - layer] for value in of",
        ),
        Fault(
            "Nesterov mixed up",
            OPTIMIZER,
            "lambda g, b: g + decay * b",
            "lambda g, b: decay * g + b",
        ),
        Fault(
            "Nesterov's direction kept as the buffer",
            OPTIMIZER,
            "return direction, MomentumState(state.step + 1, buffer)",
            "return direction, MomentumState(state.step + 1, direction)",
        ),
        Fault("dampening on the first step, too", OPTIMIZER, "state.step == 0", "state.step < 0"),
        Fault("dampening ignored", OPTIMIZER, "if dampening:", "if False:"),
        Fault(
            "Lion's betas swapped",
            OPTIMIZER,
            "scale_by_lion(beta1, beta2)",
            "scale_by_lion(beta2, beta1)",
        ),
        Fault(
            "rate folded into the momentum: stale buffer after a rate change",
            OPTIMIZER,
            "return optax.chain(*links, schedule)",
            "return optax.chain(links[0], schedule, *links[1:])",
        ),
        Fault(
            "decay on kernels alone",
            OPTIMIZER,
            "decay = optax.add_decayed_weights(rates.weight_decay)",
            "decay = optax.add_decayed_weights(\n"
            '        rates.weight_decay, mask=lambda p: {k: k == "kernel" for k in p})',
        ),
    ],
    "forward": [
        Fault(
            "products at TF32",
            MODEL,
            "nnx.relu(layer(activations))",
            "nnx.relu(layer(jax.lax.reduce_precision(activations, 8, 10)))",
        ),
        Fault(
            "products at bfloat16 in torch",
            TORCH_MODEL,
            "relu(layer(activations))",
            "relu(layer(activations.bfloat16().to(activations.dtype)))",
        ),
        Fault(
            "NaN in one element",
            TRAIN,
            "    logits, hidden = apply(params, inputs)\n    losses",
            "    logits, hidden = apply(params, inputs)\n"
            "    logits = logits.at[0, 0].set(jnp.nan)\n    losses",
        ),
        Fault(
            "sum for mean", TRAIN, "return jnp.mean(losses), (jnp", "return jnp.sum(losses), (jnp"
        ),
        Fault(
            "labels smoothed by 1e-3 in torch",
            TORCH_TRAIN,
            "return nn.functional.cross_entropy(logits, labels)",
            "return nn.functional.cross_entropy(logits, labels, label_smoothing=1e-3)",
        ),
        Fault(
            "labels smoothed by 1e-6",
            TRAIN,
            "labels)\n    return jnp.mean(losses), (jnp",
            "labels)\n    losses = losses * (1 - 1e-6) - 1e-6 * jnp.mean("
            "jax.nn.log_softmax(logits), axis=1)\n    return jnp.mean(losses), (jnp",
        ),
        Fault(
            "logits from activations of 20 bits",
            MODEL,
            "return self.layers[-1](activations), hidden",
            "return self.layers[-1](jax.lax.reduce_precision(activations, 8, 20)), hidden",
        ),
    ],
    "schedules": [
        Fault(
            "schedule off by one step",
            OPTIMIZER,
            "steps_per_epoch, count, rate.dtype)",
            "steps_per_epoch, count + 1, rate.dtype)",
        ),
        Fault(
            "schedule in float32 where all else is float64",
            OPTIMIZER,
            "steps_per_epoch, count, rate.dtype)",
            "steps_per_epoch, count, jnp.float32)",
        ),
        Fault("warm-up from 0", OPTIMIZER, "rising = (count + 1)", "rising = count"),
        Fault(
            "cosine's clock not started after the warm-up",
            OPTIMIZER,
            "experiment.epochs * steps_per_epoch - warmup, dtype",
            "experiment.epochs * steps_per_epoch, dtype",
        ),
        Fault(
            "exponential decay within the epoch",
            OPTIMIZER,
            "passed.astype(dtype))",
            "after.astype(dtype) / steps_per_epoch)",
        ),
        Fault(
            "milestones counted from the warm-up's end",
            OPTIMIZER,
            "come = count >=",
            "come = after >=",
        ),
        Fault(
            "warm-up rounded down",
            OPTIMIZER,
            'round(experiment.per_layer("warmup_epochs")[layer] * steps_per_epoch)',
            'int(experiment.per_layer("warmup_epochs")[layer] * steps_per_epoch)',
        ),
        Fault(
            "a rate of 0 taken for none given in torch",
            TORCH_TRAIN,
            '"lr": tensors[tensor].learning_rate,',
            '"lr": tensors[tensor].learning_rate or 1e-3,',
        ),
    ],
    "optimizers": [
        Fault(
            "biases get the weights' rates",
            TRAIN,
            "{name: LayerRates(*(value[layer] for value in of))",
            '{name: LayerRates(*(value[layer] for value in hyper.rates["kernel"]))',
        ),
        Fault(
            "biases get the weights' decay in torch",
            TORCH_TRAIN,
            '"weight_decay": tensors[tensor].weight_decay,',
            '"weight_decay": tensors["kernel"].weight_decay,',
        ),
        Fault(
            "RMSprop's epsilon inside the root", OPTIMIZER, "eps_in_sqrt=False", "eps_in_sqrt=True"
        ),
        Fault(
            "Adam's epsilon inside the root",
            OPTIMIZER,
            "(jnp.sqrt(v / correction(beta2, count, v.dtype)) + eps)",
            "jnp.sqrt(v / correction(beta2, count, v.dtype) + eps**2)",
        ),
        Fault(
            "Adagrad's epsilon inside the root",
            OPTIMIZER,
            "g / (jnp.sqrt(s) + eps)",
            "g / jnp.sqrt(s + eps**2)",
        ),
        Fault(
            "Adam's bias correction a step ahead",
            OPTIMIZER,
            "count = state.count + 1",
            "count = state.count + 2",
        ),
        Fault(
            "RMSprop's momentum left out in torch",
            TORCH_TRAIN,
            'groups, rate, alpha=options["alpha"], momentum=options["momentum"]',
            'groups, rate, alpha=options["alpha"]',
        ),
        Fault(
            "Adam's bias correction as optax rounds it",
            OPTIMIZER,
            "return scale_by_adam(beta1, beta2, eps)",
            "return optax.scale_by_adam(beta1, beta2, eps)",
        ),
    ],
    "trajectories": [
        Fault(
            "stale buffer: the optimizer's state not carried on",
            TRAIN,
            "return State(params, opt_state), metrics",
            "return State(params, state.opt_state), metrics",
        ),
        Fault(
            "gradients of two batches added up in torch", TORCH_TRAIN, "    model.zero_grad()\n", ""
        ),
    ],
    "runs": [
        Fault(
            "last batch dropped",
            TRAIN,
            "jax.lax.scan(step, flipped(state), batch_indices)",
            "jax.lax.scan(step, flipped(state), batch_indices[:-1])",
        ),
        Fault(
            "units at exactly 0 counted as alive",
            TRAIN,
            "_inactive([h > 0 for h in hidden], axis=0))",
            "_inactive([h >= 0 for h in hidden], axis=0))",
        ),
        Fault(
            "test loss over one image too many in torch",
            TORCH_TRAIN,
            "losses / images,",
            "losses / (images + 1),",
        ),
        Fault(
            "the run's seed ignored", RUN, "TorchGenerator(experiment.seed)", "TorchGenerator(0)"
        ),
        Fault(
            "the run's seed cut to 31 bits in torch",
            TORCH_RUN,
            "torch.manual_seed(settings.seed)",
            "torch.manual_seed(settings.seed & 0x7FFFFFFF)",
        ),
        Fault(
            "bias left out in torch",
            TORCH_RUN,
            "MLP(settings.widths, settings.bias, dtype)",
            "MLP(settings.widths, False, dtype)",
        ),
        Fault(
            "preprocessing ignored in torch",
            TORCH_RUN,
            "data.statistics(images.train_images, settings.preprocessing)",
            'data.statistics(images.train_images, "unit")',
        ),
        Fault(
            "statistics of the test set",
            TORCH_RUN,
            "data.statistics(images.train_images, settings.preprocessing)",
            "data.statistics(images.test_images, settings.preprocessing)",
        ),
        Fault(
            "schedule's clock of one step an epoch",
            TRAIN,
            "hyper, images, len(batch_indices))",
            "hyper, images, 1)",
        ),
        Fault(
            "schedule's clock of one step an epoch in torch",
            TORCH_RUN,
            "optimizers(settings, self.model, steps_per_epoch)",
            "optimizers(settings, self.model, 1)",
        ),
        Fault(
            "number of epochs blanked before compiling",
            TRAIN,
            '(*SCALED, "seed")',
            '(*SCALED, "seed", "epochs")',
        ),
        Fault(
            "schedulers stepped before the optimizers in torch",
            TORCH_TRAIN,
            "    for optimizer in optimizers:\n        optimizer.step()\n"
            "    for scheduler in schedulers:\n        scheduler.step()\n",
            "    for scheduler in schedulers:\n        scheduler.step()\n"
            "    for optimizer in optimizers:\n        optimizer.step()\n",
        ),
        Fault(
            "schedulers never stepped in torch",
            TORCH_TRAIN,
            "        scheduler.step()\n",
            "        pass\n",
        ),
        Fault(
            "third layer on the first one's schedule",
            OPTIMIZER,
            'match experiment.per_layer("schedule")[layer]:',
            'match experiment.per_layer("schedule")[layer % 2]:',
        ),
        Fault(
            "a decay of 0 taken for none given in torch",
            TORCH_TRAIN,
            '"weight_decay": tensors[tensor].weight_decay,',
            '"weight_decay": tensors[tensor].weight_decay or 1e-4,',
        ),
        Fault(
            "gradients clipped at 1e6 in torch",
            TORCH_TRAIN,
            "    loss.backward()\n",
            "    loss.backward()\n    nn.utils.clip_grad_norm_(model.parameters(), 1e6)\n",
        ),
        Fault(
            "activations capped at 10 000",
            MODEL,
            "nnx.relu(layer(activations))",
            "jax.numpy.minimum(nnx.relu(layer(activations)), 1e4)",
        ),
        Fault(
            "linear from the fifth hidden layer on",
            MODEL,
            "activations = nnx.relu(layer(activations))",
            "activations = nnx.relu(layer(activations)) if len(hidden) < 4 else layer(activations)",
        ),
        Fault(
            "gradient norms without biases",
            TRAIN,
            "optax.tree.norm(layer) for layer in grads",
            'optax.tree.norm(layer["kernel"]) for layer in grads',
        ),
        Fault(
            "units below 1e-6 counted as dead",
            TRAIN,
            "_inactive([h > 0 for h in hidden], axis=0))",
            "_inactive([h > 1e-6 for h in hidden], axis=0))",
        ),
        Fault(
            "test loss of the last batch alone in torch",
            TORCH_TRAIN,
            "losses += float(",
            "losses = float(",
        ),
        Fault(
            "silent images of the last batch alone in torch",
            TORCH_TRAIN,
            "silent[i] += int(",
            "silent[i] = int(",
        ),
        Fault(
            "test set evaluated without biases",
            TRAIN,
            "evaluate(experiment, apply, state.params, hyper, images)",
            'evaluate(experiment, apply, [{k: v * (k != "bias") for k, v in p.items()} '
            "for p in state.params], hyper, images)",
        ),
        Fault(
            "test images flattened as height, width, channel",
            PIXELS,
            "dataset.test_images.reshape(len",
            "dataset.test_images.transpose(0, 2, 3, 1).reshape(len",
        ),
    ],
}


class Caught(NamedTuple):
    fault: Fault
    level: str  # "" if no level noticed it
    comparison: Comparison | None  # the worst one there

    @property
    def margin(self) -> float:
        """How many bounds the fault is worth; infinite where the bound is 0, 0 if not caught."""
        return self.comparison.share if self.comparison else 0.0


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The fault in its module's code, and in whatever was imported from it.

    Raises:
        ValueError: the place to edit is not there, or not the only one.
    """
    module: Any = importlib.import_module(fault.module)
    source = Path(module.__file__).read_text()
    if source.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.old!r} stands {source.count(fault.old)} times")
    before = dict(vars(module))
    exec(compile(source.replace(fault.old, fault.new), module.__file__, "exec"), vars(module))
    after = dict(vars(module))
    renewed = {
        id(old): after[name]
        for name, old in before.items()
        if after[name] is not old and callable(old)
    }
    borrowed = [
        (other, name, value)
        for other_name, other in list(sys.modules.items())
        if other_name.split(".")[0] in OURS and other is not module
        for name, value in list(vars(other).items())
        if id(value) in renewed and not name.startswith("__")
    ]
    for other, name, value in borrowed:
        setattr(other, name, renewed[id(value)])
    try:
        with sides.planted():
            yield
    finally:
        vars(module).clear()
        vars(module).update(before)
        for other, name, value in borrowed:
            setattr(other, name, value)


def notice(fault: Fault, levels: Mapping[str, Level] = LEVELS) -> Caught:
    """The first of the levels that notices the fault, and the worst comparison until it is clear."""
    with planted(fault):
        for name, level in levels.items():
            failed: list[Comparison] = []
            try:
                with np.errstate(all="ignore"):
                    for found in level(True):
                        far = max((one.share for one in failed), default=0.0) >= MARGIN
                        if far and found.check != failed[-1].check:
                            break
                        failed += [] if found.passed else [found]
            except Exception as error:  # the fault broke a side altogether
                said = f"{type(error).__name__}: {error}"
                failed = [Comparison(name, "", "", "crash", np.nan, np.inf, said)]
            if failed:
                return Caught(fault, name, max(failed, key=lambda found: found.share))
    return Caught(fault, "", None)


def past(caught: Caught) -> str:
    """By how many bounds the fault was noticed."""
    if not caught.comparison:
        return "not caught"
    if caught.comparison.tolerance == "bitwise":
        return "bound 0"
    if caught.comparison.tolerance == "crash":
        return "crash"
    return "not finite" if caught.margin == np.inf else f"{caught.margin:.2g} bounds"


def row(caught: Caught) -> str:
    return f"{caught.fault.name:68}{caught.level or '-':28}{past(caught)}"


def count(caught: list[Caught]) -> str:
    return f"{sum(one.level != '' for one in caught)} of {len(caught)} faults caught"


def table(caught: list[Caught]) -> str:
    """Markdown: each fault, where it was planted, the level that noticed it, and by how much."""
    lines = ["| fault | planted in | caught at | how far past its bound |", "|---|---|---|---|"]
    lines += [
        f"| {one.fault.name} | {one.fault.module} | {one.level or '–'} | {past(one)} |"
        for one in caught
    ]
    return "\n".join([*lines, "", count(caught)])
