from __future__ import annotations

import re
from pathlib import Path

from parsers.plans.names import CONFIGURATIONS, NAMES

PAGE = Path(__file__).parents[3] / "docs" / "plan.md"


def test_the_page_lists_the_names_that_the_code_knows() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {key: tuple(re.findall(r"`(\w+)`", names)) for key, names in rows} == NAMES


def test_the_plan_of_the_page_is_understood_whole(tmp_path: Path) -> None:
    from parsers.plans.given import plan_of
    from parsers.plans.understanding import Declared, read_plan

    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "plan.toml").write_text(text)
    plan = read_plan(Declared(*plan_of(tmp_path / "plan.toml")), {})
    assert (
        plan.not_understood == () and plan.lr["warmup_steps"] == 300 and plan.inputs["forward"]["forbid"] == ["labels"]
    )


def test_every_file_that_the_page_names_is_looked_for() -> None:
    named = re.findall(r"^4\. .*?(?=^\d|\n\n)", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    files = set(re.findall(r"`([\w./]+\.(?:json|ya?ml))`", named)) - {"a7.yaml", "a7_config.yaml"}
    assert files <= set(CONFIGURATIONS) and len(files) >= 6
