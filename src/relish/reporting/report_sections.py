"""The sections of the report page, a macro each.

In:   nothing.
Out:  `SECTIONS`, Jinja2 source; needs the macro of `chart_template.py` before it.

Right and wrong differ by a word and a sign, not by colour alone. Wide tables scroll in a region of their own that the
keyboard reaches; on a phone the tables of rows become lists.
"""

SECTIONS = """\
{% macro thumb(shown) %}
<li><img src="{{ shown.picture.address }}" width="{{ shown.picture.width }}" height="{{ shown.picture.height }}"
 alt="{{ shown.alt }}">
{% if shown.words %}<span class="name"><bdi>{{ shown.words }}</bdi></span>{% endif %}
<span class="name"><bdi>{{ shown.label }}</bdi></span></li>
{% endmacro %}

{% macro rivals(page) %}
<section aria-labelledby="rivals">
<h2 id="rivals">Other runs on the same pictures</h2>
<p>Finished runs from the same folder, judged on the same {{ "{:,}".format(page.top1.count) }} {{ page.split }}
pictures, the best first. They are compared picture by picture (McNemar's exact test), which sees a difference long
before two intervals stop overlapping. A p-value below 0.05 is taken for one; of twenty tests between equal models, one
falls below it by chance.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Other runs">
<table class="rows">
<thead><tr><th scope="col">run</th><th scope="col">recipe, source</th><th scope="col">accuracy</th>
<th scope="col">95% interval</th><th scope="col">against this run</th></tr></thead>
<tbody>
{% for rival in page.rivals %}
<tr><th scope="row"><bdi>{{ rival.name }}</bdi></th>
<td><bdi>{{ rival.recipe }}</bdi>, <bdi>{{ rival.source }}</bdi></td>
<td data-name="accuracy" class="nowrap">{{ rival.top1.value|percent }}</td>
<td data-name="95% interval" class="nowrap">{{ rival.top1.interval|interval }}
<div class="scale small" aria-hidden="true">
<i style="left: {{ "%.1f"|format(100 * rival.top1.interval[0]) }}%;
 right: {{ "%.1f"|format(100 - 100 * rival.top1.interval[1]) }}%"></i>
<b style="left: {{ "%.1f"|format(100 * rival.top1.value) }}%"></b></div></td>
<td class="wide">{% if rival.sentence %}<bdi>{{ rival.sentence }}</bdi>{% else %}<span class="tag">this run</span>
{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if page.rivals_left_out %}
<p class="soft">{{ page.rivals_left_out }} more, less accurate, are left out.</p>
{% endif %}
</section>
{% endmacro %}

{% macro climb(page) %}
<section aria-labelledby="climb">
<h2 id="climb">{{ "The climb" if page.rungs else "The training" }}</h2>
{% if page.rungs %}
<p>Each rung starts from the one below, and is kept only if it is better on pictures held out from learning. The
{{ page.split }} pictures had no say in it.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Rungs">
<table class="rows">
<thead><tr><th scope="col">rung</th><th scope="col">on held-out pictures</th><th scope="col">outcome</th></tr></thead>
<tbody>
{% for rung in page.rungs %}
<tr><th scope="row">{{ rung.name }}</th><td>{{ rung.words }}</td>
<td class="nowrap">{% if rung.won %}<span class="tag won">✓ won</span>{% else %}did not win{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if page.curves %}{{ chart(page.curves) }}{% endif %}
</section>
{% endmacro %}

{% macro data(page) %}
<section aria-labelledby="data">
<h2 id="data">What the check of the pictures found</h2>
{% if page.found %}
<p>{{ "{:,}".format(page.checked) }} pictures were looked over before training:
{% for severity, count in page.counts.items() %}
{{ count }} {{ severity }}{{ "s" if count != 1 }}{{ ", " if not loop.last else "." }}
{% endfor %}
An error means that the figures on this page cannot be trusted before it is dealt with; a warning deserves a look; a
note is good to know. Each is a suspicion: of labels flagged like this, people who look confirm about half.</p>
{% for one in page.found %}
<div class="card found"><span class="tag {{ one.finding.severity }}">{{ one.finding.severity }}</span>
<span class="soft">{{ one.finding.kind }}</span>
<p><bdi>{{ one.finding.message }}</bdi></p>
{% if one.pictures %}<ul class="thumbs">{% for shown in one.pictures %}{{ thumb(shown) }}{% endfor %}</ul>{% endif %}
<p class="soft"><bdi>{{ one.finding.advice }}</bdi></p></div>
{% endfor %}
{% if page.found_left_out %}
<p class="soft">{{ page.found_left_out }} more are left out here; check.json in the run folder has them all.</p>
{% endif %}
{% else %}
<p>{{ "{:,}".format(page.checked) }} pictures were looked over before training, and nothing suspicious was found.</p>
{% endif %}
</section>
{% endmacro %}

{% macro confusion(page) %}
{% set m = page.confusion %}
<section aria-labelledby="confusion">
<h2 id="confusion">What it confuses with what</h2>
<p>A row is a true class, a column what the model said. The diagonal, in blue, is right; everything beside it is a
mistake, and the darker, the larger the share of its row.
{% if page.behind %}
Follow a number to see its pictures.
{% endif %}
{% if m.left_out %}
Of {{ page.classes|length }} classes, the {{ m.classes|length }} that are confused most are shown.
{% endif %}
</p>
<div class="scroll fitting" tabindex="0" role="region" aria-label="Confusion matrix">
<table class="matrix">
<thead><tr><th scope="col">true class</th>{% for k in m.classes %}<th scope="col">says
 <bdi>{{ page.classes[k] }}</bdi></th>{% endfor %}</tr></thead>
<tbody>
{% for row in m.rows %}
<tr><th scope="row">is <bdi>{{ page.classes[row[0].truth] }}</bdi></th>
{% for cell in row %}
{% set count = cell.positions|length %}
<td>{% if cell.name in page.behind %}<a class="{{ "s" if cell.right else "w" }}{{ cell.step }}" href="#{{ cell.name }}"
 aria-label="{{ count }} {{ "picture" if count == 1 else "pictures" }} of class {{ page.classes[cell.truth] }},
 {{ "rightly" if cell.right else "wrongly" }} taken for {{ page.classes[cell.said] }}: show">{{ count }}</a>
{% else %}<span class="none">{{ count }}</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for row in m.rows %}{% for cell in row if cell.name in page.behind %}
<div class="card behind" id="{{ cell.name }}" tabindex="-1" role="region" aria-labelledby="head-{{ cell.name }}">
<h3 id="head-{{ cell.name }}">{{ "✓" if cell.right else "✗" }} <bdi>{{ page.classes[cell.truth] }}</bdi>,
 {{ "rightly" if cell.right else "wrongly" }} taken for <bdi>{{ page.classes[cell.said] }}</bdi></h3>
{% set shown = page.behind[cell.name] %}
<p class="soft">{{ shown|length }} of {{ cell.positions|length }}{{
 ", evenly spaced and picked by no one" if shown|length < cell.positions|length }}.</p>
<ul class="thumbs">{% for one in shown %}{{ thumb(one) }}{% endfor %}</ul>
<a href="#confusion">Back to the table</a>
</div>
{% endfor %}{% endfor %}
</section>
{% endmacro %}

{% macro classes(page) %}
<section aria-labelledby="classes">
<h2 id="classes">Class by class</h2>
<p>Recall: of a class's pictures, the share that was given it. Precision: of the pictures given it, the share that is of
it. F1 is high only where both are. For all three, higher is better; a class of few pictures has a wide interval. The
lowest recall comes first.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Figures of each class">
<table class="rows">
<thead><tr><th scope="col">class</th><th scope="col">recall</th><th scope="col">95% interval</th>
<th scope="col">precision</th><th scope="col">95% interval</th><th scope="col">F1</th></tr></thead>
<tbody>
{% for row in page.class_rows %}
<tr><th scope="row"><bdi>{{ row.name }}</bdi></th><td data-name="recall" class="nowrap">{{ row.recall }}</td>
<td data-name="95% interval" class="nowrap">{{ row.recall_interval }}</td>
<td data-name="precision" class="nowrap">{{ row.precision }}</td>
<td data-name="95% interval" class="nowrap">{{ row.precision_interval }}</td><td data-name="F1">{{ row.f1 }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endmacro %}

{% macro sure(page) %}
<section aria-labelledby="sure">
<h2 id="sure">How sure, and how rightly so</h2>
{% if page.calibration %}<p>{{ page.calibration }}</p>{% endif %}
<div class="two">
{% if page.reliability %}{{ chart(page.reliability) }}{% endif %}
{% if page.coverage %}{{ chart(page.coverage) }}{% endif %}
</div>
{% if page.figures %}
<div class="scroll" tabindex="0" role="region" aria-label="Further figures">
<table class="rows">
<thead><tr><th scope="col">figure</th><th scope="col">value</th><th scope="col">95% interval</th>
<th scope="col">what it means</th></tr></thead>
<tbody>
{% for figure in page.figures %}
<tr><th scope="row">{{ figure.name }}</th><td class="nowrap">{{ figure.value }}</td>
<td>{{ figure.interval }}</td><td class="wide">{{ figure.meaning }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
</section>
{% endmacro %}

{% macro examples(id, heading, cards, words) %}
<section aria-labelledby="{{ id }}">
<h2 id="{{ id }}">{{ heading }}</h2>
<p>{{ words }}
{% if cards and cards[0].overlay %}
Left, the picture as the network sees it; right, where in it the answer rests
(Grad-CAM): bright and warm is where it looks, grey is where it does not.
{% endif %}
{% if cards and cards[0].neighbours %}
Beneath, the training pictures that look most like it to the network, and how alike (100% would be the same to it).
{% endif %}
</p>
<ul class="cards">
{% for card in cards %}
<li class="card {{ "is-right" if card.right else "is-wrong" }}">
<div class="pair"><img src="{{ card.picture.picture.address }}" width="{{ card.picture.picture.width }}"
 height="{{ card.picture.picture.height }}" alt="{{ card.picture.alt }}">
{% if card.overlay %}<img src="{{ card.overlay.address }}" width="{{ card.overlay.width }}"
 height="{{ card.overlay.height }}"
 alt="The same picture with a heat map of where “{{ card.said }}” rests">{% endif %}</div>
<div class="words">
<div class="mark">{{ "✓ right" if card.right else "✗ wrong" }}{{ ", says it is unsure" if card.unsure }}</div>
<div>says <bdi>{{ card.said }}</bdi>{% if not card.right %}, is <bdi>{{ card.truth }}</bdi>{% endif %}</div>
{% for name, share in card.likeliest %}
<div class="share"><span class="name"><bdi>{{ name }}</bdi></span><span>{{ share|likely }}</span></div>
<div class="track" aria-hidden="true"><i style="width: {{ "%.1f"|format(100 * share) }}%"></i></div>
{% endfor %}
<div class="soft name file"><bdi>{{ card.picture.label }}</bdi></div>
{% if card.neighbours %}
<div class="near soft">Nearest it learned from</div>
<ul class="thumbs">{% for shown in card.neighbours %}{{ thumb(shown) }}{% endfor %}</ul>
{% endif %}
</div>
</li>
{% endfor %}
</ul>
</section>
{% endmacro %}

{% macro made(page) %}
<section aria-labelledby="made">
<h2 id="made">How it was made</h2>
{% for purpose, command in page.commands %}
<h3>{{ purpose }}</h3>
<pre tabindex="0"><code><bdi>{{ command }}</bdi></code></pre>
{% endfor %}
<details>
<summary>Recipe: every number of the training</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Recipe"><table><tbody>
{% for field, value, changed in page.recipe %}
<tr><th scope="row">{{ field }}</th>
<td><bdi>{{ value }}</bdi>{% if changed %} <span class="tag">changed</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table></div>
</details>
<details>
<summary>Environment: where and with what</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Environment"><table><tbody>
{% for name, value in page.environment %}
<tr><th scope="row">{{ name }}</th><td><bdi>{{ value }}</bdi></td></tr>
{% endfor %}
</tbody></table></div>
</details>
</section>
{% endmacro %}
"""
