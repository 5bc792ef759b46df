"""One question a file. `nowag-bench study` runs those that are recipes; tiny_model.py made the embedded model."""

from studies import normalizer, statistics_mode
from studies.study import Study

STUDIES: dict[str, Study] = {study.NAME: study for study in (statistics_mode, normalizer)}
