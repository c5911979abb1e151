"""The job of gpu-study that measures speed runs the benchmark, which leaves its record."""

from posttrain.commands.gpu_study import Job
from posttrain.evidence import records


def test_speed_is_measured_by_the_benchmark(tiny_checkpoint, tmp_path):
    arguments = ("--checkpoint", str(tiny_checkpoint), "--rounds", "1", "--seconds", "0.001")
    arguments += ("--no_memory", "--methods", "separate", "--workloads", "pairs@6x3")
    assert Job("quick", speed=arguments).run(tmp_path) == "finished"
    (record,) = records.load_all(tmp_path / "quick", "throughput")
    assert record.tables["workloads"]["workload"].tolist() == ["pairs@6x3"]
