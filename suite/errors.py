"""What can go wrong through no fault of the suite: one line for the user and exit status 2.

SuiteError                anything else that surfaces is a bug and keeps its traceback
├── ConfigError           a recipe or an option: path, key, value, what is allowed
├── AssetError            a model or text that cannot be had or read
├── CalibrationError      data or statistics: what was asked, what was found
├── CheckpointError       a cell on disk: file, what is wrong with it
├── ResultError           a results file or a tracking store
└── EnvironmentProblem    this installation or machine: what is in the way, how to clear it
"""


class SuiteError(Exception):
    """Base of every error that the command line answers with one line and exit status 2."""


class ConfigError(SuiteError):
    """A recipe or an option is wrong."""


class AssetError(SuiteError):
    """A model, a tokenizer or a text cannot be found, fetched or read."""


class CalibrationError(SuiteError):
    """The calibration data or the statistics drawn from them cannot be used."""


class CheckpointError(SuiteError):
    """A cell's directory is incomplete or damaged, or cannot be written."""


class ResultError(SuiteError):
    """A results file or a tracking store cannot be read or written."""


class EnvironmentProblem(SuiteError):
    """The installation or the machine cannot run the suite."""
