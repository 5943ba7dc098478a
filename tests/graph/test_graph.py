"""The graph's own questions: who reads whom, what the outputs need, what a head owns."""

from netdsl.graph import Aux, Graph, Node
from netdsl.ops import Add, Conv, Input, Linear, Relu, Window

SHAPE = (4, 8, 8)
KEEP = Conv(4, Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)))


def graph() -> Graph:
    """x -> conv1 -> relu1, x + relu1 -> add1, an auxiliary head on relu1, a node nobody needs."""
    nodes = (
        Node("x", Input(SHAPE), (), SHAPE),
        Node("conv1", KEEP, ("x",), SHAPE),
        Node("relu1", Relu(), ("conv1",), SHAPE),
        Node("aux1.fc1", Linear(10), ("relu1",), (10,)),
        Node("add1", Add(), ("relu1", "x"), SHAPE),
        Node("relu2", Relu(), ("conv1",), SHAPE),
    )
    return Graph("g", nodes, ("x",), ("add1",), (Aux("aux1", 0.3, "aux1.fc1"),))


def test_consumers_count_every_use() -> None:
    assert graph().consumers["conv1"] == ("relu1", "relu2")
    assert graph().consumers["x"] == ("conv1", "add1")
    assert graph().consumers["add1"] == ()


def test_parameters_have_full_names_in_graph_order() -> None:
    found = graph().all_parameters()
    assert list(found) == ["conv1.weight", "conv1.bias", "aux1.fc1.weight", "aux1.fc1.bias"]
    assert found["aux1.fc1.weight"].shape == (10, 256)


def test_the_main_net_leaves_heads_and_dead_ends_out() -> None:
    g = graph()
    assert [node.name for node in g.without_aux()] == ["x", "conv1", "relu1", "add1"]
    assert [node.name for node in g.head_nodes(g.aux[0])] == ["aux1.fc1"]
    assert g.without_aux().aux == ()


def test_an_unread_input_stays() -> None:
    nodes = (*graph().nodes, Node("y", Input((3,)), (), (3,)))
    g = Graph("g", nodes, ("x", "y"), ("add1",))
    assert "y" in g.without_aux()


def test_scope_is_the_dotted_part() -> None:
    assert graph()["aux1.fc1"].scope == "aux1"
    assert graph()["conv1"].scope == ""
