"""The four tasks by name."""

from __future__ import annotations

from typing import Any

from cds_plugin.study import OperatingPoint
from cds_worker.evaluation.classification import Classification
from cds_worker.evaluation.facts import FactsReading
from cds_worker.evaluation.instances import Instances
from cds_worker.evaluation.quality import QualityTask
from cds_worker.evaluation.segmentation import Segmentation
from cds_worker.evaluation.task import Task, TaskName


def task_of(name: TaskName, point: OperatingPoint, facts: FactsReading | None = None) -> Task[Any]:
    """Return the task; `point` says where malignancy is flagged, `facts` how those of a patient are used."""
    tasks: dict[TaskName, Task[Any]] = {
        TaskName.CLASSIFICATION: Classification(point, facts),
        TaskName.SEGMENTATION: Segmentation(),
        TaskName.INSTANCES: Instances(),
        TaskName.QUALITY: QualityTask(),
    }
    return tasks[name]
