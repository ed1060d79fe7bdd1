"""The methods side by side: what each needs, and what it does in extreme cases."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One row of chapter 07's table. Every claim is checked with numbers by the tests.

    Attributes:
        name: as people say it.
        source: the paper.
        logprobs: ``sum`` or ``mean`` over a response's tokens.
        reference: whether a frozen reference model is needed.
        data: ``pairs`` or ``thumbs`` (single responses, each with a thumb up or down).
        at_start: the loss while the policy still equals the reference.
        identical: what a pair of two equal responses does.
        small_beta: the limit of beta towards 0.
        large_beta: the limit of beta towards infinity.
    """

    name: str
    source: str
    logprobs: str
    reference: bool
    data: str
    at_start: str
    identical: str
    small_beta: str
    large_beta: str


METHODS = (
    Method(
        name="DPO",
        source="Rafailov et al. 2023, arXiv 2305.18290",
        logprobs="sum",
        reference=True,
        data="pairs",
        at_start="ln 2",
        identical="ln 2, no gradient",
        small_beta="the best policy forgets the reference: only the best response is left",
        large_beta="the best policy is the reference",
    ),
    Method(
        name="hinge",
        source="Zhao et al. 2023, arXiv 2305.10425; Liu et al. 2023, arXiv 2309.06657",
        logprobs="sum",
        reference=True,
        data="pairs",
        at_start="1",
        identical="1, no gradient",
        small_beta="pushes a pair until its log-ratio is 1/beta: ever further",
        large_beta="stops at a log-ratio of 1/beta: at the reference",
    ),
    Method(
        name="cDPO",
        source="Mitchell 2023, A note on DPO with noisy preferences",
        logprobs="sum",
        reference=True,
        data="pairs",
        at_start="ln 2",
        identical="ln 2, no gradient",
        small_beta="pushes a pair until its log-ratio is ln((1-eps)/eps)/beta: ever further",
        large_beta="stops at a log-ratio of ln((1-eps)/eps)/beta: at the reference",
    ),
    Method(
        name="robust DPO",
        source="Chowdhury et al. 2024, arXiv 2403.00409",
        logprobs="sum",
        reference=True,
        data="pairs",
        at_start="ln 2",
        identical="ln 2, no gradient",
        small_beta="as DPO with the true labels",
        large_beta="as DPO with the true labels",
    ),
    Method(
        name="IPO",
        source="Azar et al. 2023, arXiv 2310.12036",
        logprobs="mean",
        reference=True,
        data="pairs",
        at_start="1/(4 beta^2)",
        identical="1/(4 beta^2), no gradient",
        small_beta="wants a log-ratio of 1/(2 beta): ever further",
        large_beta="wants a log-ratio of 1/(2 beta): the reference",
    ),
    Method(
        name="KTO",
        source="Ethayarajh et al. 2024, arXiv 2402.01306",
        logprobs="sum",
        reference=True,
        data="thumbs",
        at_start="1/2 (at weights of 1)",
        identical="1/2, no gradient (one thumb up, one down)",
        small_beta="1/2 whatever the policy, no gradient",
        large_beta="the share of responses on the wrong side of z0",
    ),
    Method(
        name="ORPO",
        source="Hong et al. 2024, arXiv 2403.07691",
        logprobs="mean",
        reference=False,
        data="pairs",
        at_start="depends on the model",
        identical="NLL + beta ln 2, the gradient of SFT",
        small_beta="SFT on the chosen responses",
        large_beta="the odds ratio alone",
    ),
    Method(
        name="SimPO",
        source="Meng et al. 2024, arXiv 2405.14734",
        logprobs="mean",
        reference=False,
        data="pairs",
        at_start="depends on the model",
        identical="ln(1 + e^gamma), no gradient",
        small_beta="ln(1 + e^gamma) whatever the policy, no gradient",
        large_beta="0 for a pair in the right order, beta times the gap for any other",
    ),
)
