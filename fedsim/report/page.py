"""The page around the sections; kept as Python, because Flower's app bundles carry no HTML files."""

PAGE = """<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width,initial-scale=1">
<meta name=color-scheme content="light dark">
<meta name=referrer content=no-referrer>
<title>{{ title }}: what the server could rebuild</title>
<style>{{ css }}</style>
</head>
<body>
<a class=skip href="#content">Skip to the content</a>
<header>
<p class=kind>Leakage review of a simulated federation</p>
<h1>{{ title }}</h1>
<p class=lead>{{ question }}</p>
<nav aria-label="Contents"><details><summary>Contents</summary><ol>
{% for section in sections + apart %}
<li><a href="#{{ section.id }}">{{ loop.index }}. {{ section.title }}</a></li>
{% endfor %}
</ol></details></nav>
</header>
<main id=content tabindex=-1>
{% for section in sections %}
<section id="{{ section.id }}" aria-labelledby="{{ section.id }}-title">
<h2 id="{{ section.id }}-title"><span class=n>{{ loop.index }}</span>{{ section.title }}</h2>
{% for block in section.blocks %}{{ block }}{% endfor %}
</section>
{% endfor %}
<div class=apart>
<p class=note>{{ note }}</p>
{% for section in apart %}
<section id="{{ section.id }}" aria-labelledby="{{ section.id }}-title">
<h2 id="{{ section.id }}-title"><span class=n>{{ sections|length + loop.index }}</span>{{ section.title }}</h2>
{% for block in section.blocks %}{{ block }}{% endfor %}
</section>
{% endfor %}
</div>
</main>
<footer>Made by fedsim{% if version %} {{ version }}{% endif %}.
Every figure here is also in results.json, beside this page; report.md is the same document without pictures.</footer>
<script>{{ script }}</script>
</body>
</html>
"""
