"""The frame of an HTML page that needs no other file: its style, readable by light and in the dark.

The colours of lines and marks are Okabe and Ito's (jfly.uni-koeln.de/color), which people with any colour vision tell
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --dim: #5d636d; --back: #fff; --grid: #dcdfe4; --soft: #f5f6f8;
  --bad: #b3261e; --good: #00724f; --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --dim: #a3a9b3; --back: #17181b; --grid: #3a3d44;
  --soft: #212329; --bad: #ff8a80; --good: #5fd3ab; --s0: #6cb9ee; --s1: #ff9a4d; --s2: #4fcfa6; --s3: #e7a5ca; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1120px;
  margin: 2em auto 4em; padding: 0 1em; }
h1 { margin-bottom: .1em; } h2 { margin: 2em 0 .6em; border-bottom: 1px solid var(--grid); padding-bottom: .2em; }
h3 { margin-bottom: .3em; } p { margin: .4em 0; } .dim { color: var(--dim); }
.cards, .curves { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.curves { grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); }
.cards { margin: 1em 0; } .card { background: var(--soft); border-radius: 8px; padding: .7em .9em; }
.card b { display: block; font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: 13px; } .card span + b + span { color: var(--dim); font-size: 12px; }
figure { margin: 0; background: var(--soft); border-radius: 8px; padding: .6em .8em; }
figure.wide { background: none; padding: 0; margin: 0 0 1.2em; } figure img { width: 100%; display: block; }
figcaption { font-size: 13px; font-weight: 600; } figure.wide figcaption { font-weight: 400; margin-top: .3em; }
.heads { display: grid; grid-template-columns: repeat(4, 1fr); font-size: 13px; color: var(--dim); }
.swatch { display: inline-block; width: .85em; height: .85em; border: 1px solid var(--grid); border-radius: 3px;
  margin-right: .35em; vertical-align: -.08em; } .key { margin-right: 1.2em; white-space: nowrap; }
svg.chart { width: 100%; display: block; } svg text { font-size: 12px; fill: var(--dim); }
svg .grid { stroke: var(--grid); } polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .best { fill: none; stroke: var(--good); stroke-width: 2; }
polyline.s0 { stroke: var(--s0); } polyline.s1 { stroke: var(--s1); } polyline.s2 { stroke: var(--s2); }
polyline.s3 { stroke: var(--s3); }
circle.s0, svg text.s0 { fill: var(--s0); } circle.s1, svg text.s1 { fill: var(--s1); }
circle.s2, svg text.s2 { fill: var(--s2); } circle.s3, svg text.s3 { fill: var(--s3); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: .5em 0; }
th, td { padding: .25em .8em .25em 0; border-bottom: 1px solid var(--grid); text-align: left; }
th.n, td.n { text-align: right; padding-left: .8em; font-variant-numeric: tabular-nums; }
.matrix th, .matrix td { padding: .25em .6em; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
code { overflow-wrap: anywhere; background: var(--soft); border-radius: 4px; padding: .15em .4em; }
summary { cursor: pointer; color: var(--dim); font-size: 13px; }
@media print { body { max-width: none; } figure, .card { break-inside: avoid; } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """The whole page; `body` is HTML, `title` is text."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>",
            "",
        ]
    )
