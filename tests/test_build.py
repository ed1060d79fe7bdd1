"""From percent source to notebook: metadata, links, stubs, drift; and what nbgrader makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import sample_course
from nbformat import NotebookNode
from nbgrader.utils import determine_grade
from sample_course import EXERCISES, SECOND

from course_utils.authoring import build, outputs
from course_utils.authoring.chapters import write_atomically
from course_utils.authoring.execute import execute, kernel_env
from course_utils.errors import CourseError

TESTS = str(Path(__file__).parent)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setenv("PYTHONPATH", TESTS)
    monkeypatch.setattr("course_utils.exercises.all_exercises", lambda: EXERCISES)
    return sample_course.write_sources(tmp_path)


def cell(nb: NotebookNode, cell_id: str) -> NotebookNode:
    return next(found for found in nb.cells if found.id == cell_id)


def committed(sources: dict[str, Path]) -> Path:
    """Build both chapters and give the cells that always print an output, as executing would."""
    folder = sources["02_means"].parent.parent
    for stem, source in sources.items():
        nb = build.build_notebook(source, EXERCISES)
        for found in nb.cells:
            if found.cell_type == "code":
                found.outputs = [nbformat.v4.new_output("stream", text="ready\n")]
        write_atomically(folder / f"{stem}.ipynb", build.dumps(nb))
    return folder


def test_title_links_and_setup(sources: dict[str, Path]) -> None:
    first = build.build_notebook(sources["00_start"], EXERCISES)
    lines = first.cells[0].source.splitlines()
    assert lines[0] == "# 00 · Start" and lines[4] == "What this is."
    assert "/blob/main/notebooks/00_start.ipynb)" in lines[2]
    assert lines[2].endswith("| Next: [02 · Means](02_means.ipynb)") and "Previous" not in lines[2]
    second = build.build_notebook(sources["02_means"], EXERCISES)
    assert "| Previous: [00 · Start](00_start.ipynb)" in second.cells[0].source
    setup = cell(first, "setup")
    assert setup.source.startswith("# Colab only") and setup.source.endswith('print("ready")')
    assert setup.metadata == {"tags": ["setup"]}
    assert first.metadata.kernelspec.name == "python3" and "jupytext" not in first.metadata


def test_magics_are_commands_and_comments_stay_comments(sources: dict[str, Path]) -> None:
    nb = build.build_notebook(sources["00_start"], EXERCISES)
    code = [found.source for found in nb.cells if found.cell_type == "code"]
    assert code[1].startswith("# copy the list, then look at it\n%precision 3\n")
    assert code[2] == "%%time\nx = 1"


def test_unsolved(sources: dict[str, Path]) -> None:
    nb = build.build_notebook(sources["02_means"], EXERCISES)
    text = build.dumps(nb)
    assert "SOLUTION" not in text and "HIDDEN" not in text and "hidden=True" not in text
    assert "padding is not data" not in text and "lines_to_next_cell" not in text
    exercise = cell(nb, "exercise-masked_mean")
    assert exercise.source.startswith("# exercise: masked_mean\ndef masked_mean(")
    assert exercise.source.endswith('"""The mean of the kept values."""\n    ...')
    assert exercise.metadata.nbgrader.solution and not exercise.metadata.nbgrader.grade
    test = cell(nb, "test-masked_mean")
    assert test.source == 'check("masked_mean", masked_mean)'
    assert test.metadata.nbgrader.points == 3 and test.metadata.nbgrader.locked
    assert test.metadata.editable is False and test.metadata.nbgrader.checksum
    answer = cell(nb, "answer-why_keep")
    assert answer.metadata.nbgrader.points == 2 and "answer: why_keep" in answer.source
    card = cell(nb, "card-masked_mean").source
    assert "difficulty 2 of 5 · about 5 min · 3 points" in card and "<details>" in card


def test_solved(sources: dict[str, Path]) -> None:
    nb = build.build_notebook(sources["02_means"], EXERCISES, solved=True)
    assert "return sum(kept) / len(kept)" in cell(nb, "exercise-masked_mean").source
    assert cell(nb, "test-masked_mean").source.endswith("masked_mean, hidden=True)")
    assert "padding is not data" in cell(nb, "answer-why_keep").source
    assert "### " not in build.dumps(nb)


def test_the_same_source_gives_the_same_bytes(sources: dict[str, Path]) -> None:
    once, again = (build.build_notebook(sources["02_means"], EXERCISES) for _ in range(2))
    assert build.dumps(once) == build.dumps(again)
    ids = [found.id for found in once.cells]
    assert len(set(ids)) == len(ids)
    longer = SECOND.replace("# Write it.", "# New.\n\n# %% [markdown]\n# Write it.")
    sources["02_means"].write_text(longer)
    assert set(ids) < {
        found.id for found in build.build_notebook(sources["02_means"], EXERCISES).cells
    }


def test_check_accepts_what_was_built(sources: dict[str, Path]) -> None:
    assert build.check(sources, committed(sources), EXERCISES) == []


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("Write it.", "Write it!", "its source differs"),
        ("of kept numbers.", "of kept number.", "cell 1"),
        ('masked_mean", masked_mean)\n###', 'masked_mean",  masked_mean)\n###', "test_masked_mean"),
        ("points=2", "points=3", "why_keep"),
        ('tags=["setup"]', 'tags=["setup", "x"]', "metadata differs"),
    ],
)
def test_one_changed_character_is_drift(
    sources: dict[str, Path], old: str, new: str, names: str
) -> None:
    folder = committed(sources)
    assert old in SECOND
    sources["02_means"].write_text(SECOND.replace(old, new))
    (problem,) = build.check(sources, folder, EXERCISES)
    assert problem.startswith("02_means: ") and names in problem


def test_a_new_chapter_and_a_changed_title_are_drift_of_the_neighbours(
    sources: dict[str, Path],
) -> None:
    folder = committed(sources)
    sources["02_means"].write_text(SECOND.replace("02 · Means", "02 · Mean"))
    assert [problem[:8] for problem in build.check(sources, folder, EXERCISES)] == [
        "00_start",
        "02_means",
    ]


def _drop_outputs(nb: NotebookNode) -> None:
    for found in nb.cells:
        if found.cell_type == "code":
            found.outputs = []


def _widgets(nb: NotebookNode) -> None:
    nb.metadata["widgets"] = {}


def _count(nb: NotebookNode) -> None:
    nb.cells[1].execution_count = 1


def _error(nb: NotebookNode) -> None:
    nb.cells[1].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]


def _edit(nb: NotebookNode) -> None:
    cell(nb, "exercise-masked_mean").source += "\n# edited"


def _extra(nb: NotebookNode) -> None:
    nb.cells.append(nbformat.v4.new_markdown_cell("more"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop_outputs, "never executed"),
        (_widgets, "widget state"),
        (_count, "execution count"),
        (_error, "is an error"),
        (_edit, "masked_mean"),
        (_extra, "8 cells, the source gives 7"),
    ],
)
def test_a_spoilt_notebook_is_drift(
    sources: dict[str, Path], spoil: Callable[[NotebookNode], None], says: str
) -> None:
    path = committed(sources) / "02_means.ipynb"
    nb = nbformat.read(path, as_version=4)
    spoil(nb)
    path.write_text(nbformat.writes(nb))
    (problem,) = build.check(sources, path.parent, EXERCISES)
    assert says in problem
    path.write_text("{half")
    assert "cannot be read" in build.check(sources, path.parent, EXERCISES)[0]
    path.unlink()
    assert "is missing" in build.check(sources, path.parent, EXERCISES)[0]
    (path.parent / "07_stray.ipynb").write_text("{}")
    assert build.orphans(sources, path.parent)[0].startswith("07_stray")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('exercise="masked_mean"', 'exercise="maskd_mean"', "Did you mean 'masked_mean'?"),
        ('test="masked_mean"', 'test="other"', "Unknown exercise 'other'"),
        ('exercise="masked_mean"', 'exercice="masked_mean"', "Unknown cell key 'exercice'"),
        ("### BEGIN SOLUTION", "# solution", "cell 4 (def masked_mean"),
        (SECOND[SECOND.index("    ### BEGIN S") : SECOND.index("# %% test")], "", "with ### BEGIN"),
        ("    ### END SOLUTION", "", "needs its own ### END"),
        ("### END HIDDEN TESTS", "", "cell 5 (check"),
        ("hidden=True)", "hidden=True);", "ends with check"),
        ('check("masked_mean", masked_mean)\n###', "print(1)\n###", "ends with check"),
        ("points=2", "", "needs points"),
        ('answer="why_keep"', 'answer="masked_mean"', "used by two cells"),
        ('tags=["setup"]', 'tags=["set-up"]', "0 cells are tagged setup"),
        ("02_means", "01_means", 'must call setup("02_means")'),
        ("# 02 ·", "# 03 ·", "must start with '# 02 · Title'"),
        ('# %% test="masked_mean"', "# %%", "has no test cell"),
        ('# %% exercise="masked_mean"', "# %%", "no exercise 'masked_mean' stands before"),
        ('# %% exercise="masked_mean"', '# %% exercise="masked_mean" test="x"', "not two of them"),
    ],
)
def test_mistakes_in_a_source_name_file_and_cause(
    sources: dict[str, Path], old: str, new: str, says: str
) -> None:
    assert old in SECOND
    sources["02_means"].write_text(SECOND.replace(old, new))
    with pytest.raises(CourseError) as caught:
        build.build_notebook(sources["02_means"], EXERCISES)
    assert "02_means.py" in str(caught.value) and says in str(caught.value)


def test_two_cells_with_one_exercise_and_one_never_used(sources: dict[str, Path]) -> None:
    start = SECOND.index("# %% exercise")
    twice = SECOND[: SECOND.index("# %% [markdown] answer")] + SECOND[start:]
    sources["02_means"].write_text(twice)
    with pytest.raises(CourseError, match=r"02_means.py, cell 6 .*used by two cells"):
        build.build_notebook(sources["02_means"], EXERCISES)
    sources["02_means"].write_text(SECOND[:start])
    with pytest.raises(CourseError, match="registered but not used"):
        build.build_notebook(sources["02_means"], EXERCISES)


def test_command_builds_executes_and_checks(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from course_utils.__main__ import main

    where = ["--notebooks", str(tmp_path)]
    assert main(["build", *where, "--check"]) == 1
    assert main(["build", *where]) == 0
    assert main(["build", *where, "--check"]) == 0
    nb = nbformat.read(tmp_path / "00_start.ipynb", as_version=4)
    texts = [out.text for found in nb.cells if found.cell_type == "code" for out in found.outputs]
    assert texts[:2] == ["ready\n", "metric half = 0.5\n"]  # and nothing of stderr
    assert "widgets" not in nb.metadata and nb.metadata.language_info == {"name": "python"}
    solved = tmp_path / "solved"
    assert main(["build", "2", *where, "--solved", str(solved)]) == 0
    assert [path.name for path in solved.iterdir()] == ["02_means.ipynb"]
    assert main(["build", "5", *where]) == 2
    assert "Legal chapter names: 00_start, 02_means" in capsys.readouterr().err


def test_a_chapter_that_fails_is_not_written(sources: dict[str, Path]) -> None:
    nb = build.build_notebook(sources["02_means"], EXERCISES)
    nb.cells[2].cell_type = "code"
    nb.cells[2].source, nb.cells[2].outputs = "1/0", []
    nb.cells[2].execution_count = None
    with pytest.raises(CourseError, match=r"02_means, cell 3 \(1/0\): ZeroDivisionError"):
        build.record(nb, "02_means")


@pytest.mark.parametrize(
    ("body", "points"),
    [
        ("...", 0.0),
        ("return 0.0", 0.0),
        ("return sum(values) / len(values)", 1.0),
        ("return sum(v * k for v, k in zip(values, keep)) / sum(keep)", 3.0),
        ("import sys; sys.stderr.write('bar'); return sum(values) / len(values)", 1.0),
    ],
)
def test_nbgrader_reads_the_points(sources: dict[str, Path], body: str, points: float) -> None:
    nb = build.build_notebook(sources["02_means"], EXERCISES)
    exercise = cell(nb, "exercise-masked_mean")
    exercise.source = exercise.source.replace("...", body)
    execute(nb, {**kernel_env(), "NBGRADER_EXECUTION": "autograde"})
    assert determine_grade(cell(nb, "test-masked_mean")) == (points, 3.0)


def test_outputs_are_cleaned() -> None:
    new = nbformat.v4.new_output
    nb = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                execution_count=3,
                metadata={"execution": {"iopub.execute_input": "x"}},
                outputs=[
                    new("stream", name="stderr", text="warning"),
                    new("stream", name="stdout", text="a\n 10%|# | 1/9 [00:00<00:01, 2it/s]\rdone"),
                    new("stream", name="stdout", text=f" in {Path.home()}/x\n"),
                    new("display_data", {outputs.WIDGET: {}, "text/plain": "  0%|  | 0/9"}),
                    new("display_data", {outputs.WIDGET: {}, "text/html": "<b>picture</b>"}),
                    new(
                        "display_data",
                        {"text/html": "<div><progress></progress>[1/1]</div><table>"},
                    ),
                    new(
                        "execute_result", {"text/plain": "<f at 0x7f00deadbeef>"}, execution_count=3
                    ),
                ],
            )
        ],
        metadata={"widgets": {}},
    )
    outputs.clean(nb)
    found = nb.cells[0].outputs
    assert found[0].text == "a\ndone in ~/x\n"
    assert found[1].data == {"text/html": "<b>picture</b>"}
    assert found[2].data == {"text/html": "<table>"}
    assert found[3].data == {"text/plain": "<f at 0x…>"} and found[3].execution_count is None
    assert len(found) == 4 and "widgets" not in nb.metadata
    assert nb.cells[0].metadata == {} and nb.cells[0].execution_count is None
