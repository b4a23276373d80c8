"""Experiments of every kind, drawn by hypothesis."""

from hypothesis import strategies as st

from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment

DECADE = st.floats(-1.5, 1.5)


@st.composite
def experiments(draw: st.DrawFn, optimizers=tuple(OPTIMIZER_DEFAULTS)):
    """Depth 1 to 4, every optimizer, biases with settings of their own, everything per layer."""
    hidden = draw(st.sampled_from([(), (5,), (5, 6), (5, 6, 4)]))
    optimizer, bias = draw(st.sampled_from(optimizers)), draw(st.booleans())
    default = OPTIMIZER_DEFAULTS[optimizer]

    def per_layer(centre: float) -> tuple[float, ...]:
        return tuple(centre * 10 ** draw(DECADE) for _ in range(len(hidden) + 1))

    settings: dict = {
        "init_scale": per_layer(1.0),
        "learning_rate": per_layer(default["learning_rate"][0]),
        "weight_decay": draw(st.sampled_from([(0.0,), per_layer(1e-2)])),
    }
    if "eps" in default:
        settings["eps"] = per_layer(1e-6)
    if bias and draw(st.booleans()):
        settings |= {
            f"bias_{name}": per_layer(values[0]) for name, values in settings.items() if values[0]
        }
    momentum = draw(st.sampled_from([0.0, 0.9]))
    if "momentum" in default:
        settings["momentum"] = momentum
    return Experiment(
        hidden=hidden,
        bias=bias,
        optimizer=optimizer,
        input_scale=10 ** draw(DECADE),
        nesterov=optimizer == "sgd" and momentum > 0 and draw(st.booleans()),
        **settings,
    )


def factors(experiment: Experiment, exponents: st.SearchStrategy[float]) -> st.SearchStrategy:
    """One factor per layer: powers of two for integer exponents."""
    return st.lists(
        exponents.map(lambda e: 2.0**e), min_size=experiment.layers, max_size=experiment.layers
    )
