"""Faults that people reported of ports between PyTorch and JAX, planted in the pairs of models.

A fault is an edit of one place in one file of parity_tests/pairs, made in memory, as the report that
it names tells of it (often of another library on the same road, such as Keras, MLX or Flux). Some
change no output: they show in gradients, statistics or steps alone. A layer's own dtype does not show
where a judge lets all of a model compute in float64.
"""

from typing import NamedTuple

from parity_tests import pairs

GITHUB = "https://github.com/"


class Fault(NamedTuple):
    """One planted fault.

    Attributes:
        old: what is replaced; stands `times` times in the file.
        guilty: the unit by torch's name, where a unit is a layer that has weights; "between A and
            B" for what lies between two; "statistics of A" for what a norm keeps; "optimizer";
            "loss".
        suspect: what a report should call it.
        source: where it was reported.
        layout: the faulty port is the original with its weights laid out in another way; whoever
            matches weights by trying layouts may take it for what it is, an equal model.
    """

    name: str
    pair: str
    old: str
    new: str
    guilty: str
    suspect: str
    source: str
    layout: bool = False
    side: str = "flax"
    times: int = 1


OPTIMIZER = "optimizer = jaxmlp.Optimizer("
# Of the user's own, from optax' parts: {step} is what becomes of a gradient.
OWN_OPTIMIZER = """import optax

    class Optimizer(jaxmlp.Optimizer):
        def chain(self, settings):
            decay = optax.add_decayed_weights(settings["weight_decay"])
            step = {step}
            return optax.chain(decay, step, optax.scale(-settings["learning_rate"]))

    optimizer = Optimizer("""
RMS = 'optax.chain(optax.scale_by_rms(self.options["alpha"], settings["eps"]{options}), optax.trace(self.options["momentum"]))'
UNCORRECTED = """optax.GradientTransformation(
                lambda p: (jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p)),
                lambda g, state, p=None: update(g, *state, settings["eps"]),
            )"""
UPDATE = """def update(g, m, v, eps):
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), m, v), (m, v)

    """

CNN = [
    Fault(
        "average pooling that does not count the padding",
        "cnn",
        "padding=padding)",
        "padding=padding, count_include_pad=False)",
        "between conv2 and fc1",
        "count_include_pad",
        GITHUB + "google/flax/issues/2448",
    ),
    Fault(
        "flattened with the channels last",
        "cnn",
        "x.transpose(0, 3, 1, 2).reshape(len(x), -1)",
        "x.reshape(len(x), -1)",
        "between conv2 and fc1",
        "order",
        GITHUB + "microsoft/MMdnn/issues/250",
        layout=True,
    ),
    Fault(
        "the framework's own slope of leaky ReLU",
        "cnn",
        "nnx.leaky_relu(self.fc2(x), 0.2)",
        "nnx.leaky_relu(self.fc2(x))",
        "between fc2 and fc3",
        "slope",
        GITHUB + "Dobiasd/frugally-deep/pull/446",
    ),
    Fault(
        "no bias in the first convolution",
        "cnn",
        "(5, 5), padding=2, rngs=rngs",
        "(5, 5), padding=2, use_bias=False, rngs=rngs",
        "conv1",
        "missing bias",
        GITHUB + "huggingface/pytorch-image-models/pull/2533",
    ),
    Fault(
        "a square kernel transposed",
        "cnn",
        "nnx.Linear(15, 15, rngs=rngs)",
        "nnx.Linear(15, 15, dot_general=lambda x, w, *_, **__: x @ w.T, rngs=rngs)",
        "fc2",
        "transposed",
        GITHUB + "vllm-project/vllm/pull/44113",
        layout=True,
    ),
    Fault(
        "one layer in bfloat16",
        "cnn",
        "nnx.Linear(15, 15, rngs=rngs)",
        'nnx.Linear(15, 15, dtype="bfloat16", rngs=rngs)',
        "fc2",
        "precision",
        GITHUB + "jax-ml/jax/issues/10413",
    ),
    Fault(
        "momentum that damps the gradient",
        "cnn",
        "momentum=0.9,",
        "momentum=0.9, dampening=0.9,",
        "optimizer",
        "dampening",
        GITHUB + "ml-explore/mlx/pull/87",
    ),
]

RESNET = [
    Fault(
        "BatchNorm's momentum reversed",
        "resnet",
        "(features, momentum=0.9,",
        "(features, momentum=0.1,",
        "statistics of bn1",
        "momentum",
        GITHUB + "pytorch/vision/issues/8250",
    ),
    Fault(
        "BatchNorm's eps of Keras",
        "resnet",
        "epsilon=1e-5",
        "epsilon=1e-3",
        "bn1",
        "eps",
        GITHUB + "gzuidhof/nn-transfer/pull/3",
    ),
    Fault(
        "BatchNorm by its running averages in training",
        "resnet",
        "super().__call__(x, *args, **options)",
        "super().__call__(x, use_running_average=True)",
        "bn1",
        "running average",
        GITHUB + "pytorch/pytorch/issues/5406",
    ),
    Fault(
        "running variances that stay where they start",
        "resnet",
        "self.momentum * before + (1 - self.momentum) * unbiased",
        "before",
        "statistics of bn1",
        "not updated",
        GITHUB + "hiwonjoon/tf-frrn/issues/2",
    ),
    Fault(
        "SAME padding of a convolution of stride 2",
        "resnet",
        "stride, padding=1,",
        'stride, padding="SAME",',
        "layer2.conv1",
        "padding",
        GITHUB + "vtjeng/MIPVerify.jl/pull/23",
    ),
    Fault(
        "SAME padding of max-pooling",
        "resnet",
        "strides=(2, 2), padding=padding)",
        'strides=(2, 2), padding="SAME")',
        "between bn1 and layer1.conv1",
        "padding",
        GITHUB + "taehoonlee/tensornets/issues/25",
    ),
    Fault(
        "max-pooling without padding",
        "resnet",
        "strides=(2, 2), padding=padding)",
        "strides=(2, 2))",
        "between bn1 and layer1.conv1",
        "padding",
        GITHUB + "LBANN/lbann/pull/282",
    ),
    Fault(
        "no ReLU after the stem",
        "resnet",
        "nnx.relu(self.stem_bn(self.stem(x)))",
        "self.stem_bn(self.stem(x))",
        "between bn1 and layer1.conv1",
        "activation",
        GITHUB + "michuanhaohao/reid-strong-baseline/issues/4",
    ),
    Fault(
        "ReLU before the sum",
        "resnet",
        "nnx.relu(self.bn2(self.conv2(x)) + shortcut)",
        "nnx.relu(self.bn2(self.conv2(x))) + shortcut",
        "between layer1.bn2 and layer2.conv1",
        "order",
        GITHUB + "kuangliu/pytorch-cifar/issues/4",
    ),
    Fault(
        "no shortcut",
        "resnet",
        "nnx.relu(self.bn2(self.conv2(x)) + shortcut)",
        "nnx.relu(self.bn2(self.conv2(x)))",
        "between layer1.bn2 and layer2.conv1",
        "residual",
        GITHUB + "delira-dev/delira/issues/91",
    ),
    Fault(
        "momentum that is not Nesterov's",
        "resnet",
        "weight_decay=5e-4, nesterov=True",
        "weight_decay=5e-4",
        "optimizer",
        "nesterov",
        GITHUB + "andreasveit/densenet-pytorch/pull/5",
    ),
]

SEPARABLE = [
    Fault(
        "ReLU where ReLU6 was",
        "separable",
        "nnx.relu6(self.pointwise_bn(",
        "nnx.relu(self.pointwise_bn(",
        "between features.0.4 and features.1.0",
        "activation",
        GITHUB + "microsoft/MMdnn/issues/72",
    ),
    Fault(
        "nothing between depthwise and pointwise",
        "separable",
        "nnx.relu6(self.depthwise_bn(self.depthwise(x)))",
        "self.depthwise_bn(self.depthwise(x))",
        "between features.0.1 and features.0.3",
        "activation",
        GITHUB + "ildoonet/tf-pose-estimation/issues/279",
    ),
    Fault(
        "running variances that are the biased ones",
        "separable",
        "ddof=1",
        "ddof=0",
        "statistics of stem.1",
        "unbiased",
        GITHUB + "rwth-i6/returnn/issues/1539",
    ),
    Fault(
        "SAME padding of a depthwise convolution",
        "separable",
        "            padding=1,\n            feature",
        '            padding="SAME",\n            feature',
        "features.1.0",
        "padding",
        GITHUB + "zylo117/Yet-Another-EfficientDet-Pytorch/issues/50",
    ),
    Fault(
        "RMSprop's eps inside the root",
        "separable",
        OPTIMIZER,
        OWN_OPTIMIZER.format(step=RMS.format(options="")),
        "optimizer",
        "eps",
        GITHUB + "google-deepmind/optax/issues/532",
    ),
    Fault(
        "RMSprop's squares that start at 1",
        "separable",
        OPTIMIZER,
        OWN_OPTIMIZER.format(step=RMS.format(options=", 1.0, eps_in_sqrt=False")),
        "optimizer",
        "initial value",
        GITHUB + "google-deepmind/optax/issues/49",
    ),
]

UNET = [
    Fault(
        "GroupNorm's eps as the framework has it",
        "unet",
        "epsilon=1e-5",
        "epsilon=1e-6",
        "down1.norm",
        "eps",
        GITHUB + "ml-explore/mlx-examples/issues/1434",
    ),
    Fault(
        "another number of groups",
        "unet",
        "num_groups=2",
        "num_groups=1",
        "down1.norm",
        "groups",
        GITHUB + "huggingface/diffusers/issues/621",
    ),
    Fault(
        "GroupNorm of each pixel by itself",
        "unet",
        "return nnx.silu(self.norm(self.conv(x)))",
        "y = self.conv(x)\n        return nnx.silu(self.norm(y.reshape(-1, y.shape[-1])).reshape(y.shape))",
        "down1.norm",
        "axis",
        GITHUB + "keras-team/keras/issues/18231",
    ),
    Fault(
        "SAME padding of a transposed convolution",
        "unet",
        "padding = ((1, 2), (1, 2))",
        'padding = "SAME"',
        "up2",
        "padding",
        GITHUB + "keras-team/keras/pull/22876",
    ),
    Fault(
        "convolution where torch correlates",
        "unet",
        "(1, 1), rngs=rngs)\n",
        "(1, 1), rngs=rngs)\n        flipped = lambda x, w, *a, **k: jax.lax.conv_general_dilated(x, w[::-1, ::-1], *a, **k)\n        self.bottleneck.conv.conv_general_dilated = flipped\n",
        "middle.conv",
        "flipped",
        GITHUB + "FluxML/Metalhead.jl/pull/14",
        layout=True,
    ),
    Fault(
        "smoothing that leaves the true class out",
        "unet",
        "optax.smooth_labels(classes, 0.1)",
        "0.9 * classes + 0.1 * (1 - classes) / (classes.shape[-1] - 1)",
        "loss",
        "smoothing",
        GITHUB + "mindspore-ai/mindspore/issues/73",
    ),
    Fault(
        "the sum where the mean was",
        "unet",
        "0.1)).mean()",
        "0.1)).sum()",
        "loss",
        "reduction",
        GITHUB + "jax-ml/jax/pull/3113",
    ),
    Fault(
        "AdamW where Adam was",
        "unet",
        '"adam", learning_rate',
        '"adamw", learning_rate',
        "optimizer",
        "decay",
        GITHUB + "google-deepmind/optax/issues/417",
    ),
]

LSTM = [
    Fault(
        "gates in another order",
        "lstm",
        "i, f, g, o = ",
        "i, f, o, g = ",
        "lstm",
        "order",
        GITHUB + "apple/coremltools/pull/93",
        layout=True,
    ),
    Fault(
        "one bias where torch has two",
        "lstm",
        """self.recurrent_bias = draw(4 * width)
        self.width = width

    def __call__(self, x: Array) -> Array:
        kernel, bias = self.recurrent_kernel[...], self.recurrent_bias[...]
""",
        """self.width = width

    def __call__(self, x: Array) -> Array:
        kernel, bias = self.recurrent_kernel[...], 0.0
""",
        "lstm",
        "missing bias",
        GITHUB + "google/flax/issues/3746",
    ),
    Fault(
        "a forget gate with 1 added",
        "lstm",
        "nnx.sigmoid(f)",
        "nnx.sigmoid(f + 1.0)",
        "lstm",
        "forget bias",
        GITHUB + "tensorflow/tensorflow/issues/14223",
    ),
    Fault(
        "a scan over examples instead of places",
        "lstm",
        """jnp.zeros((len(x), self.width), from_inputs.dtype)
        _, states = jax.lax.scan(step, (zeros, zeros), from_inputs.swapaxes(0, 1))
        return states.swapaxes(0, 1)
""",
        """jnp.zeros((x.shape[1], self.width), from_inputs.dtype)
        _, states = jax.lax.scan(step, (zeros, zeros), from_inputs)
        return states
""",
        "lstm",
        "axis",
        GITHUB + "HHTseng/video-classification/issues/42",
    ),
    Fault(
        "a scan that runs backwards",
        "lstm",
        "from_inputs.swapaxes(0, 1))",
        "from_inputs.swapaxes(0, 1)[::-1])",
        "lstm",
        "order",
        GITHUB + "apache/tvm/issues/15176",
    ),
    Fault(
        "Adam's eps inside the root",
        "lstm",
        OPTIMIZER,
        OWN_OPTIMIZER.format(step='optax.scale_by_adam(eps=0.0, eps_root=settings["eps"])'),
        "optimizer",
        "eps",
        GITHUB + "FluxML/Flux.jl/pull/448",
    ),
    Fault(
        "Adam without bias correction",
        "lstm",
        OPTIMIZER,
        UPDATE + OWN_OPTIMIZER.format(step=UNCORRECTED),
        "optimizer",
        "bias correction",
        GITHUB + "ml-explore/mlx/pull/1640",
    ),
]

ENCODER = [
    Fault(
        "LayerNorm's eps as the framework has it",
        "encoder",
        "epsilon=1e-5",
        "epsilon=1e-6",
        "layers.0.norm1",
        "eps",
        GITHUB + "mindspore-lab/mindone/pull/225",
    ),
    Fault(
        "GELU by tanh",
        "encoder",
        "approximate=False",
        "approximate=True",
        "between layers.0.linear1 and layers.0.linear2",
        "approximate",
        GITHUB + "goodfire-ai/spd/issues/624",
    ),
    Fault(
        "the norm behind attention's sum",
        "encoder",
        "x = x + self.attention(self.attention_norm(x))",
        "x = self.attention_norm(x + self.attention(x))",
        "layers.0.norm1",
        "order",
        GITHUB + "openai/CLIP/issues/91",
    ),
    Fault(
        "a sum that starts behind the norm",
        "encoder",
        "y = self.up(self.mlp_norm(x))",
        "x = self.mlp_norm(x)\n        y = self.up(x)",
        "between layers.0.linear2 and layers.1.norm1",
        "residual",
        GITHUB + "SHI-Labs/Compact-Transformers/issues/25",
    ),
    Fault(
        "the last norm forgotten",
        "encoder",
        "self.head(self.norm(x).mean(1))",
        "self.head(x.mean(1))",
        "norm",
        "missing norm",
        GITHUB + "agentdr1/LA_MIL/issues/3",
    ),
    Fault(
        "dropout in attention",
        "encoder",
        "decode=False, rngs",
        "dropout_rate=0.1, decode=False, rngs",
        "layers.0.self_attn",
        "dropout",
        GITHUB + "rasbt/LLMs-from-scratch/pull/519",
    ),
    Fault(
        "Adam's eps a hundred thousand times as large",
        "encoder",
        "learning_rate=0.002,",
        "learning_rate=0.002, eps=1e-3,",
        "optimizer",
        "eps",
        GITHUB + "dgriff777/rl_a3c_pytorch/issues/29",
    ),
    Fault(
        "decay that is not multiplied by the rate",
        "encoder",
        "weight_decay=0.01",
        "weight_decay=0.01 / 0.002",
        "optimizer",
        "decay",
        GITHUB + "lucidrains/lion-pytorch/issues/39",
    ),
]

GPT = [
    Fault(
        "attention's scores not scaled",
        "gpt",
        ", q, k) / (WIDTH // HEADS) ** 0.5",
        ", q, k)",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "scale",
        GITHUB + "Project-MONAI/GenerativeModels/issues/146",
    ),
    Fault(
        "scores scaled by the width instead of a head's",
        "gpt",
        "(WIDTH // HEADS) ** 0.5",
        "WIDTH**0.5",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "scale",
        GITHUB + "karpathy/ng-video-lecture/pull/6",
    ),
    Fault(
        "no causal mask",
        "gpt",
        "jnp.where(mask, scores, -jnp.inf)",
        "scores",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "mask",
        GITHUB + "facebookresearch/xformers/issues/103",
    ),
    Fault(
        "a causal mask that shows the next place",
        "gpt",
        "bool))",
        "bool), 1)",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "mask",
        GITHUB + "RVC-Boss/GPT-SoVITS/issues/965",
    ),
    Fault(
        "a mask of the wrong triangle",
        "gpt",
        "jnp.tril(",
        "jnp.triu(",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "mask",
        GITHUB + "marin-community/levanter/pull/102",
    ),
    Fault(
        "masked scores of -1e-9",
        "gpt",
        "scores, -jnp.inf)",
        "scores, -1e-9)",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "mask",
        GITHUB + "Shujun-He/RibonanzaNet/issues/5",
    ),
    Fault(
        "softmax over the queries",
        "gpt",
        "-jnp.inf), axis=-1)",
        "-jnp.inf), axis=-2)",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "axis",
        GITHUB + "labmlai/annotated_deep_learning_paper_implementations/issues/146",
    ),
    Fault(
        "softmax in bfloat16",
        "gpt",
        "jnp.where(mask, scores, -jnp.inf), axis=-1)",
        "jnp.where(mask, scores, -jnp.inf).astype(jnp.bfloat16), axis=-1).astype(x.dtype)",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "precision",
        GITHUB + "apple/axlearn/pull/18",
    ),
    Fault(
        "heads joined without their transposition",
        "gpt",
        '"nhqk,nkhd->nqhd"',
        '"nhqk,nkhd->nhqd"',
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "order",
        GITHUB + "jsbaan/transformer-from-scratch/pull/6",
    ),
    Fault(
        "query, key and value interleaved by heads",
        "gpt",
        "q, k, v = (part.reshape(heads) for part in jnp.split(self.qkv(x), 3, axis=-1))",
        "q, k, v = jnp.split(self.qkv(x).reshape(*heads[:3], -1), 3, axis=-1)",
        "between h.0.attn.c_attn and h.0.attn.c_proj",
        "order",
        GITHUB + "awslabs/slapo/pull/46",
        layout=True,
    ),
    Fault(
        "exact GELU where GPT-2 has tanh",
        "gpt",
        "approximate=True",
        "approximate=False",
        "between h.0.c_fc and h.0.c_proj",
        "approximate",
        GITHUB + "google/gemma_pytorch/issues/33",
    ),
    Fault(
        "embeddings times the root of the width",
        "gpt",
        "self.tokens(tokens) + ",
        "self.tokens(tokens) * WIDTH**0.5 + ",
        "between wte and h.0.ln_1",
        "scale",
        GITHUB + "TensorAuto/OpenTau/pull/179",
    ),
    Fault(
        "positions off by one",
        "gpt",
        "jnp.arange(tokens.shape[1])",
        "jnp.minimum(jnp.arange(tokens.shape[1]) + 1, PLACES - 1)",
        "wpe",
        "positions",
        GITHUB + "huggingface/transformers/issues/19240",
    ),
    Fault(
        "an unembedding of its own",
        "gpt",
        """self.norm = layer_norm(rngs)

    def __call__(self, tokens: Array) -> Array:
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.tokens.attend(self.norm(x))
""",
        """self.norm = layer_norm(rngs)
        self.head = nnx.Linear(WIDTH, TOKENS, use_bias=False, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
""",
        "lm_head",
        "tied",
        GITHUB + "foundation-model-stack/foundation-model-stack/pull/93",
    ),
    Fault(
        "no decay of the last norm",
        "gpt",
        "weight_decay=0.1",
        'weight_decay={"*": 0.1, "norm.scale": 0.0, "norm.bias": 0.0}',
        "optimizer",
        "decay",
        GITHUB + "marin-community/levanter/pull/405",
    ),
]

VIT = [
    Fault(
        "another LayerNorm's eps",
        "vit",
        "epsilon=1e-6",
        "epsilon=1e-5",
        "layers.0.ln_1",
        "eps",
        GITHUB + "karpathy/makemore/issues/1",
    ),
    Fault(
        "GELU by a sigmoid",
        "vit",
        "nnx.gelu(y, approximate=False)",
        "(y * nnx.sigmoid(1.702 * y))",
        "between layers.0.mlp.0 and layers.0.mlp.2",
        "approximate",
        GITHUB + "huggingface/pytorch-image-models/issues/1754",
    ),
    Fault(
        "a patch convolution in TF32",
        "vit",
        'padding="VALID", rngs=rngs)',
        'padding="VALID", rngs=rngs)\n        tf32 = lambda x: jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)\n        self.patches.conv_general_dilated = lambda x, w, *a, **k: jax.lax.conv_general_dilated(tf32(x), tf32(w), *a, **k)',
        "conv_proj",
        "precision",
        GITHUB + "jax-ml/jax/issues/12008",
    ),
    Fault(
        "patches taken column by column",
        "vit",
        "self.patches(x).reshape(",
        "self.patches(x).swapaxes(1, 2).reshape(",
        "between conv_proj and layers.0.ln_1",
        "order",
        GITHUB + "developmentseed/tensorflow-eo-training/issues/11",
    ),
    Fault(
        "the class token behind the patches",
        "vit",
        "jnp.concatenate([token, x], axis=1)",
        "jnp.concatenate([x, token], axis=1)",
        "between conv_proj and layers.0.ln_1",
        "order",
        GITHUB + "athms/learning-from-brains/issues/3",
    ),
    Fault(
        "no positions",
        "vit",
        " + self.positions[...]\n",
        "\n",
        "between conv_proj and layers.0.ln_1",
        "positions",
        GITHUB + "lucidrains/DALLE2-pytorch/issues/252",
    ),
    Fault(
        "a class token without its position",
        "vit",
        "jnp.concatenate([token, x], axis=1) + self.positions[...]",
        "jnp.concatenate([token, x + self.positions[:, 1:]], axis=1)",
        "between conv_proj and layers.0.ln_1",
        "positions",
        GITHUB + "labmlai/annotated_deep_learning_paper_implementations/pull/221",
    ),
    Fault(
        "the mean over all places instead of the class token",
        "vit",
        "self.norm(x)[:, 0]",
        "self.norm(x).mean(1)",
        "between ln and head",
        "pooling",
        GITHUB + "kyegomez/Vit-RGTS/issues/10",
    ),
    Fault(
        "decay left at 0",
        "vit",
        ", weight_decay=0.05",
        "",
        "optimizer",
        "decay",
        GITHUB + "finegrain-ai/refiners/pull/320",
    ),
]

FAULTS = (*CNN, *RESNET, *SEPARABLE, *UNET, *LSTM, *ENCODER, *GPT, *VIT)


def planted(fault: Fault) -> str:
    """The source of the fault's file with the fault in it.

    Raises:
        ValueError: the text that it replaces does not stand there as often as it says.
    """
    source = pairs.path(fault.pair, fault.side).read_text()
    found = source.count(fault.old)
    if found != fault.times:
        raise ValueError(f"{fault.name}: its text stands {found} times in {fault.pair}")
    return source.replace(fault.old, fault.new)
