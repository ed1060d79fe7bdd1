"""A causal language model with a value head on the same trunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..errors import CourseError

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

HEAD_FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    """One number per position, from the last hidden state: (B, T, H) -> (B, T), in float32.

    It starts at zero: the first values are 0 everywhere, and a random head cannot push the trunk.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.summary = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.summary.weight)
        nn.init.zeros_(self.summary.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):  # which would make it 16 bits
            values: torch.Tensor = self.summary(hidden.to(self.summary.weight.dtype)).squeeze(-1)
        return values


class AutoModelForCausalLMWithValueHead(nn.Module):
    """The policy and its value function; they share every layer but the last.

    Sharing halves the work of the optimisation epochs: a separate value model costs a second
    forward and backward pass.
    """

    def __init__(self, pretrained_model: PreTrainedModel) -> None:
        super().__init__()
        self.pretrained_model = pretrained_model
        self.v_head = ValueHead(self.config.get_text_config().hidden_size)
        self.v_head.to(pretrained_model.device)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | PreTrainedModel,
        *,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> AutoModelForCausalLMWithValueHead:
        """From a folder, a hub id, or a model in memory; with the saved value head if there is one.

        Args:
            peft_config: train an adapter on top; the model underneath is then the reference.
            kwargs: given to `AutoModelForCausalLM.from_pretrained`.
        """
        source = pretrained_model_name_or_path
        model = _load(source, **kwargs) if isinstance(source, (str, Path)) else source
        if peft_config is not None:
            from peft import PeftModel, get_peft_model

            if isinstance(model, PeftModel):
                raise CourseError(
                    "The model has an adapter already: call merge_and_unload() first, "
                    "or leave peft_config out."
                )
            model = get_peft_model(model, peft_config)
        wrapped = cls(model)
        if isinstance(source, (str, Path)) and (Path(source) / HEAD_FILE).is_file():
            from safetensors.torch import load_file

            wrapped.v_head.load_state_dict(load_file(Path(source) / HEAD_FILE))
        return wrapped

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Write the model (or its adapter) as `transformers` reads it, the value head beside it."""
        from safetensors.torch import save_file

        self.pretrained_model.save_pretrained(folder, **kwargs)
        head = {name: t.detach().cpu() for name, t in self.v_head.state_dict().items()}
        save_file(head, Path(folder) / HEAD_FILE)

    @property
    def config(self) -> Any:
        return self.pretrained_model.config

    @property
    def device(self) -> torch.device:
        return self.pretrained_model.device

    @property
    def is_peft_model(self) -> bool:
        return hasattr(self.pretrained_model, "disable_adapter")

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        keep: int = 0,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None, torch.Tensor]:
        """(logits (B, K, V), None, values (B, K)), the order of the classic class.

        Args:
            input_ids, attention_mask: (B, T).
            keep: only the last `keep` positions, K; 0 means all T. The vocabulary projection of
                the prompt, which nobody reads, is then never computed.
        """
        output = self.pretrained_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            logits_to_keep=keep,
            output_hidden_states=True,
            **kwargs,
        )
        hidden = output.hidden_states[-1]
        return output.logits, None, self.v_head(hidden[:, -keep:] if keep else hidden)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The language model's own `generate`."""
        return self.pretrained_model.generate(*args, **kwargs)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations in the backward pass to save memory, see `recomputing`."""
        self.pretrained_model.activation_checkpointing_enable(**kwargs)

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Where checkpointing is on, it works in this `with` block, with dropout still off.

        `transformers` checkpoints only layers in training mode, and those cannot sample with a
        cache. So the layers' own flags are set for a while, and not those of what is in them.
        """
        layers = [
            module
            for module in self.modules()
            if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
        ]
        before = [layer.training for layer in layers]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer, training in zip(layers, before, strict=True):
                layer.training = training

    @contextmanager
    def without_adapter(self) -> Iterator[PreTrainedModel]:
        """The model underneath the adapter: the reference of a LoRA policy, at no extra memory."""
        with self.pretrained_model.disable_adapter():
            yield self.pretrained_model


def _load(source: str | Path, **kwargs: Any) -> PreTrainedModel:
    """A causal LM; a folder that holds an adapter is put onto its base, still trainable."""
    if (Path(source) / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(source, is_trainable=True, **kwargs)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, **kwargs)
