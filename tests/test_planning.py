"""Plans fit into their time, use what there is of it, and grow with it."""

import math

from hypothesis import given
from hypothesis import strategies as st

from relish.training.planning import FEWEST, plan_fine_tuning, plan_probe
from relish.training.rules import folds_for, rates_for

pictures = st.integers(4, 100_000)
seconds_each = st.floats(1e-4, 0.2)
budgets = st.floats(60, 7200)


SIDES = [224, 192, 160, 128, 96]


def lower(count, budget, forward=0.01, judged=100, classes=2, solving=1e-4):
    return plan_probe(
        pictures=count, judged=judged, classes=classes, sizes=SIDES, forward=forward, solving=solving, budget=budget
    )


@given(pictures, seconds_each, budgets)
def test_the_lower_plan_fits_into_its_share_or_is_the_smallest_there_is(count, forward, budget):
    plan = lower(count, budget, forward)
    smallest = plan.pictures <= FEWEST * 2 and plan.image_size == 96
    assert plan.seconds <= 0.7 * budget or (smallest and not plan.framings and plan.views == 1)
    assert 0 < plan.pictures <= count


@given(pictures, seconds_each)
def test_without_a_budget_nothing_is_left_out(count, forward):
    plan = lower(count, math.inf, forward)
    assert (plan.pictures, plan.image_size, plan.framings) == (count, 224, True)


@given(pictures, seconds_each, budgets, st.floats(1, 10))
def test_more_time_never_means_fewer_or_smaller_pictures(count, forward, budget, times):
    short, long = lower(count, budget, forward), lower(count, budget * times, forward)
    assert (long.image_size, long.pictures) >= (short.image_size, short.pictures) or long.image_size > short.image_size


def upper(count, left, step=0.04, forward=0.01, epochs=None, half=0.7, classes=2):
    return plan_fine_tuning(
        pictures=count, judged=100, classes=classes, folds=folds_for(count), rates=rates_for(count),
        batch_size=32, epochs=epochs, shares=5,
        forward=forward, step=step, half_step=half and half * step, left=left,
    )  # fmt: skip


@given(pictures, seconds_each, st.floats(-10, 7200), st.none() | st.integers(0, 20))
def test_the_upper_plan_fits_into_what_is_left(count, step, left, epochs):
    plan = upper(count, left, step, step / 3, epochs)
    assert plan.folds == 0 or plan.seconds <= left + 1e-6
    assert (plan.folds == 0) == (plan.epochs == 0)


@given(pictures, seconds_each, st.floats(0, 7200), st.floats(1, 10))
def test_more_time_never_means_less_learning(count, step, left, times):
    short, long = upper(count, left, step), upper(count, left * times, step)
    assert learning(long) >= learning(short)


def learning(plan):
    """How much a plan has learned: first more models, then more rates, more layers, more epochs."""
    return plan.folds, plan.rates, not plan.half_still, plan.epochs


def test_where_time_is_short_layers_stand_still_before_a_model_is_left_out():
    whole = upper(2000, math.inf)
    tight = next(plan for left in range(5, 2000) if (plan := upper(2000, left)).folds == whole.folds)
    assert tight.half_still
    assert not upper(2000, whole.seconds).half_still
    assert upper(2000, tight.seconds, half=None).folds < whole.folds


def test_epochs_that_are_asked_for_are_done_where_there_is_time():
    assert upper(2000, math.inf, epochs=7).epochs == 7
    assert upper(5000, math.inf).folds == 1
    assert upper(300, math.inf).folds > 1


def test_many_classes_take_more_epochs_than_few_with_as_many_pictures():
    assert [upper(2700, math.inf, classes=count).epochs for count in (2, 15, 40, 1000)] == [3, 3, 7, 10]


def test_a_network_of_one_size_is_never_given_another():
    plan = plan_probe(pictures=10**5, judged=100, classes=2, sizes=[224], forward=0.1, solving=0.0, budget=60)
    assert plan.image_size == 224


def test_many_pictures_to_judge_do_not_leave_the_learning_without_time():
    assert lower(2000, 60, judged=50_000).pictures > 500
