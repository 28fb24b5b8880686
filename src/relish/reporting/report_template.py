"""The template of the report page: its frame, headline and order.

In:   nothing.
Out:  `REPORT`, Jinja2 source for an environment with autoescape on, after the macros of `report_sections.py` and
      `chart_template.py`.
"""

from relish.reporting.page_head import HEAD

REPORT = (
    HEAD
    + """\
<title>{{ page.title }}: report</title>
<style>
{{ style }}
</style>
</head>
<body>
<header>
<h1><bdi>{{ page.title }}</bdi></h1>
<p class="soft under">What this image classifier is worth, where it errs and why, and how it was made.</p>
</header>
<main>
<section class="card" aria-label="In short">
<p class="headline"><strong>{{ page.top1.value|percent }}</strong>
<span>of {{ page.split }} pictures right: {{ "{:,}".format(page.top1.correct) }} of
{{ "{:,}".format(page.top1.count) }}, 95% interval {{ page.top1.interval|interval }}</span></p>
<div class="scale" aria-hidden="true">
<i style="left: {{ "%.2f"|format(100 * page.top1.interval[0]) }}%;
 right: {{ "%.2f"|format(100 - 100 * page.top1.interval[1]) }}%"></i>
<b style="left: {{ "%.2f"|format(100 * page.top1.value) }}%"></b>
</div>
<div class="ends soft" aria-hidden="true"><span>0%</span><span>100%</span></div>
<p>This is how often the saved model gives the true class, on {{ page.split }} pictures it did not learn from; higher is
better. With so many pictures chance alone may move the figure within the interval. Always saying the commonest class
would be right on {{ page.commonest|percent }}.</p>
{% for words in page.decision %}
<p>{{ words }}</p>
{% endfor %}
<dl class="facts">
{% for name, words in page.facts %}
<dt>{{ name }}</dt><dd><bdi>{{ words }}</bdi></dd>
{% endfor %}
</dl>
<nav aria-label="Sections"><ul>
{% if page.rivals %}<li><a href="#rivals">Other runs</a></li>{% endif %}
{% if page.rungs %}<li><a href="#climb">The climb</a></li>{% endif %}
{% if page.checked is not none %}<li><a href="#data">The pictures</a></li>{% endif %}
<li><a href="#confusion">What it confuses</a></li>
<li><a href="#classes">Classes</a></li>
{% if page.calibration or page.reliability or page.coverage %}<li><a href="#sure">How sure</a></li>{% endif %}
{% if page.wrong %}<li><a href="#wrong">Worst mistakes</a></li>{% endif %}
{% if page.unsure %}<li><a href="#unsure">Least sure</a></li>{% endif %}
<li><a href="#made">How it was made</a></li>
</ul></nav>
</section>
{% if page.notes %}
<section aria-labelledby="missing">
<h2 id="missing">About this page</h2>
<ul class="notes">
{% for note in page.notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
</section>
{% endif %}
{% if page.rivals %}{{ rivals(page) }}{% endif %}
{% if page.rungs or page.curves %}{{ climb(page) }}{% endif %}
{% if page.checked is not none %}{{ data(page) }}{% endif %}
{{ confusion(page) }}
{{ classes(page) }}
{% if page.calibration or page.reliability or page.coverage or page.figures %}{{ sure(page) }}{% endif %}
{% if page.wrong_in_all %}
{{ examples("wrong", "Worst mistakes", page.wrong, "Of " ~ page.wrong_in_all ~ " mistakes, the " ~ page.wrong|length
 ~ " whose true class it thought least likely. Some may be errors of the label, and not of the model.") }}
{% endif %}
{% if page.unsure %}
{{ examples("unsure", "Least sure", page.unsure, "The " ~ page.unsure|length ~ " pictures whose two likeliest classes "
 ~ "are closest, right or wrong. More pictures like these teach it most.") }}
{% endif %}
{% if page.sweep %}
<section aria-labelledby="sweep">
<h2 id="sweep">Learning rates</h2>
<p>From a sweep on the same pictures, beside this run.</p>
{{ chart(page.sweep) }}
{% if page.sweep_conclusion %}<p>{{ page.sweep_conclusion }}</p>{% endif %}
</section>
{% endif %}
{{ made(page) }}
</main>
</body>
</html>
"""
)
