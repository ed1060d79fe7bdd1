"""The small model that judges, criticises and revises in the closed world, and how it is made.

    python -m course_utils world-judge            # train it anew, measure it, write its card

It is the tiny profile's SFT model fine-tuned on four tasks whose labels come from GOLD
(`world.gold`): compare two answers, score one, criticise one, mend one. Chapters reach it through
`judge.make_backend("world")`; how often it is right stands in data/tiny_judge/MODEL_CARD.md.

| module | what |
|---|---|
| `faults` | what is wrong with an answer, worst first; grades and scores |
| `mend` | the answer with its faults mended: what a revision should be |
| `principles` | which faults a principle is about |
| `pool` | answers of every kind to training cases, policies' answers among them |
| `examples` | the four tasks as text to train on |
| `template` | the model's own short template, and reading what it wrote |
| `prompts` | the messages in which chapter 08 asks for a critique or a revision |
| `writer` | the model at work: prompts in, text and the verdict's probabilities out |
| `train`, `figures`, `card`, `command` | the recipe, the measurement, the card, all three |
"""
