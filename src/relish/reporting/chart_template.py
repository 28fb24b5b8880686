"""Jinja2 source of a chart: one `figure` with an SVG, a legend, and the same in words.

In:   nothing.
Out:  `CHART`, a macro `chart(c)` that takes a `charts.Chart`.
"""

CHART = """\
{% macro chart(c) %}
<figure class="chart" id="chart-{{ c.name }}">
<svg viewBox="0 0 {{ c.frame.width }} {{ c.frame.height }}" role="img"
 aria-labelledby="title-{{ c.name }}" aria-describedby="about-{{ c.name }}">
<title id="title-{{ c.name }}">{{ c.title }}</title>
<g class="grid" aria-hidden="true">
{% for at, words in c.y_ticks %}
<path d="M{{ c.frame.left }} {{ at }}H{{ c.frame.right }}"/>
<text x="{{ c.frame.left - 6 }}" y="{{ at + 4 }}" text-anchor="end">{{ words }}</text>
{% endfor %}
{% for at, words in c.x_ticks %}
<path d="M{{ at }} {{ c.frame.bottom }}v5"/>
<text x="{{ at }}" y="{{ c.frame.bottom + 18 }}" text-anchor="middle">{{ words }}</text>
{% endfor %}
<path class="edge" d="M{{ c.frame.left }} {{ c.frame.bottom }}H{{ c.frame.right }}"/>
<text x="{{ (c.frame.left + c.frame.right) / 2 }}" y="{{ c.frame.height - 5 }}" text-anchor="middle">{{ c.x.label }}
</text>
<text x="12" y="{{ (c.frame.top + c.frame.bottom) / 2 }}" text-anchor="middle"
 transform="rotate(-90 12 {{ (c.frame.top + c.frame.bottom) / 2 }})">{{ c.y.label }}</text>
</g>
{% for bar in c.bars %}
<rect class="mark {{ bar.look }}" x="{{ bar.x }}" y="{{ bar.y }}" width="{{ bar.width }}" height="{{ bar.height }}">
<title>{{ bar.words }}</title></rect>
{% endfor %}
{% for line in c.lines %}
<path class="mark line {{ line.look }}{{ " dashed" if line.dashed }}" d="{{ line.path }}"/>
{% endfor %}
{% for dot in c.dots %}
{% if dot.cross %}
<path class="mark line {{ dot.look }}" d="M{{ dot.x - 4 }} {{ dot.y - 4 }}l8 8m0 -8l-8 8"><title>{{ dot.words }}</title>
</path>
{% else %}
<circle class="mark {{ dot.look }}" cx="{{ dot.x }}" cy="{{ dot.y }}" r="4"><title>{{ dot.words }}</title></circle>
{% endif %}
{% endfor %}
</svg>
<figcaption>
{% if c.keys %}
<ul class="keys">
{% for key in c.keys %}
<li><svg viewBox="0 0 24 10" aria-hidden="true"><path class="line {{ key.look }}{{ " dashed" if key.dashed }}"
 d="M0 5H24"/></svg> <bdi>{{ key.words }}</bdi></li>
{% endfor %}
</ul>
{% endif %}
<p class="soft" id="about-{{ c.name }}">{{ c.summary }}</p>
</figcaption>
</figure>
{% endmacro %}
"""
