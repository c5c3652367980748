"""HTML, CSV and JSON of a run's report: one page that reads on its own, whatever it is about."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.harness.plan import HELD_OUT, ONE_AGENT, Setting
from experiments.report import means
from experiments.report.results import Results
from experiments.report.tables import Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1c1c1c }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 13px; margin: .8em 0 } caption { text-align: left; font-weight: 600 }
th, td { border: 1px solid #d5d5d5; padding: .25em .6em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead { background: #f2f2f2 }
div.scroll { overflow-x: auto } img { max-width: 100% } pre { font-size: 12px; background: #f7f7f7; padding: 1em }
dt { font-weight: 600 }
p.note { color: #555; font-size: 13px; margin-top: 0 }
ul.headline, ul.opening { background: #f3f7fb; padding: 1em 1em 1em 2em }
ul.opening { font-size: 1.1em } ul.opening li { margin: .5em 0 }
"""


def csv_text(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV; numbers as the shortest text that reads back to the same bits."""
    rows = list(rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def html_table(table: Table) -> str:
    """One table as HTML."""

    def row(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table><caption>{html.escape(table.title)}</caption>'
        f"<thead>{row(table.header, 'th')}</thead><tbody>\n{body}\n</tbody></table></div>{note}"
    )


def image(name: str, png: bytes) -> str:
    """A PNG inside the page."""
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A page of headed sections, each HTML."""
    body = "\n".join(f"<h2>{html.escape(heading)}</h2>\n{content}" for heading, content in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def bullets(lines: Iterable[str], kind: str = "") -> str:
    """A list."""
    return f'<ul class="{kind}">{"".join(f"<li>{html.escape(line)}</li>" for line in lines)}</ul>'


def preformatted(content: Any) -> str:
    """Nested values as YAML."""
    import yaml

    return f"<pre>{html.escape(yaml.safe_dump(content, sort_keys=False))}</pre>"


def summary(
    results: Results,
    verdicts: dict[tuple[str, Setting], Any],
    opening: list[str],
    lines: list[str],
    validated: Mapping[str, Any],
) -> dict[str, Any]:
    """The numbers of the console tables, for programs; undefined numbers are null.

    ``one_agent`` and ``left_out`` are ``{domain: {"K=5": [estimate, low, high], ...}}`` of the first arm, empty where
    the run has none. ``means`` is ``{arm: {group: {...}}}``: of the one agent, single sources and domains left out, the
    mean over domains under every condition, and counts. ``at_home`` is ``{arm: {"K=5": mean, ...}}``: what the agents
    with domains left out score in the domains they were trained on.
    """
    scores: dict[str, Any] = {}
    for agent in results.agents:
        for arm in results.arms:
            scores.setdefault(agent.label, {})[arm] = {
                target: {c.label: means.rounded(results.score(agent, arm, target, c)) for c in results.conditions}
                for target in results.tested(agent)
            }
    return {
        "protocol": results.protocol,
        "seeds": results.seeds,
        "opening": opening,
        "headline": lines,
        "one_agent": means.by_domain(results, ONE_AGENT),
        "left_out": means.by_domain(results, HELD_OUT),
        "means": {arm: means.by_group(results, arm) for arm in results.arms},
        "at_home": {arm: means.at_home(results, arm, validated) for arm in results.arms},
        "verdicts": {
            arm: {setting: dataclasses.asdict(v) for (its, setting), v in verdicts.items() if its == arm}
            for arm in results.arms
        },
        "scores": scores,
    }
