"""How much memory a stage takes, estimated before anything is loaded. All numbers are bytes.

A training step holds, at its peak (T: sequences times their length, e: bytes of a number):

weights       parameters x e; in 4 bits (nf4, the constants quantised as well) 4.127 bits for each
              weight of a linear layer (Dettmers et al. 2023, arXiv 2305.14314, section 3)
gradients     trained parameters x their own e
optimiser     Adam's two averages: twice the gradients
activations   what the backward pass needs, layer by layer, as in Korthikanti et al. 2022 (arXiv
              2205.05198, section 4.1), counted anew for today's layers: theirs has LayerNorm, GELU,
              dropout and stored attention scores (34 + 5as/h bytes per token and hidden unit),
              these have RMSNorm, a gated MLP and attention that stores no scores. See
              `layer_activations`; a test counts what torch really saves.

Left out: the CUDA context and its libraries (about 0.5 GiB), the allocator's gaps, the buckets that
several processes exchange gradients in. Sequences count as if all were `max_length` long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import CourseError
from .profiles import Profile, hub_problem
from .readers import is_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STAGES = ("sft", "reward", "dpo", "ppo")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4 = 4.127 / 8  # of one quantised weight
# TRL's log-probabilities are computed in tiles of at most so many tokens and vocabulary entries.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
SCORED_AT_ONCE = 64  # responses, by `reward.get_rewards`
LONGEST_PROMPT = 448  # tokens, in PPO


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory. Widths are numbers of units.

    Attributes:
        parameters: all of them, shared ones once.
        linear: those in linear layers without the output embedding, which 4 bits and LoRA apply to.
        lora_per_rank: parameters that one rank of LoRA adds to those layers.
        largest_linear: parameters of the largest of them.
        head: parameters of the output embedding if it is not shared, which a reward model lacks.
        hidden, intermediate, layers, vocabulary: as in the configuration.
        queries, keys: width of all query heads together, of all key heads together.
        heads: query heads.
    """

    parameters: int
    linear: int
    lora_per_rank: int
    largest_linear: int
    head: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    queries: int
    keys: int
    heads: int


@dataclass(frozen=True)
class Estimate:
    """One stage's peak, in bytes."""

    stage: str
    weights: float
    gradients: float
    optimiser: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimiser + self.activations


@dataclass(frozen=True)
class Setting:
    """How a stage computes.

    Attributes:
        number: bytes of a weight that is not quantised, and of an activation.
        trained: bytes of a trained weight.
        rank: of LoRA; 0 trains every weight.
        quantised: linear layers are held in 4 bits.
        checkpointing: layers keep their input only and are computed again in the backward pass.
        cuda: on a GPU, where tiles are allocated whole.
    """

    number: int
    trained: int
    rank: int = 0
    quantised: bool = False
    checkpointing: bool = False
    cuda: bool = False


def read_shape(name: str) -> Shape:
    """The shape of a model from its configuration alone; no weight is loaded.

    Args:
        name: the path of a folder, or a hub id.

    Raises:
        CourseError: there is no configuration to be had, or it is not a language model's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        try:
            config = AutoConfig.from_pretrained(name, local_files_only=True)
        except OSError:  # not in the cache
            problem = None if is_path(name) else hub_problem(name)
            if problem:
                raise CourseError(f"No estimate of the memory: {problem}") from None
            config = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise CourseError(
            f"No estimate of the memory: {name} has no configuration of a language model; give a "
            "hub id, or a folder with a config.json."
        ) from error
    return shape_of(model, config)


def shape_of(model: Any, config: PretrainedConfig) -> Shape:
    """The shape of a model that may stand on the meta device."""
    import torch

    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    keys = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    tied = head is None or head.weight is model.get_input_embeddings().weight
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(m.weight.numel() for m in linear),
        lora_per_rank=sum(m.in_features + m.out_features for m in linear),
        largest_linear=max((m.weight.numel() for m in linear), default=0),
        head=0 if tied else head.weight.numel(),
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        queries=width * text.num_attention_heads,
        keys=width * keys,
        heads=text.num_attention_heads,
    )


def layer_activations(shape: Shape, setting: Setting) -> float:
    """What one layer keeps for the backward pass, per token.

    - Two RMSNorms: their input in float32, and where their weights are trained the normalised
      input once more.
    - Attention: queries, keys, values and its output; per head the float32 sum of the softmax.
    - MLP: gate, its activation, up, and their product.
    - Linear layers: a trained one keeps its input (the product and attention's output are counted
      already); with LoRA each keeps its own cast of the input when the adapter has another
      precision than the model, and the r numbers in between.
    """
    e = setting.number
    norms = 2 * (4 * shape.hidden) + 2 * 4
    attention = e * (2 * shape.queries + 2 * shape.keys) + 4 * shape.heads
    mlp = e * 4 * shape.intermediate
    if not setting.rank:
        return norms + 2 * e * shape.hidden + 2 * e * shape.hidden + attention + mlp
    ranks = 7 * e * setting.rank
    casts = setting.trained != e  # q, k, v, gate and up each cast the same input
    inputs = e * (5 * shape.hidden + shape.queries) if casts else 2 * e * shape.hidden
    return norms + inputs + ranks + attention + mlp


def step_activations(shape: Shape, setting: Setting, tokens: int, head: float = 0.0) -> float:
    """The peak of a forward and backward pass over `tokens`.

    The backward pass begins where all activations are held, with what comes after the layers
    (`head`, in bytes). When that is done and freed, the gradients of the last MLP follow, and
    before them, with checkpointing, its layer is computed again.
    """
    layer = layer_activations(shape, setting) * tokens
    kept = setting.number * shape.hidden * tokens
    final_norm = 4 * shape.hidden * tokens + kept
    working = setting.number * (3 * shape.intermediate + 2 * shape.hidden) * tokens
    working += setting.number * shape.largest_linear if setting.quantised else 0
    if setting.checkpointing:
        return shape.layers * kept + final_norm + max(head, layer + working)
    return shape.layers * layer + final_norm + max(head, working)


def tile(shape: Shape, setting: Setting, tokens: int) -> float:
    """TRL's log-probabilities: one tile of logits, and the float32 gradient of the last layer.

    On a GPU the tile is allocated for a whole chunk of the vocabulary and folded in place. On a CPU
    only what the vocabulary needs is touched, and the backward pass holds beside it, for each
    entry, seven numbers in float32 (logits, the same scaled, log-probabilities, probabilities, the
    gradient and two terms of it) and a mask.
    """
    rows = min(tokens, TILE_TOKENS)
    gradient = 4 * shape.hidden * tokens
    if setting.cuda:
        return setting.number * rows * TILE_VOCABULARY + gradient
    return (setting.number + 7 * 4 + 1) * rows * min(shape.vocabulary, TILE_VOCABULARY) + gradient


def held(shape: Shape, setting: Setting, with_head: bool = True) -> float:
    """Weights of one model, its adapter not counted."""
    parameters = shape.parameters - (0 if with_head else shape.head)
    if not setting.quantised:
        return parameters * setting.number
    return (parameters - shape.linear) * setting.number + shape.linear * NF4


def trained_weights(shape: Shape, setting: Setting, with_head: bool = True) -> int:
    """How many weights are trained."""
    if setting.rank:
        return shape.lora_per_rank * setting.rank
    return shape.parameters - (0 if with_head else shape.head)


def sampling(shape: Shape, setting: Setting, rows: int, prompt: int, new: int) -> float:
    """PPO's sampling: the cache of keys and values, or the prompt's pass, whichever is more.

    The value head asks for the hidden states of all layers, so those of the prompts are held.
    """
    e = setting.number
    per_token = 2 * shape.keys * e
    cache = shape.layers * per_token * rows * (prompt + new)
    a_layer_again = per_token * rows * (prompt + new)  # a longer cache is a copy
    distribution = rows * shape.vocabulary * (e + 3 * 4)
    states = (shape.layers + 1) * e * shape.hidden * rows * prompt
    working = e * (3 * shape.intermediate + 2 * shape.hidden) * rows * prompt
    filled = shape.layers * per_token * rows * prompt
    return max(cache + a_layer_again + distribution, states + working + filled)


def estimate(
    shape: Shape, profile: Profile, stage: str, dtype: str, device: str = "cuda"
) -> Estimate:
    """The peak of one stage with the profile's settings.

    Args:
        stage: one of `STAGES`.
        dtype: of the weights, as `setup` chooses it.
        device: ``cuda`` or ``cpu``.
    """
    setting = setting_of(profile, stage, dtype, device)
    if stage == "ppo":
        return _ppo(shape, profile, setting)
    pairs = profile.dpo_batch_size or profile.batch_size if stage == "dpo" else profile.batch_size
    tokens = (1 if stage == "sft" else 2) * pairs * profile.max_length
    head = 0.0 if stage == "reward" else tile(shape, setting, tokens)  # that has one output
    activations = step_activations(shape, setting, tokens, head)
    return _sum(shape, setting, stage, activations, stage != "reward")


def setting_of(profile: Profile, stage: str, dtype: str, device: str) -> Setting:
    """How a stage computes. An adapter is held in float32; in 4 bits TRL makes it bfloat16."""
    lora = profile.adapter == "lora"
    e = BYTES[dtype]
    by_trl = stage != "ppo" and profile.load_in_4bit and dtype == "bfloat16"
    return Setting(
        number=e,
        trained=4 if lora and not by_trl else e,
        rank=profile.lora_rank if lora else 0,
        quantised=profile.load_in_4bit,
        checkpointing=profile.gradient_checkpointing,
        cuda=device == "cuda",
    )


def _sum(
    shape: Shape, setting: Setting, stage: str, activations: float, with_head: bool = True
) -> Estimate:
    trained = trained_weights(shape, setting, with_head) * setting.trained
    adapter = trained if setting.rank else 0
    weights = held(shape, setting, with_head) + adapter
    return Estimate(stage, weights, trained, 2 * trained, activations)


def _ppo(shape: Shape, profile: Profile, setting: Setting) -> Estimate:
    """Policy, reference and reward model are held; sampling, scoring and updating take turns.

    The reference of a LoRA policy is the policy without its adapter; of another, a copy.
    """
    new = profile.max_new_tokens
    prompt = min(profile.max_length - new, LONGEST_PROMPT)
    e = setting.number
    logits = profile.ppo_mini_batch_size * (new + 1) * shape.vocabulary
    logits *= e + 3 * 4  # logits; log-probs, their gradient and its own in float32
    tokens = profile.ppo_mini_batch_size * (prompt + new)
    update = step_activations(shape, setting, tokens, logits)
    scored = min(SCORED_AT_ONCE, profile.ppo_batch_size) * (prompt + new)
    scoring = e * (3 * shape.intermediate + 4 * shape.hidden) * scored
    drawn = sampling(shape, setting, profile.ppo_batch_size, prompt, new)
    alone = _sum(shape, setting, "ppo", max(update, scoring, drawn))
    others = held(shape, setting, with_head=False)
    others += 0 if setting.rank else held(shape, setting)
    others += shape.lora_per_rank * setting.rank * setting.trained  # the reward model's adapter
    return Estimate(
        "ppo", alone.weights + others, alone.gradients, alone.optimiser, alone.activations
    )


def estimates(shape: Shape, profile: Profile, dtype: str, device: str) -> list[Estimate]:
    """Of every stage."""
    return [estimate(shape, profile, stage, dtype, device) for stage in STAGES]


def as_table(rows: list[Estimate], have_gb: float = 0.0) -> list[str]:
    """Lines for people, in GiB; with what the GPU here has, whether each stage fits into it."""
    parts = ("weights", "gradients", "optimiser", "activations", "total")
    lines = [f"  {'GiB':<8}" + "".join(f"{part:>13}" for part in parts)]
    for row in rows:
        line = f"  {row.stage:<8}" + "".join(f"{getattr(row, p) / 2**30:>13.2f}" for p in parts)
        if have_gb:
            line += (
                "   fits" if row.total / 2**30 < have_gb - 0.5 else "   does not fit the GPU here"
            )
        lines.append(line)
    return lines


def as_json(rows: list[Estimate]) -> dict[str, Mapping[str, float]]:
    """Per stage its parts in GiB."""
    return {
        row.stage: {
            part: round(getattr(row, part) / 2**30, 3)
            for part in ("weights", "gradients", "optimiser", "activations", "total")
        }
        for row in rows
    }
