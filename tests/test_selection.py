"""What a user writes becomes exactly that, or an error; never less, and never code."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import pytest

from ipmgan.errors import IpmganError, UsageError
from ipmgan.plugin import option
from ipmgan.registry import registry
from ipmgan.selection import build, fields_of, parse_selection, type_name


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("wgan", {"name": "wgan"}),
        ("  wgan  ", {"name": "wgan"}),
        ("clip:", {"name": "clip"}),
        ("clip:c=0.02", {"name": "clip", "c": 0.02}),
        ("clip: c = 1e-2 ", {"name": "clip", "c": 0.01}),
        (":lr=1e-3", {"lr": 1e-3}),
        ("", {}),
        ("mlp:width=[64,32],norm=layer", {"name": "mlp", "width": [64, 32], "norm": "layer"}),
        ("SGD:lr=1,milestones=[{step=3,lr=0.1}]", {"name": "SGD", "lr": 1, "milestones": [{"step": 3, "lr": 0.1}]}),
        ("x:deep=[[1,2],[3,[4]]],y=2", {"name": "x", "deep": [[1, 2], [3, [4]]], "y": 2}),
        ("x:flag=true,other=false", {"name": "x", "flag": True, "other": False}),
        ("x:a=1,b=-2,c=1_000", {"name": "x", "a": 1, "b": -2, "c": 1000}),
        ('folder:root="/a,b=c",size=64', {"name": "folder", "root": "/a,b=c", "size": 64}),
        ("folder:root='it:s [here',size=64", {"name": "folder", "root": "it:s [here", "size": 64}),
        ('folder:root="it\'s"', {"name": "folder", "root": "it's"}),
        ("folder:root=/data/photos (old),size=64", {"name": "folder", "root": "/data/photos (old)", "size": 64}),
        ("folder:root=/a:b=c", {"name": "folder", "root": "/a:b=c"}),
        ("folder:root=C:\\photos", {"name": "folder", "root": "C:\\photos"}),
        ("x:s=", {"name": "x", "s": ""}),
        ("x:s=os.system", {"name": "x", "s": "os.system"}),
    ],
)
def test_a_selection_is_what_it_says(text: str, table: dict[str, Any]) -> None:
    assert parse_selection(text) == table


@pytest.mark.parametrize("text", ["5 # or less", "0.01#", "1\nc=2", "1 #\n2"])
def test_nothing_behind_a_value_is_dropped(text: str) -> None:
    assert parse_selection(f"x:c={text}") == {"name": "x", "c": text}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clip:c", "'c' is not key=value"),
        ("clip:=3", "'=3' is not key=value"),
        ("clip:c=1,c=2", "c is given twice"),
        ("clip:name=gp", "name is given twice"),
        ("mlp:width=[64,32", "without their partner"),
        ("mlp:width=64],norm=layer", "without their partner"),
        ("folder:root=/it's,size=64", "without their partner"),
        ("x:a={b=1", "without their partner"),
    ],
)
def test_what_is_no_selection_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_selection(text)
    assert caught.value.exit_code == 2
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "os:system",
        "ipmgan.objectives.wgan.WGAN",
        "ipmgan.objectives.wgan:WGAN",
        "__import__('antigravity')",
        "antigravity",
        "this",
        "../wgan",
        "wgan\x00",
        "Wgan",
        "!!python/object:os.system",
    ],
)
@pytest.mark.parametrize("kind", ["objective", "lipschitz", "network", "source", "metric"])
def test_a_name_is_looked_up_and_never_imported(kind: str, name: str) -> None:
    known = registry()
    before = set(sys.modules)
    with pytest.raises(UsageError):
        known.make(kind, name)
    with pytest.raises(UsageError):
        known.make(kind, {"name": name})
    assert set(sys.modules) == before


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, "[" * 900 + "]" * 900, "1e400", "\\", '"'])
def test_monstrous_values_are_refused_and_nothing_worse(value: str) -> None:
    with pytest.raises(IpmganError):
        registry().make("lipschitz", f"clip:c={value}")


@attrs.frozen(kw_only=True)
class Options:
    number: float = option(1.0, help="a number", above=0)
    count: int = option(1, help="a count", at_least=1)
    flag: bool = option(False, help="a switch")
    text: str = option("a", help="a word", choices=("a", "b"))
    numbers: tuple[float, ...] = option((), help="numbers", above=0)
    either: int | tuple[int, ...] = option(1, help="one or more", at_least=1)
    maybe: float | None = option(None, help="a number or nothing")
    free: str = option("", help="any words")


def test_values_keep_their_types() -> None:
    table = {"number": 2, "count": 3, "flag": True, "text": "b", "numbers": [1, 2.5], "either": [4, 5], "maybe": None}
    made = build(Options, table, what="it")
    assert made == Options(number=2.0, count=3, flag=True, text="b", numbers=(1.0, 2.5), either=(4, 5), maybe=None)
    assert type(made.number) is float
    assert [type(item) for item in made.numbers] == [float, float]
    assert build(Options, {"either": 7}, what="it").either == 7
    assert list(fields_of(Options)) == [field.name for field in attrs.fields(Options)]


@pytest.mark.parametrize(
    "table",
    [
        {"number": "2"},
        {"number": True},
        {"number": float("nan")},
        {"number": float("inf")},
        {"number": 0},
        {"number": -1.0},
        {"number": 10**400},
        {"number": [1.0]},
        {"count": 1.0},
        {"count": 0},
        {"count": False},
        {"count": "1"},
        {"flag": 1},
        {"flag": "true"},
        {"text": "c"},
        {"text": 1},
        {"numbers": 1.0},
        {"numbers": "12"},
        {"numbers": [1.0, "2"]},
        {"numbers": [1.0, -2.0]},
        {"numbers": [10**400]},
        {"either": "1"},
        {"either": [1, 0]},
        {"either": 1.5},
        {"either": None},
        {"maybe": "x"},
        {"free": 3},
        {"free": None},
    ],
)
def test_wrong_values_are_refused_by_name(table: dict[str, Any]) -> None:
    (key,) = table
    with pytest.raises(UsageError, match=rf"(?s)it: .*{key}.*|no {key} ") as caught:
        build(Options, table, what="it")
    assert caught.value.exit_code == 2


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no option of it named 'numbr': did you mean 'number'"):
        build(Options, {"numbr": 2.0}, what="it")


def test_types_are_written_as_users_know_them() -> None:
    assert type_name(float) == "float"
    assert type_name(int | tuple[int, ...]) == "a list of int or int"
    assert type_name(float | None) == "float, or nothing"
