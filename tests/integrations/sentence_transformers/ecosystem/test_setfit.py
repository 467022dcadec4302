"""SetFit trains and predicts with a head of scikit-learn on a bundle as its body."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("setfit")

from setfit import SetFitModel
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.integrations.sentence_transformers.conftest import Both

TEXTS = [f"{words} {number}" for number in range(9) for words in ("my card is lost", "change the pin", "hello")]
LABELS = ["card", "pin", "hello"] * 9
OTHERS = ["card lost", "the pin", "hello hello", "play"]


def probabilities(body: Any) -> Any:
    model = SetFitModel(model_body=body, model_head=LogisticRegression(), labels=["card", "pin", "hello"])
    model.fit(TEXTS, LABELS, num_epochs=1)
    return model.predict(OTHERS), np.asarray(model.predict_proba(OTHERS))


def test_setfit_with_a_head_of_scikit_learn(both: Both) -> None:
    labels, scores = probabilities(both.ours)
    expected, expected_scores = probabilities(both.theirs)
    assert list(labels) == list(expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-3)


def test_a_pipeline_of_scikit_learn(both: Both) -> None:
    def predictions(model: Any) -> Any:
        return make_pipeline(FunctionTransformer(model.encode), LogisticRegression()).fit(TEXTS, LABELS).predict(OTHERS)

    assert predictions(both.ours).tolist() == predictions(both.theirs).tolist()
