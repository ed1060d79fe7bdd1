"""From a trained policy to a service, and from its users back to training data.

probes.py     answers to red-team, over-refusal, capability and validation prompts, scored
gating.py     whether a candidate may replace the model in service
exporting.py  a folder of its own for a model that may, with a manifest
serving.py    `transformers serve` on this machine, from start to a clean end
_child.py     the serving process
talk.py       questions to it through the official client
widget.py     a chat with thumbs in a notebook
feedback.py   the log of thumbs as training data for KTO
rounds.py     a round of KTO on feedback; the sweep `feedback`
figures.py    a drawing for chapter 12

No module has the name of a function here. Names load on first use, so importing this is instant.
"""

from __future__ import annotations

from course_utils._lazy import exports

_EXPORTS = {
    "Chat": "widget",
    "Check": "gating",
    "Export": "exporting",
    "GateResult": "gating",
    "Probe": "probes",
    "RULES": "gating",
    "Reply": "talk",
    "Rule": "gating",
    "Server": "serving",
    "ask": "talk",
    "client": "talk",
    "export": "exporting",
    "feedback_path": "feedback",
    "feedback_rows": "feedback",
    "feedback_round": "rounds",
    "gate": "gating",
    "give_thumb": "feedback",
    "kto_weights": "feedback",
    "likes": "feedback",
    "load_export": "exporting",
    "messages": "talk",
    "probe": "probes",
    "probe_function": "probes",
    "rules_for": "gating",
    "serve": "serving",
    "share_difference": "gating",
    "simulated_thumbs": "feedback",
    "vllm_command": "serving",
    "waive": "gating",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = exports(__name__, _EXPORTS)
