"""One question a file, asked at two scales and answered from rows; tiny_model.py made the embedded model."""

from studies import (
    calibration_ablation,
    codebook_search,
    matched_bits,
    normalizer_ablation,
    paper_pruning,
    paper_quantization,
    sensitivity,
    statistics_mode,
)
from studies.conclusion import conclusions, write
from studies.study import SCALES, Scale, Study

__all__ = ["SCALES", "STUDIES", "Scale", "Study", "conclusions", "write"]

STUDIES: dict[str, Study] = {
    study.NAME: study
    for study in (
        *(paper_pruning, paper_quantization, matched_bits),
        *(calibration_ablation, statistics_mode, normalizer_ablation),
        *(codebook_search, sensitivity),
    )
}
