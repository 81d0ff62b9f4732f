"""docs/gke.yaml has the form that Kubernetes takes, and does what its comments say."""

import pathlib
import re

import pytest
import yaml

from mia_jax.runtime import jobs

PATH = pathlib.Path(__file__).parents[2] / "docs" / "gke.yaml"


def test_the_job_has_the_form_of_kubernetes():
    validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate, or mia_jax[test]"
    )
    job = yaml.safe_load(PATH.read_text())
    validate.validate(job, "1.33", strict=True)
    job["spec"]["completionMod"] = "Indexed"
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.33", strict=True)


def test_every_share_has_a_pod_and_a_paused_pod_is_no_failure():
    job = yaml.safe_load(PATH.read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (text,) = pod["containers"][0]["args"]
    assert re.search(rf"--task=\$JOB_COMPLETION_INDEX/{spec['completions']}\b", text)
    assert spec["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    rules = spec["podFailurePolicy"]["rules"]
    assert rules[0] == dict(action="Ignore", onExitCodes=dict(operator="In", values=[jobs.PAUSED]))
    assert pod["terminationGracePeriodSeconds"] > jobs.GRACE
