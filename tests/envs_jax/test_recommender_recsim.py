"""RecSim itself, step by step, against the NumPy model of the recommender; skipped where RecSim is not installed.

Needs no JAX: ``pip install recsim-no-tf==0.2.3 gym==0.26.2 gin-config absl-py six scipy pytest`` in an environment of
its own, then ``pytest --noconftest -o addopts= -o filterwarnings= tests/envs_jax/test_recommender_recsim.py``. RecSim
draws clicks and moves from NumPy's global generator, so they are read off its answer and fed to the model.
"""

import numpy as np
import pytest
from scipy.special import ndtr

from benchmarks.numpy_models.recommender import LoopModel

interest_evolution = pytest.importorskip("recsim.environments.interest_evolution")
G, M, K = 20, 10, 3


def published(interests):
    """The constants of RecSim's user sampler, by the names of RecommenderParams."""
    return {
        "minutes": 4.0,
        "skip": 0.5,
        "bonus": 0.9 / 3.4,
        "quality_sd": 0.1,
        "no_click": 1.0,
        "logit": 0.0,
        "interest_spread": 0.0,
        "budget": 200.0,
        "topic_quality": np.concatenate([np.linspace(-3, 0, 14), np.linspace(0, 3, 6)]),
        "interests": interests,
        "sharpness": 1.0,
        "interest_step": 0.3,
    }


@pytest.mark.parametrize("seed", range(5))
def test_choice_probabilities_budget_and_interests_are_those_of_recsim(seed):
    np.random.seed(seed)  # noqa: NPY002 - RecSim draws from the global generator
    rng = np.random.default_rng(seed)
    config = {"slate_size": K, "seed": seed, "num_candidates": M, "resample_documents": True}
    world = interest_evolution.create_environment(config)
    seen = world.reset()
    user = world.environment.user_model
    interests = user._user_state.user_interests.copy()
    model = LoopModel(published(interests), 400, M, K)
    model.reset(np.full(M + G, 0.5))
    steps, clicks = 0, 0
    while not user.is_terminal():
        features = list(seen["doc"].values())
        model.candidates = [int(f.argmax()) for f in features]
        slate = sorted(rng.permutation(M)[:K], key=lambda i: model.candidates[i])  # the model clicks by topic
        topics = [model.candidates[i] for i in slate]
        state, choice = user._user_state, user.choice_model
        choice.score_documents(state, [features[i] for i in slate])
        scores = np.append(choice.scores, choice.score_no_click)
        weights = np.array([*(model.weight(topic) for topic in topics), 2.0])
        np.testing.assert_allclose(weights / weights.sum(), scores / scores.sum(), rtol=1e-12)
        before = state.user_interests.copy()
        seen, reward, *_ = world.step(np.array(slate))
        answers = [r["click"] for r in seen["response"]]
        uniforms = np.full(M + 3, 0.5)
        if any(answers):
            place = answers.index(1)
            quality = float(seen["response"][place]["quality"])
            up = state.user_interests[topics[place]] > before[topics[place]]
            bounds = np.append(0, np.cumsum(weights)) / weights.sum()
            # Uniforms in float64: the normal quantile must give RecSim's quality back.
            luck = ndtr((quality - model.topic_quality[topics[place]]) / 0.1)
            uniforms[M:] = bounds[place : place + 2].mean(), luck, 0.0 if up else 1.0
        else:
            uniforms[M] = 1.0 - 1e-9
        for topic in topics:
            paid, info = model.step(topic, uniforms)
        np.testing.assert_allclose(paid, reward, rtol=1e-9)
        assert info["click"] == sum(answers)
        np.testing.assert_allclose(model.u, state.user_interests, atol=1e-9)
        np.testing.assert_allclose(model.budget, state.time_budget, rtol=1e-7, atol=1e-7)
        assert model.here != user.is_terminal()
        steps, clicks = steps + 1, clicks + any(answers)
    assert steps > 20
    assert clicks > 10
