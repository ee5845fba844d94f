"""The tables of states: every step that is not in them is impossible, and every state has a way out or is an end."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import product

import pytest

from modelyard.domain.states import (
    BUILD_STEPS,
    INSTANCE_STEPS,
    VERSION_STEPS,
    BuildState,
    ImpossibleStepError,
    InstanceState,
    VersionState,
    step,
)

Table = Mapping[StrEnum, frozenset[StrEnum]]
TABLES = [pytest.param(VersionState, VERSION_STEPS, id="version"), pytest.param(BuildState, BUILD_STEPS, id="build")]
TABLES += [pytest.param(InstanceState, INSTANCE_STEPS, id="instance")]


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_a_step_is_taken_if_and_only_if_the_table_has_it(states: type[StrEnum], table: Table) -> None:
    for current, to in product(states, states):
        if to in table[current]:
            assert step(table, current, to) is to
        else:
            with pytest.raises(ImpossibleStepError, match=f"{current} cannot become {to}"):
                step(table, current, to)


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_every_state_can_be_reached_from_the_first(states: type[StrEnum], table: Table) -> None:
    first = next(iter(states))
    reached, new = {first}, {first}
    while new:
        new = {to for state in new for to in table[state]} - reached
        reached |= new

    assert reached == set(states)


def test_the_ends_are_ends() -> None:
    assert [state for state in VersionState if not VERSION_STEPS[state]] == [VersionState.DELETED]
    assert [state for state in BuildState if not BUILD_STEPS[state]] == [BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED]
    assert [state for state in InstanceState if not INSTANCE_STEPS[state]] == []


def test_nothing_deleted_comes_back_and_only_a_build_makes_ready() -> None:
    assert [state for state in VersionState if VersionState.READY in VERSION_STEPS[state]] == [VersionState.BUILDING]
    assert VERSION_STEPS[VersionState.DELETING] == {VersionState.DELETED}
