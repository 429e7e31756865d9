import tracker_csv

from harness.contract.events import Started, Step
from harness.testing import check


def test_it_keeps_the_laws_of_its_kind():
    check(tracker_csv)


def test_steps_that_are_done_again_are_written_once(tmp_path):
    receive = tracker_csv.create(tracker_csv.CsvOptions())
    receive(Started("demo", tmp_path, {}, 0, 3))
    for step in (1, 2, 3):
        receive(Step("demo", step, {"loss": 1.0 / step}))
    again = tracker_csv.create(tracker_csv.CsvOptions())
    again(Started("demo", tmp_path, {}, 2, 3))
    again(Step("demo", 3, {"loss": 0.25}))
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["step,name,value", "1,loss,1.0", "2,loss,0.5", "3,loss,0.25"]
