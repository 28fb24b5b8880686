"""The style of the report page, light and dark, wide and narrow.

In:   nothing.
Out:  `STYLE`, CSS.

Colours have a contrast of 4.5 to 1 or more on their ground, those of marks 3 to 1; chart colours are Okabe and Ito's,
lightened where the ground is dark, and lines differ by their dashes too.
"""

from relish.reporting.page_head import COLOURS

STYLE = (
    COLOURS
    + """\
:root {
  --c1: #0072b2; --c2: #b34e00; --c3: #007a59; --c4: #a8527f; --heat: 0, 114, 178; --heat-wrong: 190, 70, 10;
}
@media (prefers-color-scheme: dark) {
  :root {
    --c1: #56b4e9; --c2: #ff9d5c; --c3: #4fd0a5; --c4: #e39ac0; --heat: 86, 180, 233; --heat-wrong: 255, 140, 80;
  }
}
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .75rem; }
.under { margin: -.5rem 0 1rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: 0 0 1rem; max-width: 44rem; }
a { color: var(--bar); }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
.soft { color: var(--soft); }
.card, figure.chart { border: 1px solid var(--edge); border-radius: .7rem; background: var(--card); }
.card { padding: 1.1rem 1.25rem; }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1rem; margin: 0 0 .5rem; }
.headline strong { font-size: 3.5rem; line-height: 1; font-variant-numeric: tabular-nums; }
.scale { position: relative; height: .75rem; max-width: 32rem; margin: 1rem 0 .25rem; border-radius: .4rem;
  background: var(--track); }
.scale i { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: .4rem; background: var(--bar);
  opacity: .5; }
.scale b { position: absolute; top: -.2rem; bottom: -.2rem; width: 3px; margin-left: -1.5px; background: var(--ink); }
.scale.small { width: 7rem; height: .5rem; margin: .3rem 0 0; }
.ends { display: flex; justify-content: space-between; max-width: 32rem; font-size: .8rem; margin-bottom: 1rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: 1.25rem 0 0; padding: 0; list-style: none; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0 0;
  font-size: .95rem; }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; }
.two { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure.chart { margin: 0 0 1rem; padding: .9rem 1rem; max-width: 34rem; }
figure.chart > svg { display: block; width: 100%; height: auto; }
figure.chart p { margin: .5rem 0 0; font-size: .93rem; }
svg text { fill: var(--soft); font: 13px system-ui, sans-serif; }
.grid path { stroke: var(--edge); fill: none; }
.grid .edge { stroke: var(--soft); }
.line { fill: none; stroke-width: 2; }
.dashed { stroke-dasharray: 5 4; }
.c1 { fill: var(--c1); stroke: var(--c1); } .c2 { fill: var(--c2); stroke: var(--c2); }
.c3 { fill: var(--c3); stroke: var(--c3); } .c4 { fill: var(--c4); stroke: var(--c4); }
path.soft { stroke: var(--soft); }
path.line { fill: none; }
rect.mark { fill-opacity: .45; stroke-width: 1; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .4rem 0 0; padding: 0; list-style: none;
  font-size: .88rem; }
.keys svg { width: 24px; height: 10px; vertical-align: middle; }
.scroll { overflow-x: auto; margin: 0 0 1rem; border: 1px solid var(--edge); border-radius: .7rem;
  background: var(--card); }
.fitting { width: fit-content; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .6rem .8rem 0; color: var(--soft); }
th, td { overflow-wrap: break-word; padding: .5rem .8rem; text-align: left; vertical-align: top;
  border-top: 1px solid var(--edge); }
tr:first-child > * { border-top: 0; }
thead th { font-weight: 600; color: var(--soft); white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
.nowrap { white-space: nowrap; }
td.wide { min-width: 15rem; }
.matrix { width: auto; margin: .3rem; }
.matrix th { white-space: normal; }
.matrix th, .matrix td { text-align: center; vertical-align: middle; border: 0; }
.matrix th[scope=row] { text-align: right; }
.matrix th bdi { display: inline-block; max-width: 8rem; }
.matrix td { padding: 2px; }
.matrix a, .matrix .none { display: block; min-width: 3.4rem; padding: .85rem .5rem; border-radius: .4rem;
  color: var(--ink); text-decoration: none; }
.matrix a { text-decoration: underline; text-underline-offset: .2em; }
.matrix .none { color: var(--soft); }
.s0 { background: rgba(var(--heat), .06); } .s1 { background: rgba(var(--heat), .12); }
.s2 { background: rgba(var(--heat), .19); } .s3 { background: rgba(var(--heat), .26); }
.s4 { background: rgba(var(--heat), .33); } .s5 { background: rgba(var(--heat), .40); }
.w0 { background: rgba(var(--heat-wrong), .08); } .w1 { background: rgba(var(--heat-wrong), .14); }
.w2 { background: rgba(var(--heat-wrong), .21); } .w3 { background: rgba(var(--heat-wrong), .28); }
.w4 { background: rgba(var(--heat-wrong), .35); } .w5 { background: rgba(var(--heat-wrong), .42); }
.behind { display: none; margin-bottom: 1rem; scroll-margin-top: 1rem; }
.behind:target { display: block; }
.behind h3 { margin-top: 0; }
.thumbs { display: flex; flex-wrap: wrap; gap: .5rem; margin: 0 0 .75rem; padding: 0; list-style: none; }
.thumbs li { width: 8rem; font-size: .75rem; line-height: 1.3; color: var(--soft); }
.thumbs img { display: block; width: 100%; height: 6rem; object-fit: contain; background: var(--track);
  border-radius: .3rem; margin-bottom: .2rem; }
.name { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; line-clamp: 2; overflow: hidden; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
  margin: 0; padding: 0; list-style: none; }
.cards > li { overflow: hidden; padding: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; background: var(--track); }
.pair img { display: block; width: 100%; height: auto; }
.pair img:only-child { grid-column: 1 / 3; width: 50%; margin: 0 auto; }
.words { padding: .7rem .9rem .9rem; }
.mark { font-weight: 700; stroke-width: 2; }
.is-right .mark { color: var(--right); } .is-wrong .mark { color: var(--wrong); }
.share { display: flex; justify-content: space-between; gap: .5rem; margin-top: .3rem; }
.share span:last-child { flex: none; font-variant-numeric: tabular-nums; }
.track { height: .35rem; border-radius: .2rem; background: var(--track); overflow: hidden; }
.track i { display: block; height: 100%; background: var(--bar); }
.words .file { font-size: .78rem; margin: .5rem 0; }
.near { margin: .6rem 0 .3rem; font-size: .85rem; }
.words .thumbs { margin: 0; flex-wrap: nowrap; }
.words .thumbs li { width: auto; flex: 1 1 0; min-width: 0; }
.words .thumbs img { height: 4.5rem; }
.tag { display: inline-block; padding: .05rem .5rem; border: 1px solid currentcolor; border-radius: 1rem;
  font-size: .82rem; font-weight: 600; }
.tag.error { color: var(--wrong); } .tag.warning { color: var(--c2); } .tag.note { color: var(--soft); }
.tag.won { color: var(--right); }
.found { margin: 0 0 .75rem; padding: .9rem 1.1rem; }
.found p { margin: .35rem 0 .5rem; }
ul.notes { padding-left: 1.2rem; }
pre { margin: 0 0 1rem; padding: .8rem 1rem; overflow-x: auto; white-space: pre-wrap; border: 1px solid var(--edge);
  border-radius: .5rem; background: var(--card); font: .88rem/1.5 ui-monospace, monospace; }
details { margin: 0 0 1rem; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
@media (max-width: 30rem) {
  body { padding: 1rem .75rem 3rem; }
  .headline strong { font-size: 3rem; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: .4rem; }
  .thumbs li { width: calc((100% - 1rem) / 3); }
  table.rows thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.rows, table.rows tbody, table.rows tr, table.rows td, table.rows th { display: block; width: 100%; }
  table.rows tr { border-top: 1px solid var(--edge); padding: .5rem 0; }
  table.rows td, table.rows th { border: 0; padding: .1rem .8rem; text-align: left; overflow-wrap: anywhere; }
  table.rows td[data-name]::before { content: attr(data-name) ": "; color: var(--soft); }
}
@media print { .behind { display: none; } nav { display: none; } }
"""
)
