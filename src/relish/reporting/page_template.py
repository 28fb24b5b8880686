"""The template of the page of predictions.

In:   nothing.
Out:  `PREDICTIONS`, Jinja2 source for an environment with autoescape on.
Not here: what is put into it (`predictions_page.py`).

Right and wrong differ by a word and a sign, not by colour alone. Colours have a contrast of 4.5 to 1 or more on their
ground, light and dark.
"""

from relish.reporting.page_head import COLOURS, HEAD

PREDICTIONS = (
    HEAD
    + """\
<title>{{ title }}</title>
<style>
"""
    + COLOURS
    + """\
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 80rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
p { margin: 0 0 1rem; }
.soft { color: var(--soft); }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1rem; margin: 0; }
.headline strong { font-size: 3rem; line-height: 1; font-variant-numeric: tabular-nums; }
.scale { position: relative; height: .75rem; max-width: 32rem; margin: 1rem 0 .25rem; border-radius: .4rem;
  background: var(--track); }
.scale i { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: .4rem; background: var(--bar);
  opacity: .5; }
.scale b { position: absolute; top: -.2rem; bottom: -.2rem; width: 3px; margin-left: -1.5px; background: var(--ink); }
.ends { display: flex; justify-content: space-between; max-width: 32rem; font-size: .8rem; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr));
  margin: 0; padding: 0; list-style: none; }
figure { margin: 0; height: 100%; border: 1px solid var(--edge); border-radius: .6rem; overflow: hidden;
  background: var(--card); }
.wrong figure { border-color: var(--wrong); }
.frame { display: block; aspect-ratio: 4 / 3; background: var(--track); }
.frame img { display: block; width: 100%; height: 100%; object-fit: contain; }
.words { padding: .6rem .8rem .8rem; }
.mark { font-weight: 700; }
.right .mark { color: var(--right); }
.wrong .mark { color: var(--wrong); }
.line { display: flex; justify-content: space-between; gap: .5rem; margin-top: .4rem; }
.name { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; line-clamp: 3; overflow: hidden; }
.line span:last-child { flex: none; font-variant-numeric: tabular-nums; }
.track { height: .4rem; border-radius: .2rem; background: var(--track); overflow: hidden; }
.track i { display: block; height: 100%; background: var(--bar); }
.track.true i { background: var(--soft); }
.file { margin-top: .5rem; font-size: .75rem; }
@media (max-width: 30rem) {
  .cards { grid-template-columns: 1fr 1fr; gap: .6rem; }
  .words { padding: .5rem .6rem .6rem; font-size: .9rem; }
}
</style>
</head>
<body>
<main>
<h1><bdi>{{ title }}</bdi></h1>
<p class="headline"><strong>{{ "%.1f"|format(value) }}%</strong>
<span>of {{ scored_on }} pictures right: {{ top1.correct }} of {{ top1.count }},
95% interval {{ "%.1f"|format(low) }}–{{ "%.1f"|format(high) }}%</span></p>
<div class="scale" aria-hidden="true">
<i style="left: {{ "%.2f"|format(low) }}%; right: {{ "%.2f"|format(100 - high) }}%"></i>
<b style="left: {{ "%.2f"|format(value) }}%"></b>
</div>
<div class="ends soft" aria-hidden="true"><span>0%</span><span>100%</span></div>
{% for section in sections %}
<section>
<h2>{{ section.heading }}</h2>
<p class="soft">{{ section.words }}</p>
<ul class="cards">
{% for card in section.cards %}
<li class="{{ "right" if card.right else "wrong" }}">
<figure>
<span class="frame"><img src="{{ card.picture }}" width="{{ card.width }}" height="{{ card.height }}"
 alt="Picture of class {{ card.truth }}, {{ "rightly" if card.right else "wrongly" }} taken for {{ card.said }}"></span>
<figcaption class="words">
<div class="mark">{{ "✓ right" if card.right else "✗ wrong" }}</div>
<div class="line"><span class="name">says <bdi>{{ card.said }}</bdi></span><span>{{ card.said_percent }}</span></div>
<div class="track" aria-hidden="true"><i style="width: {{ "%.1f"|format(100 * card.said_share) }}%"></i></div>
{% if card.right %}
<div class="soft line"><span class="name">and is <bdi>{{ card.truth }}</bdi></span></div>
{% else %}
<div class="line"><span class="name">is <bdi>{{ card.truth }}</bdi></span><span>{{ card.truth_percent }}</span></div>
<div class="track true" aria-hidden="true"><i style="width: {{ "%.1f"|format(100 * card.truth_share) }}%"></i></div>
{% endif %}
<div class="soft name file"><bdi>{{ card.name }}</bdi></div>
</figcaption>
</figure>
</li>
{% endfor %}
</ul>
</section>
{% endfor %}
</main>
</body>
</html>
"""
)
