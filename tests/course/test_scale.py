"""The record and the processes behind lesson 15."""

import json
import signal

import pytest

from metalearn.course.lessons import scale

RECORD = json.loads(scale.RECORD.read_text("utf-8"))


def test_the_record_holds_every_method_and_is_predicted_within_the_factor_that_the_library_promises():
    cases = {(row["method"], row["network"]) for row in RECORD["memory"]}
    assert cases == {(method, network) for method in scale.METHODS for network in scale.NETWORKS}
    assert {row["method"] for row in RECORD["time"]} == set(scale.METHODS)
    for row in RECORD["memory"] + RECORD["time"]:
        assert 1 / 1.5 < row["predicted"] / row["measured"] < 1.5, row


@pytest.mark.slow
def test_the_record_was_predicted_by_the_costs_of_today():
    sizes = {network: scale.problem(*scale.NETWORKS[network])[-1] for network in scale.NETWORKS}
    for kind, entry in (("memory", "memory"), ("time", "gradients")):
        for row in RECORD[kind]:
            cost = scale.predicted(scale.METHODS[row["method"]], row["K"], sizes[row["network"]])
            assert row["predicted"] == pytest.approx(getattr(cost, entry), rel=1e-3)


def test_only_what_is_exchanged_where_no_task_fails_is_counted():
    text = """
%rare (x: f32[9]) -> f32[9] {
  ROOT %a = f32[9]{0} all-reduce(%x)
}

ENTRY %main {
  %b = (f32[40,3]{1,0}, /*index=1*/f32[]) all-reduce(%p, %q), channel_id=2
  %c = pred[] all-reduce(%r)
}
"""
    assert scale.exchanged(text) == 121


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    with scale.started("nonsense") as process, pytest.raises(RuntimeError, match=r"(?s)ended with 2\..*invalid choice"):
        process.next()


@pytest.mark.slow
def test_a_process_that_hangs_is_ended():
    with scale.started("share", seconds=0.1) as process, pytest.raises(RuntimeError, match=r"was not done after"):
        process.next()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_ends_with_the_bits_of_another_process(tmp_path):
    with scale.started("train", str(tmp_path / "killed")) as process:
        while process.next()["step"] < 60:
            pass
        assert process.kill() == -signal.SIGKILL
    bits = []
    for name in ("killed", "never stopped"):
        with scale.started("train", str(tmp_path / name)) as process:
            said = process.next()
            assert (said["step"] > 4) == (name == "killed")
            while "bits" not in said:
                said = process.next()
        bits.append(said["bits"])
    assert bits[0] == bits[1]
