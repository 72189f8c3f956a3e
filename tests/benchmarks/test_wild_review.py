import json
import shutil
from pathlib import Path

import pytest

import aftertrain as at
from benchmarks import wild_review
from benchmarks.wild_review import VERDICTS, file_of, main, verdicts_of, warned

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wild")
    for name in ("charlm-overfit", "charlm-healthy"):
        shutil.copytree(SAMPLES / name, made / name)
    entry = {
        "file": "charlm-overfit/manifest.json",
        "repo": "https://example.org/a",
        "commit": "0" * 40,
        "licence": "MIT",
    }
    (made / "MANIFEST.json").write_text(json.dumps({"files": [entry]}))
    return made


@pytest.fixture(scope="module")
def keys(folder: Path) -> list[tuple[str, str, str]]:
    return sorted({one.key for one in warned(at.load_all(folder), folder, {})})


def table(keys: list[tuple[str, str, str]], verdict: str = "right", extra: str = "") -> str:
    return extra + "".join(
        f'[[verdict]]\nfile = "{file}"\nkind = "{kind}"\nmetric = "{metric}"\n'
        f'verdict = "{verdict}"\nwhy = "seen {kind}"\nfigure = "a.png"\n'
        for file, kind, metric in keys
    )


def test_only_the_faulty_sample_is_warned_of_and_its_name_holds_no_path_of_the_machine(
    folder: Path, keys: list[tuple[str, str, str]]
) -> None:
    assert keys
    assert all(file.split("/")[0] == "charlm-overfit" for file, _, _ in keys)
    assert all(file_of(run, folder).startswith("charlm-") for run in at.load_all(folder))


def test_a_warning_that_nobody_judged_fails_and_leaves_the_page_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (verdicts := tmp_path / "v.toml").write_text("")
    page = tmp_path / "page.md"
    assert main([str(folder), "--write"], verdicts=verdicts, target=page) == 1
    assert not page.exists()
    shown = capsys.readouterr()
    assert "NOT JUDGED" in shown.out
    assert "not judged: look at their curves" in shown.err


def test_judged_warnings_make_the_page_with_origin_reason_and_figure(
    folder: Path, tmp_path: Path, keys: list[tuple[str, str, str]]
) -> None:
    missed = '[[missed]]\nfile = "x"\nwhat = "a leap."\nneeds = "a look."\n'
    (verdicts := tmp_path / "v.toml").write_text(table(keys, "wrong", missed))
    page = tmp_path / "page.md"
    assert main([str(folder), "--write"], verdicts=verdicts, target=page) == 0
    text = page.read_text()
    assert f"Runs: 2, without a warning: 1. Warnings: {len(keys)}, of them 0 right, {len(keys)} wrong." in text
    assert "From https://example.org/a at 0000000000 (MIT)." in text
    assert all(f"seen {kind}" in text for _, kind, _ in keys)
    assert "(wild-review/a.png)" in text
    assert "## Missed\n\n- x: a leap. a look." in text
    assert str(folder) not in text


def test_a_judgement_of_a_warning_that_is_given_no_more_is_kept_apart(
    folder: Path, tmp_path: Path, keys: list[tuple[str, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (verdicts := tmp_path / "v.toml").write_text(table([*keys, ("charlm-healthy", "loss-spike", "loss")]))
    assert main([str(folder), "--write"], verdicts=verdicts, target=tmp_path / "page.md") == 0
    assert "no more    charlm-healthy: loss-spike loss" in capsys.readouterr().out
    _, gone = (tmp_path / "page.md").read_text().split("## Given before, and no more")
    assert "charlm-healthy, `loss-spike` of loss" in gone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (table([("a", "plateau", "")], "maybe"), "one of right, wrong, undecided"),
        (table([("a", "plateau", "")] * 2), "judged twice"),
        (table([("a", "plateau", "")], "wrong").replace("a.png", ""), "needs a figure"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        verdicts_of(text)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_table_of_the_page_can_be_read_and_its_figures_are_there() -> None:
    verdicts, missed = verdicts_of(VERDICTS.read_text(encoding="utf-8"))
    assert verdicts and missed
    figures = {verdict.figure for verdict in verdicts.values() if verdict.figure}
    assert all((wild_review.PAGE.parent / "wild-review" / name).is_file() for name in figures)
