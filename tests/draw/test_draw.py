"""Pictures of graphs and the report: what boxes there are, where they lie, that they open."""

from __future__ import annotations

import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from netdsl import lang
from netdsl.cost import Cost, count
from netdsl.draw.fold import Folded, fold
from netdsl.faults import NetError
from netdsl.find import graph_of

pytest.importorskip("grandalf")

from netdsl.draw import draw, save
from netdsl.draw.layout import Drawing, lay_out

SVG = "{http://www.w3.org/2000/svg}"


def zoo(name: str) -> Cost:
    return count(graph_of(name))


def keys(folded: Folded) -> list[str]:
    return [box.key for box in folded.boxes]


def test_blocks_are_folded_and_followers_are_lines_of_a_box() -> None:
    folded = fold(zoo("googlenet"))
    assert "inception3a" in keys(folded)
    assert not [key for key in keys(folded) if key.startswith("inception3a.")]
    first = next(box for box in folded.boxes if box.key == "conv1")
    assert first.words == ("conv7x7s2p3(64)", "relu")
    pool = next(box for box in folded.boxes if box.key == "maxpool1")
    assert pool.words == ("maxpool3s2ceil", "lrn5(k=1)")


def test_no_cost_is_lost_in_folding() -> None:
    for name in ("googlenet", "resnet50", "unet", "densenet121", "mobilenet_v2"):
        cost = zoo(name)
        heads = sum(head.macs for head in cost.aux)
        for opened in (frozenset(), frozenset(cost.graph.blocks)):
            boxes = fold(cost, opened).boxes
            assert sum(box.macs for box in boxes) == cost.macs + heads
            assert len({node for box in boxes for node in box.nodes}) == len(cost.graph)


def test_repeats_are_one_box() -> None:
    titles = [box.title for box in fold(zoo("resnet50")).boxes]
    assert "block3 … block5  x3" in titles
    labelled = count(lang.load("def b = conv3p1(4); input 4x8x8; b as one -> b as two"))
    assert len(fold(labelled).boxes) == 3


def test_arrows_follow_the_graph() -> None:
    folded = fold(zoo("unet"))
    assert ("enc1", "concat4") in folded.arrows
    assert all(a in keys(folded) and b in keys(folded) for a, b in folded.arrows)


def overlaps(drawing: Drawing) -> list[tuple[str, str]]:
    return [
        (a.box.key, b.box.key)
        for a, b in combinations(drawing.boxes, 2)
        if a.left < b.left + b.width
        and b.left < a.left + a.width
        and a.top < b.top + b.height
        and b.top < a.top + a.height
    ]


@pytest.mark.parametrize("name", ["googlenet", "unet", "resnet50", "vgg16", "densenet121"])
def test_boxes_do_not_overlap_and_lie_in_the_frame(name: str) -> None:
    cost = zoo(name)
    for opened in (frozenset(), frozenset(cost.graph.blocks)):
        folded = fold(cost, opened)
        if len(folded.boxes) > 150:
            continue
        drawing = lay_out(folded)
        assert len(drawing.boxes) == len(folded.boxes)
        assert overlaps(drawing) == []
        for placed in drawing.boxes:
            assert placed.left >= -0.01
            assert placed.left + placed.width <= drawing.width + 0.01
            assert placed.top + placed.height <= drawing.height + 0.01


def test_branches_lie_side_by_side() -> None:
    folded = fold(zoo("googlenet"), within="inception3a")
    places = {placed.box.title: placed for placed in lay_out(folded).boxes}
    tops = [places[name] for name in ("conv1", "conv2", "conv4", "maxpool1")]
    assert len({placed.top + placed.height / 2 for placed in tops}) == 1
    assert len({placed.left for placed in tops}) == 4


def test_arrows_cross_no_box() -> None:
    drawing = lay_out(fold(zoo("googlenet"), within="inception3a"))
    for arrow in drawing.arrows:
        for (x, y), (a, b) in zip(arrow.points, arrow.points[1:], strict=False):
            if x != a or y == b:
                continue  # a bend, between two layers
            inside = [
                p.box.key
                for p in drawing.boxes
                if p.left < x < p.left + p.width and max(y, p.top) < min(b, p.top + p.height) - 0.01
            ]
            assert inside == []


def test_a_long_chain_is_cut_into_columns() -> None:
    drawing = lay_out(fold(zoo("vgg16")))
    assert len({round(placed.middle) for placed in drawing.boxes}) == 3
    assert drawing.height < 1400


def test_svg_shows_shapes_and_costs(tmp_path: Path) -> None:
    file = tmp_path / "net.svg"
    save(zoo("googlenet"), file)
    root = ElementTree.parse(file).getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for wanted in (
        "inception3a",
        "256x28x28",
        "163.70 k params, 128.05 M MACs",
        "inside inception3a",
    ):
        assert wanted in texts


def test_names_are_escaped(tmp_path: Path) -> None:
    cost = count(lang.load("input 3x8x8; [conv1x1(2) | relu] -> conv3x3p1(2)"))
    file = tmp_path / "net.svg"
    save(cost, file)
    assert "|" in "".join(ElementTree.parse(file).getroot().itertext())


def test_png_is_drawn_at_twice_the_size(tmp_path: Path) -> None:
    file = tmp_path / "net.png"
    cost = zoo("lenet5")
    save(cost, file)
    scene = draw(cost)
    with Image.open(file) as image:
        assert image.size == (round(scene.width * 2), round(scene.height * 2))


def test_opened_blocks_show_their_insides() -> None:
    cost = zoo("googlenet")
    folded = fold(cost, frozenset({"inception3a"}))
    assert "inception3a.conv1" in keys(folded)
    assert "inception3b" in keys(folded)
    with pytest.raises(NetError, match="did you mean"):
        draw(cost, frozenset({"inception3"}))


def test_a_net_of_nothing_much_can_be_drawn() -> None:
    for text in ("input 3x8x8; relu", "input 784; fc(10)", "input 3x4 as a; input 3x4 as b; [a+b]"):
        made = draw(count(lang.load(text)))
        assert made.width > 0


# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


def browse(page: Path, script: str = "") -> str:
    """The page's document after its scripts have run (and `script`, put at the end of it)."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    if script:
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={page.parent / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.fixture
def report(tmp_path: Path) -> Path:
    pytest.importorskip("matplotlib")
    from netdsl.draw.report import save_report

    file = tmp_path / "report.html"
    save_report(zoo("lenet5"), file)
    return file


def test_the_report_needs_nothing_from_elsewhere(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    for outside in ("src=", "@import", "url(http", 'rel="stylesheet"'):
        assert outside not in text
    for wanted in ("6,522,000", "Layer by layer", "torchinfo", "conv5x5p2(20)", "<svg"):
        assert wanted in text


def test_the_reports_table_sorts_in_a_browser(report: Path) -> None:
    script = """
      const table = document.querySelector("table.sortable");
      const column = [...table.tHead.rows[0].cells].findIndex(c => c.textContent === "MACs");
      table.tHead.rows[0].cells[column].querySelector("button").click();
      const names = [...table.tBodies[0].rows].slice(0, 2).map(r => r.cells[0].textContent);
      document.title = "sorted " + names.join(" ");
    """
    assert "<title>sorted conv2 fc1</title>" in browse(report, script)


def test_the_pictures_page_fits_in_a_browser(tmp_path: Path) -> None:
    file = tmp_path / "net.html"
    save(zoo("lenet5"), file)
    found = browse(file)
    assert "scale(1)" in found
    assert "conv5x5p2(20)" in found
