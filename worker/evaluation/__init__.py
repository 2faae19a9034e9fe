"""How robust a model is: plain functions over tensors and arrays, keyed by image, resumable by block."""

from worker.evaluation.block import BlockResult
from worker.evaluation.clean import CleanResult, evaluate_clean
from worker.evaluation.robust import evaluate_block
from worker.evaluation.summary import summarise
from worker.evaluation.verdicts import image_verdicts, mean_distances

__all__ = [
    "BlockResult", "CleanResult", "evaluate_block", "evaluate_clean", "image_verdicts", "mean_distances", "summarise",
]
