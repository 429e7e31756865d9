"""A run in a report: what was tuned on what, its loss curve and its recipe."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from harness.run import Run
from harness.run.facts import base_name, curve_of, figures_of, metrics_of, recipe_of, recipe_yaml
from harness_evaluation.report.charts import curve_svg

STYLE = """\
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 8px 0 0; font-size: .9rem; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.plot { position: relative; margin: 14px 0 4px; } .plot .inner { position: absolute; top: 0; right: 8px; bottom: 0;
  left: 52px; }
.key { font-size: .8rem; color: var(--soft); }
.key i { display: inline-block; width: 18px; height: 0; margin: 0 5px 3px 0; border-top: 3px solid var(--better); }
.key .v { border-top-color: var(--warm); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; background: var(--fill); border-radius: 8px; padding: 10px 12px; }
pre { font-size: .8rem; margin: 8px 0; }
@media (max-width: 480px) { .facts { grid-template-columns: 1fr; } .facts dd { margin-bottom: 6px; } }
"""


def tuned(run: Run) -> str:
    """Return the section on one run: base, objective, method, data, device, hashes, loss curve, recipe."""
    manifest, recipe = run.manifest, recipe_of(run)
    session = (manifest.get("sessions") or [{}])[-1]
    tune = recipe["tune"]
    figures = figures_of(run)
    identity = manifest.get("identity") or {}
    kept = manifest.get("kept") or {}
    base, dtype = base_name(recipe)[0], recipe["model"]["dtype"]
    step, rate = tune["step_tokens"], tune["learning_rate"]
    facts = {
        "base": f"{base} ({dtype}), weights sha256 {_hash(identity, 'model_sha256')}",
        "template": f"{(manifest.get('template') or {}).get('name')}, sha256 {_hash(identity, 'template_sha256')}",
        "objective": _with_options(tune["objective"]),
        "method": _with_options(tune["method"]),
        "steps": f"{figures.get('steps', 0):,} of {step:,} tokens, learning rate {rate:g}"
        + (f"; kept are the weights after step {kept['step']:,}" if kept.get("which") == "best" else ""),
        "seed": str(manifest.get("seed")),
        "device": f"{session.get('device', 'not stated')}, {figures.get('seconds', 0):,.0f} s of steps",
        "data": f"sha256 {str(manifest.get('data_sha256'))[:12]}",
        "run": f"{manifest.get('id', run.name)}, {session.get('started', '')[:10]}",
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    whole = f"<details><summary>the whole recipe</summary><pre>{escape(recipe_yaml(recipe))}</pre></details>"
    return (
        f'<section><h2>{escape(run.name)}: what was tuned on what</h2><dl class="facts">{rows}</dl>'
        f"{_data(run)}{_curve(run)}{whole}</section>"
    )


def _hash(identity: dict[str, Any], name: str) -> str:
    return str(identity.get(name, "not kept"))[:12]


def _with_options(section: dict[str, Any]) -> str:
    """Return a section of the recipe in a line: the name, then its options."""
    options = ", ".join(f"{key} {value}" for key, value in section.items() if key != "name" and value not in ([], None))
    name = str(section["name"]).rpartition(":")[2]
    return f"{name} ({options})" if options else name


def _data(run: Run) -> str:
    titles = "".join(f"<th class=n>{title}</th>" for title in ("rows used", "tokens", "supervised"))
    head = f"<tr><th>dataset</th><th>file</th>{titles}</tr>"
    rows = "".join(
        f"<tr><td>{escape(str(source['dataset']))}</td><td>{escape(Path(str(source['path'] or '')).name or 'its own')}"
        f"</td><td class=n>{source['used']:,}</td><td class=n>{source['tokens']:,}</td>"
        f"<td class=n>{source['supervised_tokens']:,}</td></tr>"
        for source in run.manifest.get("data") or ()
    )
    return f'<div class="scroll"><table>{head}{rows}</table></div>' if rows else ""


def _curve(run: Run) -> str:
    curve = curve_of(metrics_of(run.metrics_path))
    drawn = curve_svg(curve)
    if not drawn:
        return ""
    key = "<i></i>training loss, smoothed over its steps"
    if curve.validation:
        first, last = curve.validation[0][1], curve.validation[-1][1]
        key += f' &nbsp; <i class="v"></i>validation loss, {first:.3f} → {last:.3f}'
    return f'<h3>loss, in the objective\'s unit</h3>{drawn}<div class="key">{key}</div>'
