"""`PPOTrainer`: the classic loop of generate, score, step, on today's libraries.

TRL removed its own in 2026; this one keeps the names and the calls. Proximal policy optimisation
(Schulman et al. 2017, arXiv 1707.06347) of a language model, with a KL penalty in the reward
(Ziegler et al. 2019, arXiv 1909.08593; Ouyang et al. 2022, arXiv 2203.02155). Simplifications:

1. Policy and value function share their trunk.
2. An episode is one response, a step one token; the score comes with the last one.
3. The reference never changes. For a LoRA policy it is the model without its adapter.
4. Dropout is off throughout, so that sampling and training see the same policy.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import CourseError
from ..generation import truncate_prompts
from ..logprobs import kl_estimates, whiten
from ..models import raise_trainable
from ..room import fitting, in_batches
from .config import PPOConfig
from .inputs import (
    check_counts,
    check_parts,
    cut_behind,
    generation_settings,
    score_tensor,
    token_rows,
)
from .kl_control import AdaptiveKLController, FixedKLController
from .losses import gae, policy_loss, token_rewards, value_loss
from .rollout import (
    Experience,
    Kept,
    new_experience,
    policy_outputs,
    reference_logprobs,
    sample,
    trim,
)
from .value_head import AutoModelForCausalLMWithValueHead

RewardFunction = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
Stats = dict[str, float]
MAX_PROMPT_TOKENS = 448


class PPOTrainer:
    """Trains a policy to score higher without drifting far from its reference.

    Args:
        config: the settings.
        model: policy with value head.
        ref_model: what KL is measured from; None takes the model without its adapter, or a copy of
            the model as it is now.
        tokenizer: with a pad and an EOS token.
        dataset, data_collator: for older material that loops over `trainer.dataloader`.
        optimizer: default Adam with eps 1e-5 over the trainable weights.
        lr_scheduler: stepped once per batch of responses.

    Attributes:
        history: one dictionary per `step` of `train`, or per call of `log_stats`.
        kl_ctl: the controller of the KL coefficient.
    """

    def __init__(
        self,
        config: PPOConfig | None = None,
        model: AutoModelForCausalLMWithValueHead | None = None,
        ref_model: PreTrainedModel | AutoModelForCausalLMWithValueHead | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dataset: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        data_collator: Callable[..., Any] | None = None,
        num_shared_layers: int | None = None,
        lr_scheduler: Any = None,
    ) -> None:
        self.config = config or PPOConfig()
        if num_shared_layers is not None:
            warnings.warn(
                "PPOTrainer(num_shared_layers=...) is ignored: the reference is a whole model, "
                "or none at all for a LoRA policy.",
                stacklevel=2,
            )
        check_parts(model, ref_model, tokenizer)
        assert model is not None and tokenizer is not None
        self.tokenizer = tokenizer
        self.accelerator = Accelerator(
            log_with=self.config.log_with,
            # One step per batch of responses, however many processes there are.
            step_scheduler_with_optimizer=False,
            **self.config.accelerator_kwargs,
        )
        if self.config.log_with:
            self.accelerator.init_trackers(
                self.config.tracker_project_name, init_kwargs=self.config.tracker_kwargs
            )
        self.ref_model = self._reference(model, ref_model)
        model.eval()  # switches dropout off, not gradients
        if self.accelerator.mixed_precision == "fp16":
            raise_trainable(model)
        self.optimizer = self.accelerator.prepare(optimizer or adam(model, self.config))
        self.model = self.accelerator.prepare(model)
        self.model.eval()
        self.lr_scheduler = lr_scheduler and self.accelerator.prepare(lr_scheduler)
        self.dataloader = self._dataloader(dataset, data_collator)
        c = self.config
        self.kl_ctl: FixedKLController | AdaptiveKLController = (
            AdaptiveKLController(c.init_kl_coef, c.target, c.horizon)
            if c.adap_kl_ctrl
            else FixedKLController(c.init_kl_coef)
        )
        self.temperature = c.temperature
        self.history: list[dict[str, Any]] = []
        self._kept: dict[tuple[tuple[int, ...], tuple[int, ...]], Kept] = {}
        # How many responses go through the model at once; fewer once memory has run out.
        self._piece = c.mini_batch_size
        self._sampled_at_once: int | None = None  # all of them
        # Each process draws its own samples; all of them shuffle alike.
        self._sampler = torch.Generator(self.device).manual_seed(
            c.seed + 1_000_003 * self.accelerator.process_index
        )
        self._shuffler = torch.Generator().manual_seed(c.seed)

    # -- what stands where ------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def policy(self) -> AutoModelForCausalLMWithValueHead:
        """The policy without what `accelerate` wrapped around it."""
        policy: AutoModelForCausalLMWithValueHead = self.accelerator.unwrap_model(
            self.model, keep_fp32_wrapper=True
        )
        return policy

    def _reference(
        self,
        model: AutoModelForCausalLMWithValueHead,
        ref_model: PreTrainedModel | AutoModelForCausalLMWithValueHead | None,
    ) -> PreTrainedModel | None:
        """A frozen language model, or None when the policy's adapter can be switched off."""
        if ref_model is None and model.is_peft_model:
            return None
        if isinstance(ref_model, AutoModelForCausalLMWithValueHead):
            ref_model = ref_model.pretrained_model
        if ref_model is None or ref_model is model.pretrained_model:
            ref_model = deepcopy(model.pretrained_model)
        return ref_model.to(self.device).eval().requires_grad_(False)

    def _dataloader(self, dataset: Any, collate: Callable[..., Any] | None) -> Any:
        if dataset is None:
            return None
        return self.accelerator.prepare(
            torch.utils.data.DataLoader(
                dataset,
                batch_size=self.config.batch_size,
                collate_fn=collate,
                shuffle=True,
                drop_last=True,
                generator=torch.Generator().manual_seed(self.config.seed),
            )
        )

    # -- collecting -------------------------------------------------------------------------

    def generate(
        self,
        query_tensor: torch.Tensor | Sequence[torch.Tensor],
        length_sampler: Callable[[], int] | None = None,
        batch_size: int | None = None,
        return_prompt: bool = True,
        **generation_kwargs: Any,
    ) -> Any:
        """Sample responses from the policy.

        Args:
            query_tensor: ids (P,) of one prompt, or a list of such tensors.
            length_sampler: gives the longest response of this call.
            batch_size: prompts sampled together; None takes all.
            return_prompt: put the prompt before each response.
            generation_kwargs: `max_new_tokens` and `temperature` count; the rest of what older
                material passes is warned about where it would change the distribution, since then
                the log-probs would not be those of what was sampled.

        Returns:
            For one prompt a tensor (1, T); for a list, a list of tensors (t,).
        """
        single = isinstance(query_tensor, torch.Tensor)
        given = [query_tensor] if isinstance(query_tensor, torch.Tensor) else query_tensor
        queries = [query.reshape(-1) for query in given]
        longest, temperature = generation_settings(generation_kwargs)
        if temperature is not None and temperature != self.temperature:
            self.temperature = temperature  # log-probs are taken at the temperature of sampling
            self._kept.clear()
        if length_sampler is not None:
            longest = length_sampler()
        kept = self._collect(queries, batch_size, longest or self.config.max_new_tokens)
        responses = [
            torch.cat([query.to(k.tokens.device), k.tokens]) if return_prompt else k.tokens
            for query, k in zip(queries, kept, strict=True)
        ]
        return responses[0][None] if single else responses

    def _collect(
        self, queries: Sequence[torch.Tensor], batch_size: int | None, max_new_tokens: int
    ) -> list[Kept]:
        """Sample, and remember the log-probs and values for the `step` that follows."""
        if not queries or any(len(q) == 0 for q in queries):
            raise CourseError("A query is empty: every prompt needs at least one token.")
        results: list[Kept] = []

        def collect(which: slice) -> None:
            with self.accelerator.autocast():
                results.extend(
                    sample(
                        self.policy,
                        queries[which],
                        max_new_tokens=max_new_tokens,
                        temperature=self.temperature,
                        eos_id=self.tokenizer.eos_token_id,
                        pad_id=self.tokenizer.pad_token_id,
                        generator=self._sampler,
                    )
                )

        size = batch_size or self._sampled_at_once or len(queries)
        fitted = in_batches(collect, len(queries), size)
        if fitted < size:
            self._sampled_at_once = fitted
        if self._exact:
            for query, kept in zip(queries, results, strict=True):
                self._kept[_key(query, kept.tokens)] = kept
        return results

    @property
    def _exact(self) -> bool:
        """Numbers computed while sampling equal those of a training pass: in float32 only."""
        return self.accelerator.mixed_precision == "no" and self.policy.pretrained_model.dtype in (
            torch.float32,
            torch.float64,
        )

    # -- one update -------------------------------------------------------------------------

    def step(
        self,
        queries: Sequence[torch.Tensor],
        responses: Sequence[torch.Tensor],
        scores: Sequence[float | torch.Tensor],
        response_masks: None = None,
    ) -> Stats:
        """One PPO update from a batch of scored responses.

        Args:
            queries, responses: `batch_size` 1-D tensors of ids each; a response ends with its EOS
                unless it was cut for length, and what follows an EOS is dropped.
            scores: one number per response.
            response_masks: legacy, must be None.

        Returns:
            The metrics of chapter 05's table, over all processes.

        Raises:
            CourseError: a batch that cannot work. Nothing has changed then.
        """
        if response_masks is not None:
            raise CourseError("response_masks are not supported: give each response without gaps.")
        batch = self._experience(*self._checked(queries, responses, scores))
        stats = self._collect_stats(batch)
        advantages, returns, rewards = self._advantages(batch)
        stats |= self._optimise(batch, advantages, returns)
        stats["rewards/mean"] = self._mean(rewards.sum(1))
        stats["value/explained_variance"] = self._explained_variance(batch, returns)
        stats["objective/kl_coef"] = self.kl_ctl.value
        self.kl_ctl.update(
            stats["objective/kl"], self.config.batch_size * self.accelerator.num_processes
        )
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        self._kept.clear()  # they belong to the policy that sampled them
        return stats

    def _checked(
        self, queries: Sequence[Any], responses: Sequence[Any], scores: Sequence[Any]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """The batch as tensors, or a CourseError that names what is wrong with it."""
        check_counts(self.config.batch_size, queries, responses, scores)
        numbers = score_tensor(scores).to(self.device)
        if self.config.score_clip is not None:
            numbers = numbers.clamp(-self.config.score_clip, self.config.score_clip)
        answers = token_rows("responses", responses)
        eos = self.tokenizer.eos_token_id
        return token_rows("queries", queries), [cut_behind(r, eos) for r in answers], numbers

    def _experience(
        self, queries: list[torch.Tensor], responses: list[torch.Tensor], scores: torch.Tensor
    ) -> Experience:
        """Everything PPO needs about this batch, from the policy that sampled it."""
        batch = new_experience(queries, responses, scores, self.tokenizer, self.device)
        kept = [self._kept.get(_key(q, r)) for q, r in zip(queries, responses, strict=True)]
        return self._fill(batch, [k for k in kept if k is not None])

    @torch.no_grad()
    def _fill(self, batch: Experience, kept: list[Kept]) -> Experience:
        """Log-probs, reference log-probs and values; those kept from sampling are taken as such."""
        size = len(batch.scores)
        known = len(kept) == size
        if known:
            for i, k in enumerate(kept):
                batch.logprobs[i, : len(k.tokens)] = k.logprobs
                batch.values[i, : len(k.tokens)] = k.values
        by_length = batch.attention_mask.sum(1).argsort()

        def fill(which: slice) -> None:
            rows = by_length[which]
            part = trim(batch, rows)
            columns = torch.arange(part.response_mask.shape[1], device=self.device)
            where = (rows[:, None], columns[None])
            batch.ref_logprobs[where] = self.reference_logprobs(part)
            if not known:
                logprobs, values = policy_outputs(self.policy, part, self.temperature)
                batch.logprobs[where], batch.values[where] = logprobs, values

        with self.accelerator.autocast():
            self._piece = in_batches(fill, size, self._piece)
        return batch

    def reference_logprobs(self, batch: Experience) -> torch.Tensor:
        """(B, R), of the frozen reference."""
        if self.ref_model is not None:
            return reference_logprobs(self.ref_model, batch, self.temperature)
        with self.policy.without_adapter() as reference:
            return reference_logprobs(reference, batch, self.temperature)

    def _advantages(self, batch: Experience) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(whitened advantages, returns, token rewards), all (B, R)."""
        c = self.config
        k1, k2, _ = kl_estimates(batch.logprobs, batch.ref_logprobs)
        kl = {"kl": k1, "abs": k1.abs(), "mse": k2}[c.kl_penalty]
        scores = batch.scores - c.missing_eos_penalty * ~batch.finished
        rewards = token_rewards(scores, kl, batch.response_mask, self.kl_ctl.value)
        used = rewards
        if c.whiten_rewards:
            used = whiten(rewards, batch.response_mask, shift_mean=False, add_up=self._add_up)
        advantages, returns = gae(used, batch.values, batch.response_mask, c.gamma, c.lam)
        return whiten(advantages, batch.response_mask, add_up=self._add_up), returns, rewards

    def _optimise(
        self, batch: Experience, advantages: torch.Tensor, returns: torch.Tensor
    ) -> Stats:
        """The epochs over one batch. Returns the mean of each metric over the optimiser steps."""
        c = self.config
        per_update = c.mini_batch_size * c.gradient_accumulation_steps
        totals: list[torch.Tensor] = []
        for _ in range(c.ppo_epochs):
            order = torch.randperm(c.batch_size, generator=self._shuffler).to(self.device)
            for rows in order.split(per_update):
                totals.append(self._update(batch, advantages, returns, rows, not totals))
            if c.early_stopping and totals[-1][3] > 1.5 * c.target_kl:
                break
        policy, value, clipfrac, approx_kl = torch.stack(totals).mean(0).tolist()
        return {
            "policy/loss": policy,
            "value/loss": value,
            "policy/clipfrac": clipfrac,
            "policy/approx_kl": approx_kl,
            "policy/updates": float(len(totals)),
        }

    def _update(
        self,
        batch: Experience,
        advantages: torch.Tensor,
        returns: torch.Tensor,
        rows: torch.Tensor,
        first: bool,
    ) -> torch.Tensor:
        """One optimiser step over `rows`; (policy loss, value loss, clipfrac, approx KL)."""
        c = self.config

        def add_up(size: int) -> tuple[int, torch.Tensor]:
            self.optimizer.zero_grad()  # of a try that ran out of memory
            return size, self._gradients(batch, advantages, returns, rows, first, size)

        self._piece, total = fitting(add_up, self._piece)
        if c.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), c.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._add_up(total)

    def _gradients(
        self,
        batch: Experience,
        advantages: torch.Tensor,
        returns: torch.Tensor,
        rows: torch.Tensor,
        first: bool,
        size: int,
    ) -> torch.Tensor:
        """Leave the gradients of `rows`, computed `size` at a time; the sums of `_update`."""
        c = self.config
        # Every kept token of this step weighs the same, wherever it is computed.
        tokens = self._add_up(batch.response_mask[rows].sum())
        # Rows of like length share a piece, so that little padding is computed. The sum, and with
        # it the update, is the same in any order.
        pieces = rows[batch.attention_mask[rows].sum(1).argsort()].split(size)
        total = torch.zeros(4, device=self.device)
        for i, piece in enumerate(pieces):
            part = trim(batch, piece)
            length = part.response_mask.shape[1]
            last = i == len(pieces) - 1
            with self._sync_only(last), self.policy.recomputing(), self.accelerator.autocast():
                logprobs, values = policy_outputs(self.model, part, self.temperature)
                if first:
                    self._check_ratio(logprobs, part)
                p_loss, metrics = policy_loss(
                    logprobs,
                    part.logprobs,
                    advantages[piece, :length],
                    part.response_mask,
                    c.cliprange,
                    tokens,
                )
                v_loss = value_loss(
                    values,
                    part.values,
                    returns[piece, :length],
                    part.response_mask,
                    c.cliprange_value,
                    tokens,
                )
                # Gradients are averaged over processes; here they have to be summed.
                loss = (p_loss + c.vf_coef * v_loss) * self.accelerator.num_processes
                self.accelerator.backward(loss)
            total += torch.stack([p_loss, v_loss, *metrics.values()]).detach()
        return total

    def _sync_only(self, last: bool) -> Any:
        """Exchange gradients between processes with the last piece only."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _check_ratio(self, logprobs: torch.Tensor, part: Experience) -> None:
        """Before the first update the policy is the one that sampled, so the ratio is 1."""
        if not self._exact:  # in 16 bits the two passes round differently
            return
        error = ((logprobs.detach() - part.logprobs) * part.response_mask).abs().max().item()
        if error > 1e-3:
            raise CourseError(
                f"Before the first update the probability ratio is off by {error:.1e}: the policy "
                "changed since it sampled, or dropout is on."
            )

    # -- numbers ----------------------------------------------------------------------------

    def _add_up(self, total: torch.Tensor) -> torch.Tensor:
        """Sum over processes."""
        summed: torch.Tensor = self.accelerator.reduce(total, reduction="sum")
        return summed

    def _mean(self, per_response: torch.Tensor) -> float:
        total = self._add_up(per_response.float().sum())
        return float(total) / (len(per_response) * self.accelerator.num_processes)

    def _collect_stats(self, batch: Experience) -> Stats:
        mask = batch.response_mask
        k1, _, _ = kl_estimates(batch.logprobs, batch.ref_logprobs)
        tokens = self._add_up(mask.sum())
        mean = self._mean(batch.scores)
        return {
            "objective/kl": self._mean((k1 * mask).sum(1)),
            "objective/entropy": float(self._add_up(-(batch.logprobs * mask).sum()) / tokens),
            "scores/mean": mean,
            "scores/std": math.sqrt(self._mean((batch.scores - mean).square())),
            "response/length": self._mean(mask.sum(1)),
            "response/eos_rate": self._mean(batch.finished),
        }

    def _explained_variance(self, batch: Experience, returns: torch.Tensor) -> float:
        """1 - var(returns - values) / var(returns) over kept tokens, before the update."""
        mask = batch.response_mask
        count = self._add_up(mask.sum())

        def variance(x: torch.Tensor) -> torch.Tensor:
            mean = self._add_up((x * mask).sum()) / count
            return self._add_up(((x - mean) * mask).square().sum()) / count

        return float(1 - variance(returns - batch.values) / variance(returns).clamp(min=1e-8))

    def log_stats(
        self,
        stats: Stats,
        batch: Mapping[str, Sequence[Any]],
        rewards: Sequence[float | torch.Tensor],
        columns_to_log: Iterable[str] = ("query", "response"),
    ) -> None:
        """Add a row to `history` and tell the trackers named in `log_with`.

        Args:
            stats: what `step` returned.
            batch: columns of texts, of which the first of each `columns_to_log` is kept.
            rewards: the scores given to `step`.
        """
        row: dict[str, Any] = {"step": len(self.history), **stats}
        row["env/reward_mean"] = sum(float(r) for r in rewards) / len(rewards)
        row |= {f"sample/{c}": batch[c][0] for c in columns_to_log if c in batch}
        self.history.append(row)
        numbers = {k: v for k, v in row.items() if isinstance(v, (int, float))}
        self.accelerator.log(numbers, step=row["step"])

    # -- the whole loop ---------------------------------------------------------------------

    def train(
        self,
        prompts: Sequence[str],
        reward_fn: RewardFunction,
        steps: int = 1,
        *,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 10,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Collect, score and step until `history` has `steps` rows.

        Args:
            prompts: drawn in a shuffled order, all of them before any comes twice.
            reward_fn: (prompts, responses) -> one score per response. Texts come without special
                tokens.
            checkpoint: folder to resume from when it exists, and to write every
                `checkpoint_every` steps and at the end.
            on_step: called with (steps done, steps in all), for a progress bar.

        Returns:
            `history`: the metrics of each step.
        """
        if checkpoint is not None and Path(checkpoint).is_dir():
            self.load_checkpoint(checkpoint)
        rows = [
            torch.tensor(ids)
            for ids in truncate_prompts(prompts, self.tokenizer, MAX_PROMPT_TOKENS)
        ]
        while len(self.history) < steps:
            picked = self._pick(len(prompts), len(self.history))
            queries = [rows[i] for i in picked]
            kept = self._collect(queries, None, self.config.max_new_tokens)
            responses = [k.tokens for k in kept]
            asked = [prompts[i] for i in picked]
            texts = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
            texts = [text.strip() for text in texts]
            scores = reward_fn(asked, texts)
            stats = self.step(queries, responses, [float(s) for s in scores])
            self.log_stats(stats, {"query": asked, "response": texts}, scores)
            done = len(self.history)
            if checkpoint is not None and (done % checkpoint_every == 0 or done == steps):
                self.save_checkpoint(checkpoint)
            if on_step:
                on_step(done, steps)
        return self.history

    def _pick(self, count: int, step: int) -> list[int]:
        """Which prompts this process takes at `step`: a slice of an endless shuffled stream."""
        size, processes = self.config.batch_size, self.accelerator.num_processes
        start = (step * processes + self.accelerator.process_index) * size
        laps = range(start // count, (start + size - 1) // count + 1)
        stream: list[int] = []
        for lap in laps:
            generator = torch.Generator().manual_seed(self.config.seed + 7919 * lap)
            stream += torch.randperm(count, generator=generator).tolist()
        offset = start - laps[0] * count
        return stream[offset : offset + size]

    # -- checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What `accelerate` does not know of: history, KL coefficient, random generators."""
        return {
            "history": self.history,
            "kl_coef": self.kl_ctl.value,
            "temperature": self.temperature,
            "sampler": self._sampler.get_state(),
            "shuffler": self._shuffler.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = list(state["history"])
        self.kl_ctl.value = state["kl_coef"]
        self.temperature = state["temperature"]
        self._sampler.set_state(state["sampler"])
        self._shuffler.set_state(state["shuffler"])

    def save_checkpoint(self, folder: str | Path) -> None:
        """Everything a run needs to go on as if it had never stopped. Replaces `folder` at once."""
        folder = Path(folder)
        scratch = folder.with_name(f".{folder.name}-new")
        if self.accelerator.is_main_process:
            shutil.rmtree(scratch, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(scratch))
        torch.save(self.state_dict(), scratch / self._state_file)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            old = folder.with_name(f".{folder.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                os.replace(folder, old)
            os.replace(scratch, folder)
            shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def load_checkpoint(self, folder: str | Path) -> None:
        """Go on where `save_checkpoint` left off."""
        self.accelerator.load_state(str(folder))
        self.load_state_dict(torch.load(Path(folder) / self._state_file))

    @property
    def _state_file(self) -> str:
        return f"ppo_state_{self.accelerator.process_index}.pt"

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the policy with its value head, and the tokenizer."""
        if self.accelerator.is_main_process:
            self.policy.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def adam(model: AutoModelForCausalLMWithValueHead, config: PPOConfig) -> torch.optim.Adam:
    """Adam with eps 1e-5 over the trainable weights; the value head has a rate of its own."""
    trunk = [p for p in model.pretrained_model.parameters() if p.requires_grad]
    value_rate = config.value_learning_rate or config.learning_rate
    groups = [
        {"params": trunk, "lr": config.learning_rate},
        {"params": list(model.v_head.parameters()), "lr": value_rate},
    ]
    return torch.optim.Adam(groups, eps=1e-5, fused=True)


def _key(query: torch.Tensor, response: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(query.tolist()), tuple(response.tolist())
