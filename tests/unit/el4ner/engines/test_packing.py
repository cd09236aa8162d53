from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from el4ner.engines.packing import ROOT, TokenQuestion, TokenTree, plant

Tokens = st.lists(st.integers(0, 3), max_size=5).map(tuple)
Questions = st.lists(
    st.builds(TokenQuestion, tail=Tokens, candidates=st.lists(Tokens, max_size=4).map(tuple)), max_size=5
)


def path_to(tree: TokenTree, node: int) -> tuple[int, ...]:
    path: tuple[int, ...] = ()
    while node != ROOT:
        path = (tree.tokens[node], *path)
        node = tree.parents[node]
    return path


def test_what_begins_alike_is_one_node() -> None:
    tree = TokenTree()
    first, second = tree.add((1, 2, 3)), tree.add((1, 2, 4))
    assert (tree.tokens, tree.parents, tree.depths) == ([1, 2, 3, 4], [ROOT, 0, 1, 1], [1, 2, 3, 3])
    assert (first, second) == (2, 3)
    assert tree.add(()) == ROOT
    assert (tree.missing((1, 2, 4)), tree.missing((1, 5, 4))) == (0, 2)


def test_a_node_sees_its_ancestors_and_itself() -> None:
    tree = TokenTree()
    tree.add((1, 2))
    tree.add((1, 3))
    assert tree.sees().tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_candidates_of_one_token_add_no_node() -> None:
    (tree,), (planted,) = plant([TokenQuestion((7, 8), ((1,), (2,), (3,)))], 100)
    assert len(tree) == 2
    assert planted.targets == (((1, 1),), ((1, 2),), ((1, 3),))


@given(Questions, st.integers(1, 20))
def test_every_token_of_a_candidate_is_asked_behind_what_comes_before_it(
    questions: list[TokenQuestion], max_nodes: int
) -> None:
    trees, planted = plant(questions, max_nodes)
    assert len(planted) == len(questions)
    for question, found in zip(questions, planted, strict=True):
        tree = trees[found.tree]
        for candidate, targets in zip(question.candidates, found.targets, strict=True):
            assert [token for _, token in targets] == list(candidate)
            for index, (node, _) in enumerate(targets):
                assert path_to(tree, node) == question.tail + candidate[:index]


@given(Questions, st.integers(1, 20))
def test_a_tree_is_no_larger_than_asked_or_than_its_largest_question(
    questions: list[TokenQuestion], max_nodes: int
) -> None:
    alone = [len(plant([question], 1)[0][0]) for question in questions]
    for tree in plant(questions, max_nodes)[0]:
        assert len(tree) <= max([max_nodes, *alone])
        assert np.array_equal(tree.sees().sum(axis=1), np.array(tree.depths, dtype=int))
