"""The figures of a run as sentences: what is not known is not said."""

from relish.reporting.run_page import calibration_sentences, decision_sentences, figure_rows


def test_a_run_without_a_temperature_is_told_of_none():
    """Its figures before and after are the same ones."""
    same = {"log_loss": 0.5, "brier": 0.2, "ece": 0.05}
    evaluation = {**same, "classes": ["a", "b"], "before_temperature": same, "decision": {"fitted_on": 0}}
    assert "temperature" not in calibration_sentences(evaluation)
    assert [interval for _, _, interval, _ in figure_rows(evaluation)] == ["", "", ""]


def test_a_model_that_is_unsure_of_everything_is_reported_on_too():
    nothing = {"count": 0, "of": 12, "correct": 0, "accuracy": None, "interval": None}
    told = decision_sentences({"decision": {"unsure_below": 0.99}, "answered": nothing})
    assert told[-1] == "So it answers none of 12 pictures."
