"""A picture as one HTML page: drag to move, the wheel to zoom, a double click to fit."""

from __future__ import annotations

from html import escape

STYLE = """
html, body { margin: 0; height: 100%; background: #fff; }
#view { width: 100vw; height: 100vh; overflow: hidden; cursor: grab; touch-action: none; }
#view:active { cursor: grabbing; }
#view svg { transform-origin: 0 0; }
"""

SCRIPT = """
const view = document.getElementById("view"), svg = view.querySelector("svg");
const width = +svg.getAttribute("width"), height = +svg.getAttribute("height");
let x = 0, y = 0, scale = 1, from = null;
const place = () => { svg.style.transform = `translate(${x}px, ${y}px) scale(${scale})`; };
const fit = () => {
  scale = Math.min(1, view.clientWidth / width);
  x = (view.clientWidth - width * scale) / 2; y = 0; place();
};
view.addEventListener("wheel", event => {
  event.preventDefault();
  const factor = Math.exp(-event.deltaY / 500), next = Math.min(Math.max(scale * factor, 0.05), 8);
  x = event.clientX - (event.clientX - x) * next / scale;
  y = event.clientY - (event.clientY - y) * next / scale;
  scale = next; place();
}, { passive: false });
view.addEventListener("pointerdown", event => {
  from = [event.clientX - x, event.clientY - y]; view.setPointerCapture(event.pointerId);
});
view.addEventListener("pointermove", event => {
  if (from) { x = event.clientX - from[0]; y = event.clientY - from[1]; place(); }
});
view.addEventListener("pointerup", () => { from = null; });
view.addEventListener("dblclick", fit);
addEventListener("resize", fit);
fit();
"""


def as_page(title: str, svg: str) -> str:
    """A self-contained page around an SVG picture."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<div id="view">{svg}</div>\n<script>{SCRIPT}</script>\n</body>\n</html>\n'
    )
