"""Which rows are read of a tree of questions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.exllama.tree_paths import paths_of
from el4ner.engines.packing import ROOT, TokenQuestion, plant

tokens = st.lists(st.integers(1, 4), max_size=6).map(tuple)
questions = st.lists(
    st.builds(TokenQuestion, tokens, st.lists(tokens, max_size=4).map(tuple)),
    max_size=6,
)


@given(questions=questions, long=st.booleans())
def test_every_target_is_read_where_its_path_leads(questions: list[TokenQuestion], long: bool) -> None:
    if long:
        questions = [TokenQuestion((9,) * (2 * PAGE) + one.tail, one.candidates) for one in questions]
    prefix = (7, 8)
    trees, planted = plant(questions, 1 << 30)
    tree = trees[0]
    targets = sorted({target for one in planted for candidate in one.targets for target in candidate})
    found = {}
    for path in paths_of(prefix, tree, targets):
        assert len(path.tokens) < PAGE
        for place, target in zip(path.places, path.targets, strict=True):
            assert target not in found, "once"
            found[target] = (*path.prefix, *path.tokens[:place])
    assert sorted(found) == targets
    for node, token in targets:
        expected = []
        at = node
        while at != ROOT:
            expected.append(tree.tokens[at])
            at = tree.parents[at]
        assert found[node, token] == (*prefix, *reversed(expected))


def test_what_nobody_asks_is_not_read() -> None:
    trees, planted = plant([TokenQuestion((1, 2, 3), ((4,), (5,)))], 100)
    targets = sorted({target for candidate in planted[0].targets for target in candidate})
    (path,) = paths_of((0,), trees[0], targets)
    assert path.tokens == (1, 2, 3)
    assert path.places == (3, 3)
