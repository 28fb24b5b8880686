"""What the head of every page of ours has, and the colours all of them share.

In:   nothing.
Out:  `HEAD`, HTML up to the title, which forbids a page to load anything; `COLOURS`, CSS, light and dark.
"""

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""
COLOURS = """\
:root {
  --ground: #f6f6f3; --card: #ffffff; --ink: #1d1d1b; --soft: #5c5c57; --edge: #d9d9d3; --track: #e6e6e1;
  --right: #00694a; --wrong: #a8380a; --bar: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #161615; --card: #22221f; --ink: #f0f0ea; --soft: #b0b0a8; --edge: #3a3a36; --track: #3a3a36;
    --right: #5fd3a8; --wrong: #ff9d6b; --bar: #56b4e9;
  }
}
* { box-sizing: border-box; }
"""
