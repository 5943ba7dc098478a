"""What is known of the processor."""

from __future__ import annotations

import pytest

from netdsl.cpu import processor


@pytest.mark.parametrize(
    ("text", "found"),
    [("1024K\n", 1 << 20), ("512K", 512 << 10), ("0K", processor.USUAL), ("?", processor.USUAL)],
)
def test_the_second_level_is_as_large_as_the_system_says(monkeypatch, tmp_path, text, found):
    (tmp_path / "size").write_text(text)
    monkeypatch.setattr(processor, "LEVEL", tmp_path / "size")
    assert processor.second_level.__wrapped__() == found


def test_where_the_system_does_not_say_it_is_the_usual_size(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "LEVEL", tmp_path / "size")
    assert processor.second_level.__wrapped__() == processor.USUAL
