"""Plans fit into their time, use what there is of it, and grow with it."""

import math

from hypothesis import given
from hypothesis import strategies as st

from relish.training.budget import FEWEST, folds_for, framed_on, plan_fine_tuning, plan_probe, rates_for

pictures = st.integers(4, 100_000)
seconds_each = st.floats(1e-4, 0.2)
budgets = st.floats(60, 7200)


SIDES = [224, 192, 160, 128, 96]


def lower(count, budget, forward=0.01, judged=100, classes=2, solving=1e-4, reading=0.0):
    each = {side: reading + forward * (side / SIDES[0]) ** 2 for side in SIDES}
    return plan_probe(
        images=count, evaluated=judged, classes=classes, forward=each, solving=solving, budget=budget
    )  # fmt: skip


@given(pictures, seconds_each, budgets)
def test_the_lower_plan_fits_into_its_share_or_is_the_smallest_there_is(count, forward, budget):
    plan = lower(count, budget, forward)
    smallest = plan.images <= FEWEST * 2 and plan.image_size == 96
    assert plan.seconds <= 0.7 * budget or (smallest and not plan.framings and plan.views == 1)
    assert 0 < plan.images <= count


@given(pictures, seconds_each)
def test_without_a_budget_nothing_is_left_out(count, forward):
    plan = lower(count, math.inf, forward)
    assert (plan.images, plan.image_size, plan.framings) == (count, 224, True)


@given(pictures, seconds_each, budgets, st.floats(1, 10))
def test_more_time_never_means_fewer_or_smaller_pictures(count, forward, budget, times):
    short, long = lower(count, budget, forward), lower(count, budget * times, forward)
    assert (long.image_size, long.images) >= (short.image_size, short.images) or long.image_size > short.image_size


def upper(count, left, step=0.04, forward=0.01, epochs=None, half=0.7, classes=2, held=None, folds=None):
    held = count // 5 if held is None else held
    folds = folds_for(count) if folds is None else folds
    return plan_fine_tuning(
        images=count, evaluated=100, classes=classes, folds=folds, held_alone=held, rates=rates_for(count),
        batch_size=32, epochs=epochs, forward=forward, step=step, half_step=half and half * step, left=left,
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
    plan = plan_probe(images=10**5, evaluated=100, classes=2, forward={224: 0.1}, solving=0.0, budget=60)
    assert plan.image_size == 224


def test_what_takes_long_to_read_is_not_made_faster_by_a_smaller_square():
    """A telephone's pictures: 130 ms to read, 20 through the network."""
    plan = lower(1000, 60, forward=0.02, judged=50, reading=0.13)
    assert plan.images * 0.13 + 50 * 0.13 < 60
    assert plan.image_size == 224  # a smaller square would not buy many more of them
    assert lower(10_000, 60, forward=0.15, judged=50).image_size == 96


def test_framings_are_compared_on_enough_pictures_of_each_class_to_hold_some_out():
    assert [framed_on(*case) for case in ((500, 2), (5000, 2), (50_000, 1000), (3000, 1000))] == [500, 1000, 5000, 3000]


def test_a_validation_split_of_ones_own_is_what_the_plan_counts_with():
    """Half of the pictures held out: half as many to learn from means more epochs, and as many steps."""
    assert [upper(1500, math.inf, held=held, folds=1).epochs for held in (750, 75)] == [6, 3]


def test_many_pictures_to_judge_do_not_leave_the_learning_without_time():
    assert lower(2000, 60, judged=50_000).images > 500
