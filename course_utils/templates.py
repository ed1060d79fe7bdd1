"""The instruction template every chapter uses (source document §2), and its chat form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RESPONSE_HEADER = "### Response:\n"
# The same template for `tokenizer.apply_chat_template`: the user turn becomes the instruction.
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'assistant' %}### Response:\n"
    "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}### Context:\n{{ m['content'] }}\n\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)


def format_prompt(instruction: str, context: str = "") -> str:
    """The prompt up to and including the response header."""
    middle = f"### Context:\n{context}\n\n" if context else ""
    return f"### Instruction:\n{instruction}\n\n{middle}{RESPONSE_HEADER}"


def format_instruction(example: Mapping[str, str]) -> str:
    """A whole dolly row (instruction, context, response) as one text."""
    return format_prompt(example["instruction"], example.get("context") or "") + example["response"]


def format_dialogue(earlier: Sequence[tuple[str, str]], instruction: str, context: str = "") -> str:
    """The prompt of a dialogue: each earlier (question, answer), then the question to be answered.

    The turns stand one after another, oldest first, so that what is too long loses its oldest
    turns. No EOS stands between them: the text has one end, that of the answer to come.
    `context` belongs to the first question.
    """
    questions = [question for question, _ in earlier] + [instruction]
    answers = [f"{answer}\n\n" for _, answer in earlier] + [""]
    contexts = [context] + [""] * len(earlier)
    return "".join(
        format_prompt(question, told) + answer
        for question, told, answer in zip(questions, contexts, answers, strict=True)
    )
