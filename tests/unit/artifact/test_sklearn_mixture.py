from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import releases

from dpgmm_dist import load_release
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affine import Transform

pytest.importorskip("sklearn")

SCALED = Transform(center=np.array([1.0, 2, 3]), half_width=np.array([1.0, 10, 100]))


@pytest.mark.parametrize("transform", [releases.projection(), SCALED], ids=["projected", "table"])
def test_densities_are_those_of_the_release(transform: Transform, tmp_path: Path) -> None:
    mixture = releases.mixture_of(p=transform.latent_dimension)
    releases.write(tmp_path / "r", mixture=mixture, transform=transform)
    release = load_release(str(tmp_path / "r"))
    rows, _ = release.sample(200, seed=0)
    model = release.to_sklearn()
    np.testing.assert_allclose(
        model.score_samples(rows), release.score_samples(rows), rtol=1e-6, atol=1e-6
    )
    latent = release.transform.to_latent(rows)
    inside = release.to_sklearn(space="latent")
    np.testing.assert_allclose(inside.score_samples(latent), release.mixture.log_prob(latent))
    np.testing.assert_allclose(
        inside.predict_proba(latent), release.mixture.responsibilities(latent), atol=1e-9
    )


def test_the_model_can_be_sampled_cloned_and_fitted_again(tmp_path: Path) -> None:
    from sklearn.base import clone

    releases.write(tmp_path / "r")
    release = load_release(str(tmp_path / "r"))
    model = release.to_sklearn()
    model.random_state = 0
    drawn, component = model.sample(4000)
    assert component.max() == 3
    expected = release.mixture.weights @ release.mixture.means
    assert np.abs(drawn.mean(axis=0) - expected).max() < 0.1
    # The fit of a clone starts from the release.
    refitted = clone(model).set_params(max_iter=1, n_init=1)
    with pytest.warns(UserWarning, match="did not converge"):
        refitted.fit(drawn)
    assert np.abs(refitted.means_ - model.means_).max() < 0.5


def test_without_scikit_learn_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases.write(tmp_path / "r")
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(SpecError, match=r"dpgmm-dist\[sklearn\]"):
        load_release(str(tmp_path / "r")).to_sklearn()
