"""The contract between training and analysis: event schema, `Recorder`, adapters. Standard library only at import."""

IS_AFTERTRAIN = True
