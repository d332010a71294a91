"""One node: who is named on both sides, and that the total is the load's, for every way in which frames reach a pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.topologies.stage import PORT, counted, load, made_of, serving, told

COUNT = 20


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_two_pods_of_a_node(tmp_path: Path, is_bridged: bool) -> None:
    """CLIENT at the asker, SERVER at the answerer, each exactly as often as was asked."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched() as (watching,):
            load(front.command(), f"http://{back.address}:{PORT}/two", COUNT)
            assert watching.running.stop() == 0

    assert told(watching, "/two") == {("C", front.uid): COUNT, ("S", back.uid): COUNT}
    assert counted(watching) == {("C", front.uid): COUNT, ("S", back.uid): COUNT}
