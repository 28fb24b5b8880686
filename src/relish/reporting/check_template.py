"""The template of the page of findings.

In:   nothing.
Out:  `CHECK`, Jinja2 source for an environment with autoescape on.
Not here: what is put into it (`check_page.py`).

How bad a finding is stands there as a word, not as a colour alone. Colours have a contrast of 4.5 to 1 or more on their
ground, light and dark.
"""

from relish.reporting.page_head import COLOURS, HEAD

CHECK = (
    HEAD
    + """\
<title>{{ title }}</title>
<style>
"""
    + COLOURS
    + """\
:root { --error: var(--wrong); --warning: #7a5200; --note: #00588a; }
@media (prefers-color-scheme: dark) { :root { --warning: #f0c060; --note: #7cc4ef; } }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 80rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { margin: 0 0 .5rem; }
a { color: inherit; }
.soft { color: var(--soft); }
.toc { list-style: none; margin: 1rem 0 0; padding: 0; }
.toc li { padding: .15rem 0; }
.mark { font-weight: 700; font-size: .8rem; text-transform: uppercase; letter-spacing: .03em; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
.blocks { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.block { border: 1px solid var(--edge); border-radius: .6rem; background: var(--card); padding: .8rem; }
.block.wide { grid-column: 1 / -1; }
.row { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); margin: .6rem 0 0;
  padding: 0; list-style: none; }
figure { margin: 0; }
.frame { display: flex; aspect-ratio: 1; background: var(--track); border-radius: .3rem; overflow: hidden;
  align-items: center; justify-content: center; font-size: .75rem; color: var(--ink); text-align: center; }
.frame img { display: block; width: 100%; height: 100%; object-fit: contain; }
.typical .frame { outline: 2px dashed var(--soft); outline-offset: -2px; }
figcaption { font-size: .75rem; line-height: 1.3; margin-top: .25rem; }
</style>
</head>
<body>
<main>
<h1><bdi>{{ title }}</bdi></h1>
<p>{{ "{:,}".format(count) }} pictures looked at. What follows are suspicions: look, and judge by eye.
Nothing was changed, moved or deleted.</p>
{% if not sections %}
<p><strong>Nothing found.</strong></p>
{% endif %}
<ul class="toc">
{% for section in sections %}
<li><span class="mark {{ section.severity }}">{{ section.severity }}</span>
<a href="#{{ section.anchor }}">{{ section.heading }}</a></li>
{% endfor %}
</ul>
{% for section in sections %}
<section>
<h2 id="{{ section.anchor }}">{{ section.heading }}</h2>
{% if section.words %}
<p class="soft">{{ section.words }}</p>
{% endif %}
<div class="blocks">
{% for block in section.blocks %}
<div class="block{{ " wide" if block.pictures|length > 6 }}">
<p><span class="mark {{ block.severity }}">{{ block.severity }}</span> {{ block.message }}</p>
<p class="soft">{{ block.advice }}</p>
{% if block.pictures %}
<ul class="row">
{% for picture in block.pictures %}
<li class="{{ "typical" if picture.typical }}">
<figure>
<span class="frame">{% if picture.source %}<img src="{{ picture.source }}" width="{{ picture.width }}"
 height="{{ picture.height }}" alt="{{ picture.name }}">{% else %}cannot be shown{% endif %}</span>
<figcaption>{% if picture.typical %}<strong>for comparison:</strong> {% endif %}<bdi>{{ picture.name }}</bdi>
{% if picture.words %}<span class="soft"><bdi>{{ picture.words }}</bdi></span>{% endif %}</figcaption>
</figure>
</li>
{% endfor %}
</ul>
{% endif %}
{% if block.more %}
<p class="soft">… and {{ "{:,}".format(block.more) }} more</p>
{% endif %}
</div>
{% endfor %}
</div>
</section>
{% endfor %}
</main>
</body>
</html>
"""
)
