"""The exceptions that looper raises on purpose.

LooperError
 ├── ConfigError          a value in the configuration is wrong; names it, the alternatives, the next step
 ├── MachineError         this machine lacks something (git, a sandbox level, space, rights)
 │    └── SandboxError    the wanted level of isolation cannot be had
 ├── WorkspaceError       a checkout is not what it must be (dirty, wrong commit, path outside)
 │    └── PatchError      a patch does not apply
 ├── ModelError           a model could not be loaded or did not answer
 │    └── ContextOverflow the conversation is longer than the model can read
 ├── TrainingError        training cannot go on (NaN loss, missing metric)
 │    └── NothingToLearn  too few examples; the run goes on without
 └── StoreError           a stored file is unreadable, or cannot be written

A failure *inside* a session (a command that fails, a patch that does not apply) is no exception
but data: it is recorded in the trajectory or the verdict.
"""


class LooperError(Exception):
    """Base of every error that looper raises on purpose; its text is meant for the user."""


class ConfigError(LooperError):
    """A configuration value is wrong."""


class MachineError(LooperError):
    """Something that the run needs is missing on this machine."""


class SandboxError(MachineError):
    """The wanted level of isolation cannot be had on this machine."""


class WorkspaceError(LooperError):
    """A checkout is not what it must be: dirty, at another commit, or a path leads outside."""


class PatchError(WorkspaceError):
    """A patch does not apply to the fresh checkout that it was made from."""


class ModelError(LooperError):
    """A model could not be loaded, or did not answer."""


class TrainingError(LooperError):
    """Training cannot start or go on."""


class NothingToLearn(TrainingError):
    """Too few usable examples: a result of the run, not a failure of it."""


class StoreError(LooperError):
    """A stored file is unreadable, damaged, or cannot be written."""


class ContextOverflow(ModelError):
    """A conversation no longer fits the model's context; ends the session with exit `tokens`."""
