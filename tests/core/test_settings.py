import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits


@dataclass(frozen=True, kw_only=True)
class Example:
    share: Annotated[float, {"min": 0.0, "max": 1.0}] = 0.5
    depth_um: Annotated[float | None, {"min": 0.0, "unit": "um"}] = None
    count: Annotated[int, {"max": 9}, {"label": "Count"}] = 3
    free: float = 0.0
    mode: Literal["a", "b"] = "a"
    position: tuple[int, int, int] | None = (1, 2, 3)

    def __post_init__(self) -> None:
        check_limits(self)


@pytest.mark.parametrize(
    "values",
    [{"share": 0.0}, {"share": 1}, {"depth_um": 0.0}, {"count": -(10**9)}, {"free": float("nan")}],
)
def test_limits_belong_to_what_is_allowed(values):
    (name,) = values
    assert getattr(Example(**values), name) is values[name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.01}, r"`share`.*1\.01.*0\.0.*1\.0"),
        ({"share": float("nan")}, r"`share`.*nan"),
        ({"depth_um": -1.0}, r"`depth_um`.*-1\.0 um.*0\.0 um"),
        ({"count": 10}, r"`count`.*10.*9"),
        ({"share": np.float32(2)}, r"`share`.*2\.0"),
        ({"count": np.int64(10)}, r"`count`.*10"),
    ],
)
def test_what_is_outside_is_named_with_its_limit_and_unit(values, message):
    with pytest.raises(RlnError, match=message):
        Example(**values)


def test_limits_are_inherited():
    @dataclass(frozen=True, kw_only=True)
    class Special(Example):
        extra: int = 0

    with pytest.raises(RlnError, match=r"`share`.*2"):
        Special(share=2)


def test_a_dictionary_survives_json():
    held = as_dict(Example())
    assert json.loads(json.dumps(held)) == held
    assert held["position"] == [1, 2, 3]
    assert held["depth_um"] is None
