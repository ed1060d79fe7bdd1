"""Log-probabilities and the SFT loss against values by hand, float64, torch, transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import logprobs  # noqa: E402

# Three symbols; row t is the distribution after token t.
PROBABILITIES = [[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]]


def test_token_logprobs_by_hand() -> None:
    # Logits are log-probabilities up to a constant per position: softmax must take it away.
    logits = torch.tensor(PROBABILITIES).log() + torch.tensor([5.0, -3.0, 11.0])[:, None]
    got = logprobs.token_logprobs(logits, torch.tensor([[2, 0, 2]]))
    # After token 2 comes 0 with probability 0.5, then 2 with 0.7; row 3 predicts nothing here.
    assert got.shape == (1, 2)
    assert got.tolist()[0] == pytest.approx([-0.693147, -0.356675], abs=1e-5)


def test_token_logprobs_against_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(3, 9, 40, generator=generator)
    ids = torch.randint(40, (3, 9), generator=generator)
    got = logprobs.token_logprobs(logits, ids)
    exact = logits.double() - logits.double().exp().sum(-1, keepdim=True).log()
    for row in range(3):
        for t in range(8):
            assert got[row, t].item() == pytest.approx(
                exact[row, t, ids[row, t + 1]].item(), abs=2e-5
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_float32(dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(2))).to(dtype)
    ids = torch.arange(12).view(2, 6)
    got = logprobs.token_logprobs(logits, ids)
    assert got.dtype == torch.float32
    exact = logits.double()[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    # Half precision itself would be off by 0.01 and more.
    torch.testing.assert_close(got.double(), exact, atol=1e-5, rtol=0)


def test_sft_loss_by_hand() -> None:
    # Kept: token 0 with 1/2 and token 1 with 1/4: (ln 2 + ln 4) / 2 = 1.5 ln 2 = 1.0397.
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [1.0, 1.0, 1.0]]]).log()
    loss = logprobs.sft_loss(logits, torch.tensor([[-100, 0, 1]]))
    assert loss.item() == pytest.approx(1.0397, abs=5e-5)


def test_sft_loss_is_the_mean_over_the_batch_not_over_rows() -> None:
    half = torch.tensor([0.5, 0.25, 0.25]).log().expand(2, 4, 3)
    labels = torch.tensor([[-100, 0, 0, 0], [-100, -100, -100, 1]])
    # (3 ln 2 + ln 4) / 4 = 5/4 ln 2; a mean of row means would be (ln 2 + ln 4) / 2 = 3/2 ln 2.
    assert logprobs.sft_loss(half, labels).item() == pytest.approx(0.866434, abs=1e-5)


def test_sft_loss_and_its_gradient_against_torch() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 7, 11, generator=generator, requires_grad=True)
    labels = torch.randint(11, (2, 7), generator=generator)
    labels[0, :4] = labels[1, 5:] = -100
    (ours,) = torch.autograd.grad(logprobs.sft_loss(logits, labels), logits)
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1), ignore_index=-100
    )
    (theirs,) = torch.autograd.grad(loss, logits)
    assert logprobs.sft_loss(logits, labels).item() == pytest.approx(loss.item(), abs=1e-6)
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


def test_sft_loss_against_transformers(new_model: Callable[..., Any]) -> None:
    model = new_model()
    ids = torch.randint(2, 320, (3, 12), generator=torch.Generator().manual_seed(4))
    labels = ids.clone()
    labels[:, :5] = -100
    labels[2, 9:] = -100
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    assert logprobs.sft_loss(output.logits, labels).item() == pytest.approx(
        output.loss.item(), rel=1e-5
    )


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(ValueError, match="every label is -100"):
        logprobs.sft_loss(torch.zeros(1, 3, 5), torch.full((1, 3), -100))
    # The label of the first token has no prediction, so it alone is nothing either.
    with pytest.raises(ValueError, match="every label is -100"):
        logprobs.sft_loss(torch.zeros(1, 3, 5), torch.tensor([[2, -100, -100]]))


def test_position_ids_by_hand() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    real = [[2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2]]  # where the mask is 1
    positions = logprobs.position_ids(mask)
    for row, places in zip(positions.tolist(), real, strict=True):
        assert [row[place] for place in places] == list(range(len(places)))
        assert min(row) >= 0


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=320, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5
        )
    ).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_left_padding_changes_no_logprob(family: str, new_model: Callable[..., Any]) -> None:
    # Llama's rotary positions are relative and would hide wrong position ids; GPT-2's are absolute.
    model = new_model() if family == "llama" else _gpt2()
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(2, 320, (n,), generator=generator) for n in (3, 11, 7)]
    padded = torch.zeros(3, 11, dtype=torch.long)
    mask = torch.zeros(3, 11, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, 11 - len(row) :] = row
        mask[i, 11 - len(row) :] = 1
    with torch.no_grad():
        together = logprobs.sequence_logprobs(model, padded, mask)
        assert together.shape == (3, 10)
        for i, row in enumerate(rows):
            alone = model(input_ids=row[None]).logits.double().log_softmax(-1)
            expected = [alone[0, t, row[t + 1]].item() for t in range(len(row) - 1)]
            assert together[i, 11 - len(row) :].tolist() == pytest.approx(expected, abs=1e-4)
