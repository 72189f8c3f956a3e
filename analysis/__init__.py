"""A `Run` in, results out: frames, findings, figures and reports; one file per question."""

IS_AFTERTRAIN = True
